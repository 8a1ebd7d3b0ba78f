#include "data/archive_reader.h"

kp_status kp_archive_reader_init(kp_archive_reader *reader, const char *name, kp_error *error) {
  *reader = (kp_archive_reader){.name = name, .archive = archive_read_new()};
  if (reader->archive == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory to read %s", name);
  archive_read_support_filter_gzip(reader->archive);
  archive_read_support_filter_xz(reader->archive);
  archive_read_support_filter_bzip2(reader->archive);
  archive_read_support_filter_zstd(reader->archive);
  return KP_OK;
}

kp_status kp_archive_reader_check(const kp_archive_reader *reader, int code, kp_error *error) {
  if (code == ARCHIVE_OK || code == ARCHIVE_WARN || code == ARCHIVE_EOF) return KP_OK;
  const char *reason = archive_error_string(reader->archive);
  return kp_fail(error, KP_ERR_INPUT, "cannot read %s: %s", reader->name,
                 reason == NULL ? "it is damaged" : reason);
}

kp_status kp_archive_reader_next(const kp_archive_reader *reader, kp_archive_block *block, kp_error *error) {
  const void *bytes = NULL;
  size_t size = 0;
  la_int64_t offset = 0;
  const int code = archive_read_data_block(reader->archive, &bytes, &size, &offset);
  *block = (kp_archive_block){.bytes = "", .offset = offset, .ended = code == ARCHIVE_EOF};
  KP_TRY(kp_archive_reader_check(reader, code, error));
  if (block->ended || size == 0) return KP_OK;
  block->bytes = bytes;
  block->size = size;
  return KP_OK;
}

void kp_archive_reader_clear(kp_archive_reader *reader) {
  archive_read_free(reader->archive); /* of NULL, nothing */
  *reader = (kp_archive_reader){0};
}
