/* Single files out of an archive: zip, or tar that may be compressed by gzip, xz, bzip2 or Zstandard.
 *
 * Which kind it is, is seen by its bytes.  Names inside an archive only choose what is taken: where a file
 * goes is said by the caller. */
#ifndef KAPPA_DATA_ARCHIVE_FILES_H
#define KAPPA_DATA_ARCHIVE_FILES_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

typedef struct kp_archive_member {
  const char *name; /* in the archive: "SST-2/train.tsv" */
  const char *path; /* of the file that is made; its folder must exist */
} kp_archive_member;

/* Writes the members' bytes to their paths, each whole or not at all.  A member that is not there, is no
 * regular file, or has more than `largest` bytes is an error.  Of members of one name the first counts. */
kp_status kp_archive_extract(const char *archive, const kp_archive_member *members, size_t count,
                             int64_t largest, kp_error *error);

#endif
