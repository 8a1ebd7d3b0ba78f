/* Files compressed as the programs gzip, zstd and xz do. */
#ifndef KAPPA_TESTS_DATA_COMPRESSED_H
#define KAPPA_TESTS_DATA_COMPRESSED_H

#include "data/fixture.h"

#include <archive.h>
#include <archive_entry.h>

/* `filter`: "gzip", "zstd", "xz" or "bzip2". */
static inline const char *fixture_compress(fixture *files, const char *name, const char *filter,
                                           const void *data, size_t size) {
  const char *path = fixture_path(files, name);
  struct archive *archive = archive_write_new();
  struct archive_entry *entry = archive_entry_new();
  assert_int_equal(archive_write_add_filter_by_name(archive, filter), ARCHIVE_OK);
  assert_int_equal(archive_write_set_format_raw(archive), ARCHIVE_OK);
  assert_int_equal(archive_write_open_filename(archive, path), ARCHIVE_OK);
  archive_entry_set_filetype(entry, AE_IFREG);
  assert_int_equal(archive_write_header(archive, entry), ARCHIVE_OK);
  assert_int_equal(archive_write_data(archive, data, size), size);
  archive_entry_free(entry);
  assert_int_equal(archive_write_close(archive), ARCHIVE_OK);
  archive_write_free(archive);
  return path;
}

#endif
