#include "data/archive_files.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "core/assert.h"
#include "core/atomic_file.h"
#include "data/archive_reader.h"

enum {
  MEMBERS_MOST = 16,     /* that a caller asks for */
  ENTRIES_MOST = 1 << 20 /* that are looked at */
};

typedef struct extraction {
  const char *path;
  kp_archive_reader reader;
  const kp_archive_member *members;
  size_t count;
  bool found[MEMBERS_MOST];
  int64_t largest;
} extraction;

static kp_status open_archive(extraction *e, kp_error *error) {
  KP_TRY(kp_archive_reader_init(&e->reader, e->path, error));
  archive_read_support_format_tar(e->reader.archive);
  archive_read_support_format_zip(e->reader.archive);
  const int code = archive_read_open_filename(e->reader.archive, e->path, KP_ARCHIVE_BLOCK);
  return kp_archive_reader_check(&e->reader, code, error);
}

static kp_status copy(const extraction *e, const kp_archive_member *member, kp_atomic_file *file,
                      kp_error *error) {
  int64_t written = 0;
  for (kp_archive_block block;; written += (int64_t)block.size) {
    KP_TRY(kp_archive_reader_next(&e->reader, &block, error));
    if (block.ended) return KP_OK;
    if (block.offset != written)
      return kp_fail(error, KP_ERR_UNSUPPORTED, "%s in %s has holes", member->name, e->path);
    if (block.size > (uint64_t)(e->largest - written))
      return kp_fail(error, KP_ERR_INPUT,
                     "%s in %s has more than %" PRId64 " bytes: it is not what it should be", member->name,
                     e->path, e->largest);
    KP_TRY(kp_atomic_file_write(file, block.bytes, block.size, error));
  }
}

static kp_status extract(const extraction *e, const kp_archive_member *member, struct archive_entry *entry,
                         kp_error *error) {
  kp_atomic_file *file;
  if (archive_entry_filetype(entry) != AE_IFREG || archive_entry_hardlink(entry) != NULL)
    return kp_fail(error, KP_ERR_INPUT, "%s in %s is not a regular file", member->name, e->path);
  KP_TRY(kp_atomic_file_open(member->path, &file, error));
  const kp_status status = copy(e, member, file, error);
  if (status == KP_OK) return kp_atomic_file_commit(file, error);
  kp_atomic_file_abort(file);
  return status;
}

static kp_status extract_entry(extraction *e, struct archive_entry *entry, kp_error *error) {
  const char *name = archive_entry_pathname(entry);
  if (name == NULL) return KP_OK;
  if (strncmp(name, "./", 2) == 0) name += 2;
  for (size_t i = 0; i < e->count; i++) {
    if (e->found[i] || strcmp(name, e->members[i].name) != 0) continue;
    KP_TRY(extract(e, &e->members[i], entry, error));
    e->found[i] = true;
    return KP_OK;
  }
  return KP_OK;
}

/* The first member that was not found, or the count. */
static size_t first_missing(const extraction *e) {
  size_t i = 0;
  while (i < e->count && e->found[i]) i++;
  return i;
}

static kp_status extract_all(extraction *e, kp_error *error) {
  struct archive_entry *entry;
  KP_TRY(open_archive(e, error));
  for (int seen = 0; first_missing(e) < e->count; seen++) {
    const int code = archive_read_next_header(e->reader.archive, &entry);
    if (code == ARCHIVE_EOF || (code >= ARCHIVE_WARN && seen == ENTRIES_MOST))
      return kp_fail(error, KP_ERR_INPUT, "the archive %s holds no %s", e->path,
                     e->members[first_missing(e)].name);
    KP_TRY(kp_archive_reader_check(&e->reader, code, error));
    KP_TRY(extract_entry(e, entry, error));
  }
  return KP_OK;
}

kp_status kp_archive_extract(const char *archive, const kp_archive_member *members, size_t count,
                             int64_t largest, kp_error *error) {
  kp_assert(count <= MEMBERS_MOST, "too many members");
  extraction e = {.path = archive, .members = members, .count = count, .largest = largest};
  const kp_status status = extract_all(&e, error);
  kp_archive_reader_clear(&e.reader);
  return status;
}
