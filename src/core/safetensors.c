/* Opens and checks safetensors files; the format is drawn in the header. */
#include "core/safetensors.h"
#include "core/assert.h"
#include "core/file.h"
#include "core/safetensors_shape.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <jansson.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "the files are little endian, and bytes are copied");

enum { LENGTH_SIZE = 8, MAXIMUM_JSON_DEPTH = 4 };

struct kp_safetensors {
  kp_file_map map; /* empty when the bytes belong to the caller */
  char *label;
  json_t *header; /* owns names and metadata */
  size_t count;
  kp_safetensors_entry *entries;        /* (count) by place in the file */
  const kp_safetensors_entry **by_name; /* (count) */
};

/* Text from a file is cut in messages: a hostile name may have megabytes. */
#define NAME_FORMAT "'%.120s'"

static kp_status find_header(const unsigned char *data, size_t size, const char *label, size_t *header_size,
                             kp_error *error) {
  static const char pointer[] = "version https://git-lfs";
  if (size >= sizeof pointer - 1 && memcmp(data, pointer, sizeof pointer - 1) == 0)
    return kp_fail(error, KP_ERR_INPUT,
                   "'%s' is a Git LFS pointer; fetch the file itself with 'git lfs pull'", label);
  if (size < LENGTH_SIZE)
    return kp_fail(error, KP_ERR_INPUT, "'%s' has %zu bytes, too few for a safetensors file", label, size);
  uint64_t length = 0;
  memcpy(&length, data, sizeof length);
  if (length > KP_SAFETENSORS_MAX_HEADER)
    return kp_fail(error, KP_ERR_INPUT,
                   "'%s' states a header of %" PRIu64
                   " bytes, above the limit of %d; it is not a safetensors file",
                   label, length, KP_SAFETENSORS_MAX_HEADER);
  if (length > size - LENGTH_SIZE)
    return kp_fail(error, KP_ERR_INPUT,
                   "'%s' is cut short: its header needs %" PRIu64 " bytes and %zu are there; copy it again",
                   label, length, size - LENGTH_SIZE);
  *header_size = (size_t)length;
  return KP_OK;
}

/* Refuses deep nesting before the parser recurses into it. */
static kp_status check_depth(const char *text, size_t size, const char *label, kp_error *error) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < size; i++) {
    char c = text[i];
    if (in_string) {
      if (c == '\\') i++;
      if (c == '"') in_string = false;
      continue;
    }
    if (c == '"') in_string = true;
    if (c == '{' || c == '[') depth++;
    if (c == '}' || c == ']') depth--;
    if (depth > MAXIMUM_JSON_DEPTH)
      return kp_fail(error, KP_ERR_INPUT,
                     "the header of '%s' is nested too deep at byte %zu; the file is damaged", label, i);
  }
  return KP_OK;
}

static kp_status parse_header(kp_safetensors *file, const char *text, size_t size, kp_error *error) {
  if (size == 0 || text[0] != '{')
    return kp_fail(error, KP_ERR_INPUT,
                   "the header of '%s' does not begin with '{'; it is not a safetensors file", file->label);
  KP_TRY(check_depth(text, size, file->label, error));
  json_error_t problem;
  file->header = json_loadb(text, size, JSON_REJECT_DUPLICATES, &problem);
  if (file->header != NULL) return KP_OK;
  if (json_error_code(&problem) == json_error_out_of_memory)
    return kp_fail(error, KP_ERR_MEMORY, "not enough memory for the header of '%s'", file->label);
  return kp_fail(error, KP_ERR_INPUT, "the header of '%s' is not valid JSON at byte %d: %s", file->label,
                 problem.position, problem.text);
}

static kp_status check_metadata(const kp_safetensors *file, const json_t *metadata, kp_error *error) {
  if (!json_is_object(metadata))
    return kp_fail(error, KP_ERR_INPUT, "'__metadata__' of '%s' is not a JSON object; write the file again",
                   file->label);
  const char *key = NULL;
  json_t *value = NULL;
  json_object_foreach((json_t *)metadata, key, value) {
    if (!json_is_string(value))
      return kp_fail(error, KP_ERR_INPUT,
                     "'__metadata__' of '%s' has a value for " NAME_FORMAT
                     " that is not a text; write the file again",
                     file->label, key);
  }
  return KP_OK;
}

static kp_status parse_dtype(kp_safetensors_entry *entry, const json_t *description, kp_error *error) {
  const char *dtype = json_string_value(json_object_get(description, "dtype"));
  const char *label = entry->file->label;
  if (dtype == NULL)
    return kp_fail(error, KP_ERR_INPUT, "tensor " NAME_FORMAT " of '%s' has no 'dtype'; write the file again",
                   entry->name, label);
  if (!kp_dtype_from_name(dtype, &entry->dtype))
    return kp_fail(error, KP_ERR_UNSUPPORTED,
                   "tensor " NAME_FORMAT " of '%s' has the dtype '%.20s', which kappa does not know; "
                   "convert it to F32 or BF16",
                   entry->name, label, dtype);
  return KP_OK;
}

static kp_status parse_shape(kp_safetensors_entry *entry, const json_t *description, kp_error *error) {
  const json_t *shape = json_object_get(description, "shape");
  const char *label = entry->file->label;
  size_t rank = json_array_size(shape);
  if (!json_is_array(shape) || rank > KP_SAFETENSORS_MAX_RANK)
    return kp_fail(error, KP_ERR_INPUT,
                   "the shape of tensor " NAME_FORMAT " of '%s' is not a list of at most %d sizes; "
                   "write the file again",
                   entry->name, label, KP_SAFETENSORS_MAX_RANK);
  entry->rank = (int)rank;
  for (size_t i = 0; i < rank; i++) {
    const json_t *dimension = json_array_get(shape, i);
    entry->shape[i] = json_is_integer(dimension) ? json_integer_value(dimension) : -1;
  }
  if (!kp_safetensors_measure(entry->dtype, entry->rank, entry->shape, &entry->elements, &entry->size))
    return kp_fail(error, KP_ERR_INPUT,
                   "the shape of tensor " NAME_FORMAT
                   " of '%s' has sizes that are negative, too large or not "
                   "whole numbers; write the file again",
                   entry->name, label);
  return KP_OK;
}

static kp_status parse_offsets(kp_safetensors_entry *entry, const json_t *description,
                               const unsigned char *data, size_t data_size, kp_error *error) {
  const json_t *offsets = json_object_get(description, "data_offsets");
  const json_t *first = json_array_get(offsets, 0), *second = json_array_get(offsets, 1);
  const char *label = entry->file->label;
  if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(second))
    return kp_fail(error, KP_ERR_INPUT,
                   "'data_offsets' of tensor " NAME_FORMAT
                   " of '%s' are not two whole numbers; write the file again",
                   entry->name, label);
  json_int_t begin = json_integer_value(first), end = json_integer_value(second);
  if (begin < 0 || begin > end)
    return kp_fail(error, KP_ERR_INPUT,
                   "tensor " NAME_FORMAT " of '%s' runs from byte %" JSON_INTEGER_FORMAT
                   " to %" JSON_INTEGER_FORMAT ", which cannot be; write the file again",
                   entry->name, label, begin, end);
  if ((uint64_t)end > data_size)
    return kp_fail(error, KP_ERR_INPUT,
                   "tensor " NAME_FORMAT " of '%s' ends at byte %" JSON_INTEGER_FORMAT
                   " of the data, which has %zu; the file is cut short, copy it again",
                   entry->name, label, end, data_size);
  if ((uint64_t)(end - begin) != entry->size)
    return kp_fail(error, KP_ERR_INPUT,
                   "tensor " NAME_FORMAT " of '%s' has %" JSON_INTEGER_FORMAT
                   " bytes, but its shape and dtype %s need %zu; write the file again",
                   entry->name, label, end - begin, kp_dtype_name(entry->dtype), entry->size);
  entry->data = data + begin;
  return KP_OK;
}

static kp_status parse_entry(kp_safetensors_entry *entry, const json_t *description,
                             const unsigned char *data, size_t data_size, kp_error *error) {
  if (!json_is_object(description))
    return kp_fail(error, KP_ERR_INPUT,
                   "tensor " NAME_FORMAT " of '%s' is not described by a JSON object; write the file again",
                   entry->name, entry->file->label);
  KP_TRY(parse_dtype(entry, description, error));
  KP_TRY(parse_shape(entry, description, error));
  return parse_offsets(entry, description, data, data_size, error);
}

/* By place; where that is equal (empty tensors) by name, so that the order is always the same. */
static int compare_places(const void *left, const void *right) {
  const kp_safetensors_entry *a = left, *b = right;
  if (a->data != b->data) return a->data < b->data ? -1 : 1;
  if (a->size != b->size) return a->size < b->size ? -1 : 1;
  return strcmp(a->name, b->name);
}

static int compare_names(const void *left, const void *right) {
  const kp_safetensors_entry *const *a = left, *const *b = right;
  return strcmp((*a)->name, (*b)->name);
}

static kp_status check_overlaps(const kp_safetensors *file, kp_error *error) {
  const kp_safetensors_entry *last = NULL;
  for (size_t i = 0; i < file->count; i++) {
    const kp_safetensors_entry *entry = &file->entries[i];
    if (entry->size == 0) continue;
    if (last != NULL && entry->data < last->data + last->size)
      return kp_fail(error, KP_ERR_INPUT,
                     "tensors " NAME_FORMAT " and " NAME_FORMAT " of '%s' share bytes; write the file again",
                     last->name, entry->name, file->label);
    last = entry;
  }
  return KP_OK;
}

static kp_status index_entries(kp_safetensors *file, kp_error *error) {
  if (file->count == 0) return KP_OK;
  qsort(file->entries, file->count, sizeof *file->entries, compare_places);
  KP_TRY(check_overlaps(file, error));
  for (size_t i = 0; i < file->count; i++) file->by_name[i] = &file->entries[i];
  qsort(file->by_name, file->count, sizeof *file->by_name, compare_names);
  return KP_OK;
}

static kp_status parse_entries(kp_safetensors *file, const unsigned char *data, size_t data_size,
                               kp_error *error) {
  size_t capacity = json_object_size(file->header) + 1;
  file->entries = calloc(capacity, sizeof *file->entries);
  file->by_name = calloc(capacity, sizeof *file->by_name);
  if (file->entries == NULL || file->by_name == NULL)
    return kp_fail(error, KP_ERR_MEMORY, "not enough memory for the list of tensors of '%s'", file->label);
  const char *name = NULL;
  json_t *description = NULL;
  json_object_foreach(file->header, name, description) {
    if (strcmp(name, "__metadata__") == 0) {
      KP_TRY(check_metadata(file, description, error));
      continue;
    }
    kp_safetensors_entry *entry = &file->entries[file->count++];
    entry->name = name;
    entry->file = file;
    KP_TRY(parse_entry(entry, description, data, data_size, error));
  }
  return index_entries(file, error);
}

static kp_status parse_into(kp_safetensors *file, const unsigned char *data, size_t size, kp_error *error) {
  size_t header_size = 0;
  KP_TRY(find_header(data, size, file->label, &header_size, error));
  KP_TRY(parse_header(file, (const char *)data + LENGTH_SIZE, header_size, error));
  size_t data_start = LENGTH_SIZE + header_size;
  return parse_entries(file, data + data_start, size - data_start, error);
}

kp_status kp_safetensors_parse(const void *data, size_t size, const char *label, kp_safetensors **result,
                               kp_error *error) {
  *result = NULL;
  kp_safetensors *file = calloc(1, sizeof *file);
  if (file != NULL) file->label = strdup(label);
  if (file == NULL || file->label == NULL) {
    free(file);
    return kp_fail(error, KP_ERR_MEMORY, "not enough memory to open '%s'", label);
  }
  kp_status status = parse_into(file, data, size, error);
  if (status == KP_OK)
    *result = file;
  else
    kp_safetensors_close(file);
  return status;
}

kp_status kp_safetensors_open(const char *path, kp_safetensors **file, kp_error *error) {
  *file = NULL;
  kp_file_map map;
  KP_TRY(kp_file_map_open(path, KP_EMPTY_REFUSED, &map, error));
  kp_status status = kp_safetensors_parse(map.data, map.size, path, file, error);
  if (status == KP_OK)
    (*file)->map = map;
  else
    kp_file_map_close(&map);
  return status;
}

void kp_safetensors_close(kp_safetensors *file) {
  if (file == NULL) return;
  json_decref(file->header);
  free(file->entries);
  free(file->by_name);
  free(file->label);
  kp_file_map_close(&file->map);
  free(file);
}

size_t kp_safetensors_count(const kp_safetensors *file) {
  return file->count;
}

const kp_safetensors_entry *kp_safetensors_entry_at(const kp_safetensors *file, size_t index) {
  kp_assert(index < file->count, "entry %zu of %zu in '%s'", index, file->count, file->label);
  return &file->entries[index];
}

const char *kp_safetensors_label(const kp_safetensors *file) {
  return file->label;
}

const kp_safetensors_entry *kp_safetensors_find(const kp_safetensors *file, const char *name) {
  size_t low = 0, high = file->count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    int order = strcmp(file->by_name[middle]->name, name);
    if (order == 0) return file->by_name[middle];
    if (order < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return NULL;
}

kp_status kp_safetensors_require(const kp_safetensors *file, const char *name,
                                 const kp_safetensors_entry **entry, kp_error *error) {
  *entry = kp_safetensors_find(file, name);
  if (*entry != NULL) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT,
                 "'%s' has no tensor " NAME_FORMAT "; is it a file of another model or configuration?",
                 file->label, name);
}

static void print_shape(char *text, size_t size, int rank, const int64_t *shape) {
  size_t used = (size_t)snprintf(text, size, "(");
  for (int i = 0; i < rank && used < size; i++)
    used += (size_t)snprintf(text + used, size - used, "%s%" PRId64, i == 0 ? "" : ", ", shape[i]);
  if (used < size) snprintf(text + used, size - used, ")");
}

kp_status kp_safetensors_require_shape(const kp_safetensors *file, const char *name, int rank,
                                       const int64_t *shape, const kp_safetensors_entry **entry,
                                       kp_error *error) {
  KP_TRY(kp_safetensors_require(file, name, entry, error));
  bool same = (*entry)->rank == rank;
  for (int i = 0; same && i < rank; i++) same = (*entry)->shape[i] == shape[i];
  if (same) return KP_OK;
  char found[200], expected[200];
  print_shape(found, sizeof found, (*entry)->rank, (*entry)->shape);
  print_shape(expected, sizeof expected, rank, shape);
  return kp_fail(error, KP_ERR_INPUT,
                 "tensor " NAME_FORMAT " of '%s' has the shape %s instead of %s; check the configuration",
                 name, file->label, found, expected);
}

const char *kp_safetensors_metadata(const kp_safetensors *file, const char *key) {
  return json_string_value(json_object_get(json_object_get(file->header, "__metadata__"), key));
}
