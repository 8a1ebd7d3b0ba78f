/* Files that are seen whole or not at all.
 *
 * The bytes go to a temporary name in the same folder; commit flushes them,
 * syncs the file, renames it over the target and syncs the folder.  Until
 * then, and after any failure (disk full, a folder that may not be written),
 * the old file stands untouched and the temporary is removed.  A killed
 * process leaves its temporary: kp_directory_remove_temporaries.
 *
 * A symbolic link to a file is followed, so that the link stays; a folder, a
 * device or a pipe is refused as a target.  The permissions of the file that
 * is replaced are kept. */
#ifndef KAPPA_CORE_ATOMIC_FILE_H
#define KAPPA_CORE_ATOMIC_FILE_H

#include "core/error.h"

#include <stddef.h>
#include <stdint.h>

typedef struct kp_atomic_file kp_atomic_file;

/* Starts a file that will stand at `path`.  *file is NULL on failure, else it
 * must end in commit or abort. */
kp_status kp_atomic_file_open(const char *path, kp_atomic_file **file, kp_error *error);

/* Writes at the end of what kp_atomic_file_write wrote so far.  Small pieces
 * are gathered in a buffer. */
kp_status kp_atomic_file_write(kp_atomic_file *file, const void *data, size_t size, kp_error *error);

/* Writes at a byte offset; the place of kp_atomic_file_write does not move.
 * Bytes that nobody writes below the end are zero. */
kp_status kp_atomic_file_write_at(kp_atomic_file *file, uint64_t offset, const void *data, size_t size,
                                  kp_error *error);

/* Makes the file visible under its name, or fails and leaves the old one; a
 * file with a failed write is never committed.  Frees `file` in either case. */
kp_status kp_atomic_file_commit(kp_atomic_file *file, kp_error *error);

/* Drops what was written and frees `file`; NULL is allowed. */
void kp_atomic_file_abort(kp_atomic_file *file);

/* A whole file at once. */
kp_status kp_file_write_atomic(const char *path, const void *data, size_t size, kp_error *error);

#endif
