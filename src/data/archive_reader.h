/* Compressed files, and archives, by libarchive: gzip, xz, bzip2 and Zstandard are known by their first
 * bytes, whatever the file is called.  Which formats of archives are read besides is up to the caller. */
#ifndef KAPPA_DATA_ARCHIVE_READER_H
#define KAPPA_DATA_ARCHIVE_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <archive.h>
#include <archive_entry.h>

#include "core/error.h"

/* Bytes that are read from a file at a time. */
enum { KP_ARCHIVE_BLOCK = 256 * 1024 };

typedef struct kp_archive_reader {
  const char *name; /* of the file, for messages; must outlive the reader */
  struct archive *archive;
} kp_archive_reader;

/* A reader without formats.  Clear after a failure too. */
kp_status kp_archive_reader_init(kp_archive_reader *reader, const char *name, kp_error *error);

/* What a function of libarchive returned: warnings and the end are fine. */
kp_status kp_archive_reader_check(const kp_archive_reader *reader, int code, kp_error *error);

/* Bytes of the entry at hand, which stay until the next call. */
typedef struct kp_archive_block {
  const char *bytes;
  size_t size; /* may be 0 in between */
  int64_t offset;
  bool ended; /* there are no further bytes, and none in this block */
} kp_archive_block;

kp_status kp_archive_reader_next(const kp_archive_reader *reader, kp_archive_block *block, kp_error *error);

void kp_archive_reader_clear(kp_archive_reader *reader);

#endif
