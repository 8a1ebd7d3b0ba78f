/* Whole files: mapped, read, appended to.  Files that must never be seen half
 * written are written with core/atomic_file.h.
 *
 * Every error names the path and says what to do about it. */
#ifndef KAPPA_CORE_FILE_H
#define KAPPA_CORE_FILE_H

#include "core/error.h"

#include <stddef.h>

/* What to do with a file of no bytes. */
typedef enum kp_file_empty { KP_EMPTY_REFUSED, KP_EMPTY_ALLOWED } kp_file_empty;

/* A whole file, mapped into memory for reading.  The bytes live until
 * kp_file_map_close.  A file that another program cuts short meanwhile raises
 * SIGBUS when read beyond its new end; replacing the file by rename, as
 * kappa itself does, is harmless. */
typedef struct kp_file_map {
  const unsigned char *data; /* `size` bytes, page aligned; NULL when size is 0 */
  size_t size;
} kp_file_map;

/* Maps a regular file; folders, devices and pipes are refused. */
kp_status kp_file_map_open(const char *path, kp_file_empty empty, kp_file_map *map, kp_error *error);

/* Unmaps; a zeroed or closed map is left alone. */
void kp_file_map_close(kp_file_map *map);

/* Reads everything that `path` gives (a file, a pipe, a device) up to
 * `maximum` bytes; more is an error.  *data gets size + 1 bytes, the last of
 * them zero, and belongs to the caller, who frees it. */
kp_status kp_file_read_all(const char *path, size_t maximum, char **data, size_t *size, kp_error *error);

/* Appends the bytes with a single write, creating the file if it is missing:
 * all of them or, when the disk is full, none.  They are not synced to disk,
 * so a power failure may leave the last append torn. */
kp_status kp_file_append(const char *path, const void *data, size_t size, kp_error *error);

/* Cuts the file to its first `size` bytes and syncs it. */
kp_status kp_file_truncate(const char *path, size_t size, kp_error *error);

#endif
