#include "data/byte_source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/archive_reader.h"

struct kp_byte_source {
  const char *name; /* for messages; owned */
  int descriptor;
  kp_archive_reader reader;
  bool begun, ended;
};

static kp_status open_descriptor(kp_byte_source *source, const char *path, kp_error *error) {
  struct stat information;
  if (strcmp(path, KP_STANDARD_INPUT) == 0) {
    source->descriptor = dup(STDIN_FILENO);
    if (source->descriptor < 0) return kp_fail_errno(error, KP_ERR_IO, "cannot read standard input");
    return KP_OK;
  }
  source->descriptor = open(path, O_RDONLY | O_CLOEXEC);
  if (source->descriptor < 0 && errno == ENOENT)
    return kp_fail(error, KP_ERR_IO, "cannot read %s: it does not exist", path);
  if (source->descriptor < 0 || fstat(source->descriptor, &information) != 0)
    return kp_fail_errno(error, KP_ERR_IO, "cannot read %s", path);
  if (S_ISDIR(information.st_mode)) return kp_fail(error, KP_ERR_IO, "cannot read %s: it is a folder", path);
  return KP_OK;
}

/* Formats that hold files in files (tar, zip) stay closed: their bytes would be read as text. */
static kp_status open_archive(kp_byte_source *source, kp_error *error) {
  struct archive_entry *entry;
  KP_TRY(kp_archive_reader_init(&source->reader, source->name, error));
  struct archive *archive = source->reader.archive;
  archive_read_support_format_raw(archive);
  archive_read_support_format_empty(archive);
  const int opened = archive_read_open_fd(archive, source->descriptor, KP_ARCHIVE_BLOCK);
  KP_TRY(kp_archive_reader_check(&source->reader, opened, error));
  const int code = archive_read_next_header(archive, &entry);
  source->ended = code == ARCHIVE_EOF; /* a file of no bytes */
  return kp_archive_reader_check(&source->reader, code, error);
}

kp_status kp_byte_source_open(const char *path, kp_byte_source **source, kp_error *error) {
  *source = NULL;
  kp_byte_source *opened = calloc(1, sizeof *opened);
  if (opened == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory to read %s", path);
  opened->descriptor = -1;
  opened->name = strdup(strcmp(path, KP_STANDARD_INPUT) == 0 ? "standard input" : path);
  kp_status status =
      opened->name == NULL ? kp_fail(error, KP_ERR_MEMORY, "no memory to read %s", path) : KP_OK;
  if (status == KP_OK) status = open_descriptor(opened, path, error);
  if (status == KP_OK) status = open_archive(opened, error);
  if (status != KP_OK) {
    kp_byte_source_close(opened);
    return status;
  }
  *source = opened;
  return KP_OK;
}

/* Of a kind of file whose bytes are no text, and that people have. */
static kp_status refuse_parquet(kp_byte_source *source, const char *bytes, size_t size, kp_error *error) {
  const bool front = !source->begun;
  source->begun = true;
  if (!front || size < 4 || memcmp(bytes, "PAR1", 4) != 0) return KP_OK;
  return kp_fail(
      error, KP_ERR_UNSUPPORTED,
      "%s is a Parquet file; pass its rows on as JSON lines, for example: duckdb -c \"COPY (SELECT "
      "text FROM 'file.parquet') TO '/dev/stdout' (FORMAT json)\" | kappa data prepare --format jsonl "
      "... -",
      source->name);
}

kp_status kp_byte_source_next(kp_byte_source *source, const char **bytes, size_t *size, kp_error *error) {
  kp_archive_block block = {.bytes = ""};
  *bytes = "";
  *size = 0;
  while (block.size == 0 && !source->ended) {
    KP_TRY(kp_archive_reader_next(&source->reader, &block, error));
    source->ended = block.ended;
  }
  *bytes = block.bytes;
  *size = block.size;
  return refuse_parquet(source, *bytes, *size, error);
}

uint64_t kp_byte_source_taken(const kp_byte_source *source) {
  const la_int64_t taken = archive_filter_bytes(source->reader.archive, -1);
  return taken < 0 ? 0 : (uint64_t)taken;
}

void kp_byte_source_close(kp_byte_source *source) {
  if (source == NULL) return;
  kp_archive_reader_clear(&source->reader);
  if (source->descriptor >= 0) close(source->descriptor);
  free((char *)(uintptr_t)source->name);
  free(source);
}

kp_status kp_byte_source_read(const char *path, size_t most, kp_byte_buffer *bytes, kp_error *error) {
  kp_byte_source *source;
  const char *block;
  size_t size, taken = 0;
  KP_TRY(kp_byte_source_open(path, &source, error));
  kp_status status;
  do {
    status = kp_byte_source_next(source, &block, &size, error);
    if (status == KP_OK && size > most - taken)
      status = kp_fail(error, KP_ERR_INPUT, "%s has more than %zu bytes", source->name, most);
    if (status == KP_OK && size > 0) status = kp_byte_buffer_append(bytes, block, size, error);
    taken += size;
  } while (status == KP_OK && size > 0);
  kp_byte_source_close(source);
  return status;
}
