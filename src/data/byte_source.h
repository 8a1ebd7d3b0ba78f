/* The bytes of a file or of standard input, decompressed where they are compressed.
 *
 * gzip, Zstandard, xz and bzip2 are known by their first bytes, whatever the file is called; several members
 * or frames behind each other are read as one.  Memory is constant. */
#ifndef KAPPA_DATA_BYTE_SOURCE_H
#define KAPPA_DATA_BYTE_SOURCE_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "data/byte_buffer.h"

/* The path that means standard input. */
#define KP_STANDARD_INPUT "-"

typedef struct kp_byte_source kp_byte_source;

/* Opens a regular file, a pipe or KP_STANDARD_INPUT; folders are refused.  *source is NULL on failure. */
kp_status kp_byte_source_open(const char *path, kp_byte_source **source, kp_error *error);

/* The next bytes, which stay until the next call; *size is 0 at the end.  Compressed data that is cut short
 * or damaged is an error. */
kp_status kp_byte_source_next(kp_byte_source *source, const char **bytes, size_t *size, kp_error *error);

/* Bytes of the file itself that were read so far. */
uint64_t kp_byte_source_taken(const kp_byte_source *source);

/* Appends all bytes of the file that `path` names; more than `most` are an error. */
kp_status kp_byte_source_read(const char *path, size_t most, kp_byte_buffer *bytes, kp_error *error);

/* NULL is allowed. */
void kp_byte_source_close(kp_byte_source *source);

#endif
