/* Writes one token file in a layout of data/token_layout.h.  The file appears under its name only when it is
 * complete. */
#ifndef KAPPA_DATA_TOKEN_WRITER_H
#define KAPPA_DATA_TOKEN_WRITER_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "data/token_layout.h"

typedef struct kp_token_writer kp_token_writer;

/* Starts a file in kappa's headed layout: uint16 tokens when the vocabulary fits, else uint32.  `fingerprint`
 * may be 0 (unknown).  Ends in kp_token_writer_finish or _abort. */
kp_status kp_token_writer_create(const char *path, int32_t vocabulary, uint64_t fingerprint,
                                 kp_token_writer **writer, kp_error *error);

/* The same with begin (0: a raw file without a header), token size, vocabulary (0: llm.c's header, and a
 * token may be whatever its bytes hold) and fingerprint of a layout. */
kp_status kp_token_writer_create_as(const char *path, const kp_token_layout *layout, kp_token_writer **writer,
                                    kp_error *error);

/* Appends tokens, each in [0, vocabulary).  A file with a header holds 2^31 - 1 tokens at most, as that
 * counts. */
kp_status kp_token_writer_append(kp_token_writer *writer, const int32_t *tokens, size_t count,
                                 kp_error *error);

/* Writes the header and puts the file in place; no tokens at all is an error.  `text_bytes` may be 0
 * (unknown).  Frees the writer in either case. */
kp_status kp_token_writer_finish(kp_token_writer *writer, uint64_t text_bytes, kp_error *error);

/* Drops what was written; NULL is allowed. */
void kp_token_writer_abort(kp_token_writer *writer);

#endif
