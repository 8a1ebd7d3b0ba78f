/* Writes one token file in kappa's headed layout (data/token_layout.h): uint16 tokens when the vocabulary
 * fits, else uint32.  The file appears under its name only when it is complete. */
#ifndef KAPPA_DATA_TOKEN_WRITER_H
#define KAPPA_DATA_TOKEN_WRITER_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

typedef struct kp_token_writer kp_token_writer;

/* Starts a file.  `fingerprint` may be 0 (unknown).  Ends in kp_token_writer_finish or _abort. */
kp_status kp_token_writer_create(const char *path, int32_t vocabulary, uint64_t fingerprint,
                                 kp_token_writer **writer, kp_error *error);

/* Appends tokens, each in [0, vocabulary).  A file holds 2^31 - 1 tokens at most, as its header counts. */
kp_status kp_token_writer_append(kp_token_writer *writer, const int32_t *tokens, size_t count,
                                 kp_error *error);

/* Writes the header and puts the file in place; no tokens at all is an error.  `text_bytes` may be 0
 * (unknown).  Frees the writer in either case. */
kp_status kp_token_writer_finish(kp_token_writer *writer, uint64_t text_bytes, kp_error *error);

/* Drops what was written; NULL is allowed. */
void kp_token_writer_abort(kp_token_writer *writer);

#endif
