#include "interchange/torch_zip.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Sizes of the fixed parts of records, their signature included. */
enum { END = 22, END64 = 56, LOCATOR64 = 20, CENTRAL = 46, LOCAL = 30, LONGEST_COMMENT = 65535 };

typedef struct archive {
  const unsigned char *data;
  size_t size;
  const char *label;
  kp_error *error;
} archive;

/* The directory of all entries: at the archive's end. */
typedef struct directory {
  uint64_t start, size, count;
} directory;

static uint64_t number(const unsigned char *bytes, size_t width) {
  uint64_t value = 0;
  memcpy(&value, bytes, width);
  return value;
}

static bool signed_as(const unsigned char *bytes, const char signature[4]) {
  return memcmp(bytes, signature, 4) == 0;
}

/* The status is returned here, so that the compiler sees that it is no success. */
static kp_status damaged(const archive *a, const char *what) {
  kp_fail(a->error, KP_ERR_INPUT, "'%s' is a damaged zip archive: %s; copy or save the file again", a->label,
          what);
  return KP_ERR_INPUT;
}

static kp_status find_end(const archive *a, size_t *end) {
  if (a->size < END) return damaged(a, "it is too short");
  const size_t last = a->size - END, first = last > LONGEST_COMMENT ? last - LONGEST_COMMENT : 0;
  for (*end = last;; (*end)--) {
    if (signed_as(a->data + *end, "PK\5\6")) return KP_OK;
    if (*end == first) return damaged(a, "its directory is missing, as if it were cut short");
  }
}

/* Of archives above 4 GiB, and of all that torch writes. */
static kp_status read_end64(const archive *a, size_t end, directory *d) {
  if (end < LOCATOR64 || !signed_as(a->data + end - LOCATOR64, "PK\6\7")) return KP_OK;
  const uint64_t place = number(a->data + end - LOCATOR64 + 8, 8);
  if (a->size < END64 || place > a->size - END64 || !signed_as(a->data + place, "PK\6\6"))
    return damaged(a, "its zip64 directory is missing");
  *d = (directory){.count = number(a->data + place + 32, 8),
                   .size = number(a->data + place + 40, 8),
                   .start = number(a->data + place + 48, 8)};
  return KP_OK;
}

static kp_status find_directory(const archive *a, directory *d) {
  size_t end;
  KP_TRY(find_end(a, &end));
  *d = (directory){.count = number(a->data + end + 10, 2),
                   .size = number(a->data + end + 12, 4),
                   .start = number(a->data + end + 16, 4)};
  KP_TRY(read_end64(a, end, d));
  if (d->start > end || d->size > end - d->start) return damaged(a, "its directory lies outside of it");
  if (d->count > d->size / CENTRAL) return damaged(a, "its directory is too short");
  return KP_OK;
}

/* The sizes of an entry that do not fit in 32 bits stand in an extra field of type 1, in this order. */
static kp_status read_extra(const archive *a, const unsigned char *extra, size_t size,
                            uint64_t *const values[3]) {
  while (size >= 4) {
    const size_t kind = number(extra, 2), length = number(extra + 2, 2);
    if (length > size - 4) return damaged(a, "an extra field is too long");
    size_t at = 0;
    for (int i = 0; i < 3 && kind == 1; i++) {
      if (*values[i] != UINT32_MAX) continue;
      if (length - at < 8) return damaged(a, "a zip64 field is too short");
      *values[i] = number(extra + 4 + at, 8);
      at += 8;
    }
    extra += 4 + length;
    size -= 4 + length;
  }
  return KP_OK;
}

static kp_status check_method(const archive *a, const unsigned char *record) {
  if ((number(record + 8, 2) & 1) != 0)
    return kp_fail(a->error, KP_ERR_UNSUPPORTED, "the zip archive '%s' is encrypted; save it without",
                   a->label);
  if (number(record + 10, 2) != 0)
    return kp_fail(
        a->error, KP_ERR_UNSUPPORTED,
        "the zip archive '%s' is compressed, as TorchScript programs are and files of torch.save never; "
        "save the weights alone, with torch.save(model.state_dict(), PATH)",
        a->label);
  return KP_OK;
}

/* An entry's bytes stand behind its local header, whose name and extra field have lengths of their own. */
static kp_status find_bytes(const archive *a, uint64_t local, uint64_t size, kp_zip_entry *entry) {
  if (a->size < LOCAL || local > a->size - LOCAL || !signed_as(a->data + local, "PK\3\4"))
    return damaged(a, "an entry has no header");
  const uint64_t start = local + LOCAL + number(a->data + local + 26, 2) + number(a->data + local + 28, 2);
  if (start > a->size || size > a->size - start)
    return damaged(a, "an entry ends behind the file, as if it were cut short");
  entry->data = a->data + start;
  entry->size = (size_t)size;
  return KP_OK;
}

/* Reads the record at `record`, of which `left` bytes are there; *used says how long it is. */
static kp_status read_entry(const archive *a, const unsigned char *record, size_t left, kp_zip_entry *entry,
                            size_t *used) {
  if (left < CENTRAL || !signed_as(record, "PK\1\2")) return damaged(a, "its directory is torn");
  const size_t name = number(record + 28, 2), extra = number(record + 30, 2), note = number(record + 32, 2);
  *used = CENTRAL + name + extra + note;
  if (*used > left) return damaged(a, "its directory is torn");
  uint64_t stored = number(record + 20, 4), size = number(record + 24, 4), local = number(record + 42, 4);
  KP_TRY(read_extra(a, record + CENTRAL + name, extra, (uint64_t *const[3]){&size, &stored, &local}));
  KP_TRY(check_method(a, record));
  if (stored != size) return damaged(a, "an entry has two sizes");
  entry->name = (const char *)record + CENTRAL;
  entry->name_size = name;
  return find_bytes(a, local, size, entry);
}

static int compare_names(const void *left, const void *right) {
  const kp_zip_entry *a = left, *b = right;
  const size_t shorter = a->name_size < b->name_size ? a->name_size : b->name_size;
  const int order = memcmp(a->name, b->name, shorter);
  if (order != 0) return order;
  return (a->name_size > b->name_size) - (a->name_size < b->name_size);
}

static kp_status read_entries(const archive *a, const directory *d, kp_zip *zip) {
  size_t at = 0;
  zip->entries = calloc((size_t)d->count + 1, sizeof *zip->entries);
  if (zip->entries == NULL) return kp_fail(a->error, KP_ERR_MEMORY, "not enough memory for '%s'", a->label);
  for (zip->count = 0; zip->count < d->count; zip->count++) {
    size_t used;
    KP_TRY(read_entry(a, a->data + d->start + at, (size_t)d->size - at, &zip->entries[zip->count], &used));
    at += used;
  }
  qsort(zip->entries, zip->count, sizeof *zip->entries, compare_names);
  for (size_t i = 1; i < zip->count; i++)
    if (compare_names(&zip->entries[i - 1], &zip->entries[i]) == 0)
      return damaged(a, "two entries have the same name");
  return KP_OK;
}

kp_status kp_zip_parse(const unsigned char *data, size_t size, const char *label, kp_zip *zip,
                       kp_error *error) {
  const archive a = {data, size, label, error};
  directory d;
  *zip = (kp_zip){0};
  kp_status status = find_directory(&a, &d);
  if (status == KP_OK) status = read_entries(&a, &d, zip);
  if (status != KP_OK) kp_zip_clear(zip);
  return status;
}

void kp_zip_clear(kp_zip *zip) {
  free(zip->entries);
  *zip = (kp_zip){0};
}

const kp_zip_entry *kp_zip_find(const kp_zip *zip, const char *folder, size_t folder_size, const char *name,
                                size_t name_size) {
  size_t low = 0, high = zip->count;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    const kp_zip_entry *entry = &zip->entries[middle];
    /* The entry's name against the two parts, one after the other. */
    const size_t first = entry->name_size < folder_size ? entry->name_size : folder_size;
    const size_t rest = entry->name_size - first, second = rest < name_size ? rest : name_size;
    int order = memcmp(entry->name, folder, first);
    if (order == 0 && first == folder_size) order = memcmp(entry->name + first, name, second);
    if (order == 0)
      order = (entry->name_size > folder_size + name_size) - (entry->name_size < folder_size + name_size);
    if (order == 0) return entry;
    if (order < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return NULL;
}
