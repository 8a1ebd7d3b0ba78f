/* Writes safetensors files.  Declared tensors are laid out at the first write
 * (or at commit): wider types first, then by name.  The header is JSON with
 * sorted keys, filled up with spaces to DATA_ALIGNMENT. */
#include "core/safetensors.h"
#include "core/atomic_file.h"
#include "core/safetensors_shape.h"

#include <stdlib.h>
#include <string.h>
#include <jansson.h>

enum { DATA_ALIGNMENT = 256, LENGTH_SIZE = 8 };

typedef struct declared {
  char *name;
  kp_dtype dtype;
  int rank;
  int64_t shape[KP_SAFETENSORS_MAX_RANK];
  size_t size;
  uint64_t offset;  /* in the data part; known once laid out */
  uint64_t written; /* bytes that are there already */
} declared;

struct kp_safetensors_writer {
  kp_atomic_file *file; /* NULL after commit */
  char *path;
  json_t *metadata;
  declared *tensors; /* (count) in layout order once `laid_out` */
  size_t count, capacity;
  declared **by_name; /* (count) once laid out */
  bool laid_out;
  uint64_t data_start;
};

static kp_status out_of_memory(const kp_safetensors_writer *writer, kp_error *error) {
  return kp_fail(error, KP_ERR_MEMORY, "not enough memory to write '%s'", writer->path);
}

static kp_status prepare(kp_safetensors_writer *writer, const char *path, kp_error *error) {
  writer->path = strdup(path);
  writer->metadata = json_object();
  if (writer->path == NULL || writer->metadata == NULL)
    return kp_fail(error, KP_ERR_MEMORY, "not enough memory to write '%s'", path);
  KP_TRY(kp_safetensors_writer_metadata(writer, "format", "pt", error));
  return kp_atomic_file_open(path, &writer->file, error);
}

kp_status kp_safetensors_writer_create(const char *path, kp_safetensors_writer **result, kp_error *error) {
  *result = NULL;
  kp_safetensors_writer *writer = calloc(1, sizeof *writer);
  if (writer == NULL) return kp_fail(error, KP_ERR_MEMORY, "not enough memory to write '%s'", path);
  kp_status status = prepare(writer, path, error);
  if (status == KP_OK)
    *result = writer;
  else
    kp_safetensors_writer_destroy(writer);
  return status;
}

void kp_safetensors_writer_destroy(kp_safetensors_writer *writer) {
  if (writer == NULL) return;
  kp_atomic_file_abort(writer->file);
  json_decref(writer->metadata);
  for (size_t i = 0; i < writer->count; i++) free(writer->tensors[i].name);
  free(writer->tensors);
  free(writer->by_name);
  free(writer->path);
  free(writer);
}

kp_status kp_safetensors_writer_metadata(kp_safetensors_writer *writer, const char *key, const char *value,
                                         kp_error *error) {
  json_t *text = json_string(value);
  if (text == NULL || json_object_set_new(writer->metadata, key, text) != 0)
    return kp_fail(error, KP_ERR_INPUT, "the metadata '%.120s' for '%s' is not UTF-8", key, writer->path);
  return KP_OK;
}

static kp_status check_declaration(const kp_safetensors_writer *writer, const char *name, kp_error *error) {
  if (writer->laid_out)
    return kp_fail(error, KP_ERR_INPUT, "tensor '%.120s' of '%s' is declared after the first write", name,
                   writer->path);
  if (strcmp(name, "__metadata__") == 0)
    return kp_fail(error, KP_ERR_INPUT, "a tensor of '%s' cannot be called '__metadata__'; rename it",
                   writer->path);
  json_t *text = json_string(name);
  if (text == NULL)
    return kp_fail(error, KP_ERR_INPUT, "the name '%.120s' of a tensor for '%s' is not UTF-8; rename it",
                   name, writer->path);
  json_decref(text);
  return KP_OK;
}

static kp_status make_room(kp_safetensors_writer *writer, kp_error *error) {
  if (writer->count < writer->capacity) return KP_OK;
  size_t capacity = writer->capacity == 0 ? 64 : writer->capacity * 2;
  declared *grown = realloc(writer->tensors, capacity * sizeof *grown);
  if (grown == NULL) return out_of_memory(writer, error);
  writer->tensors = grown;
  writer->capacity = capacity;
  return KP_OK;
}

kp_status kp_safetensors_writer_declare(kp_safetensors_writer *writer, const char *name, kp_dtype dtype,
                                        int rank, const int64_t *shape, kp_error *error) {
  KP_TRY(check_declaration(writer, name, error));
  declared tensor = {.dtype = dtype, .rank = rank};
  int64_t elements = 0;
  if (rank < 0 || rank > KP_SAFETENSORS_MAX_RANK ||
      !kp_safetensors_measure(dtype, rank, shape, &elements, &tensor.size))
    return kp_fail(
        error, KP_ERR_INPUT,
        "tensor '%.120s' of '%s' has more than %d dimensions, a negative one, or too many elements", name,
        writer->path, KP_SAFETENSORS_MAX_RANK);
  KP_TRY(make_room(writer, error));
  if (rank > 0) memcpy(tensor.shape, shape, (size_t)rank * sizeof *shape);
  tensor.name = strdup(name);
  if (tensor.name == NULL) return out_of_memory(writer, error);
  writer->tensors[writer->count++] = tensor;
  return KP_OK;
}

static int compare_layout(const void *left, const void *right) {
  const declared *a = left, *b = right;
  size_t a_width = kp_dtype_size(a->dtype), b_width = kp_dtype_size(b->dtype);
  if (a_width != b_width) return a_width > b_width ? -1 : 1;
  return strcmp(a->name, b->name);
}

static int compare_names(const void *left, const void *right) {
  return strcmp((*(declared *const *)left)->name, (*(declared *const *)right)->name);
}

static kp_status place_tensors(kp_safetensors_writer *writer, kp_error *error) {
  free(writer->by_name); /* of a layout that failed before */
  writer->by_name = calloc(writer->count + 1, sizeof *writer->by_name);
  if (writer->by_name == NULL) return out_of_memory(writer, error);
  if (writer->count == 0) return KP_OK;
  qsort(writer->tensors, writer->count, sizeof *writer->tensors, compare_layout);
  uint64_t offset = 0;
  for (size_t i = 0; i < writer->count; i++) {
    writer->tensors[i].offset = offset;
    writer->by_name[i] = &writer->tensors[i];
    if (__builtin_add_overflow(offset, writer->tensors[i].size, &offset) || offset > INT64_MAX)
      return kp_fail(error, KP_ERR_INPUT, "the tensors of '%s' are too large for one file", writer->path);
  }
  qsort(writer->by_name, writer->count, sizeof *writer->by_name, compare_names);
  for (size_t i = 1; i < writer->count; i++)
    if (strcmp(writer->by_name[i - 1]->name, writer->by_name[i]->name) == 0)
      return kp_fail(error, KP_ERR_INPUT, "tensor '%.120s' of '%s' is declared twice; rename one",
                     writer->by_name[i]->name, writer->path);
  return KP_OK;
}

static json_t *describe(const declared *tensor) {
  json_t *shape = json_array();
  for (int i = 0; i < tensor->rank; i++) json_array_append_new(shape, json_integer(tensor->shape[i]));
  json_int_t begin = (json_int_t)tensor->offset;
  return json_pack("{s:s, s:o, s:[I,I]}", "dtype", kp_dtype_name(tensor->dtype), "shape", shape,
                   "data_offsets", begin, begin + (json_int_t)tensor->size);
}

/* The header's text, which the caller frees, or NULL when memory ran out. */
static char *print_header(const kp_safetensors_writer *writer) {
  json_t *header = json_object();
  int failed = json_object_set(header, "__metadata__", writer->metadata);
  for (size_t i = 0; i < writer->count; i++)
    failed |= json_object_set_new(header, writer->tensors[i].name, describe(&writer->tensors[i]));
  char *text = failed ? NULL : json_dumps(header, JSON_COMPACT | JSON_SORT_KEYS);
  json_decref(header);
  return text;
}

static kp_status write_header(kp_safetensors_writer *writer, const char *text, kp_error *error) {
  size_t length = strlen(text);
  writer->data_start = (LENGTH_SIZE + length + DATA_ALIGNMENT - 1) / DATA_ALIGNMENT * DATA_ALIGNMENT;
  uint64_t padded = writer->data_start - LENGTH_SIZE;
  if (padded > KP_SAFETENSORS_MAX_HEADER)
    return kp_fail(error, KP_ERR_INPUT, "the header of '%s' is above %d bytes; store fewer or shorter names",
                   writer->path, KP_SAFETENSORS_MAX_HEADER);
  char spaces[DATA_ALIGNMENT];
  memset(spaces, ' ', sizeof spaces);
  KP_TRY(kp_atomic_file_write(writer->file, &padded, sizeof padded, error));
  KP_TRY(kp_atomic_file_write(writer->file, text, length, error));
  return kp_atomic_file_write(writer->file, spaces, (size_t)(padded - length), error);
}

static kp_status lay_out(kp_safetensors_writer *writer, kp_error *error) {
  if (writer->laid_out) return KP_OK;
  KP_TRY(place_tensors(writer, error));
  char *text = print_header(writer);
  if (text == NULL) return out_of_memory(writer, error);
  kp_status status = write_header(writer, text, error);
  free(text);
  writer->laid_out = status == KP_OK;
  return status;
}

static declared *find_declared(const kp_safetensors_writer *writer, const char *name) {
  declared key = {.name = (char *)name}, *pointer = &key;
  declared **found =
      bsearch(&pointer, writer->by_name, writer->count, sizeof *writer->by_name, compare_names);
  return found == NULL ? NULL : *found;
}

kp_status kp_safetensors_writer_write(kp_safetensors_writer *writer, const char *name, const void *data,
                                      size_t size, kp_error *error) {
  KP_TRY(lay_out(writer, error));
  declared *tensor = find_declared(writer, name);
  if (tensor == NULL)
    return kp_fail(error, KP_ERR_INPUT, "tensor '%.120s' is written to '%s' but was not declared", name,
                   writer->path);
  if (size > tensor->size - tensor->written)
    return kp_fail(error, KP_ERR_INPUT, "tensor '%.120s' of '%s' gets more than its %zu bytes", name,
                   writer->path, tensor->size);
  uint64_t place = writer->data_start + tensor->offset + tensor->written;
  KP_TRY(kp_atomic_file_write_at(writer->file, place, data, size, error));
  tensor->written += size;
  return KP_OK;
}

kp_status kp_safetensors_writer_commit(kp_safetensors_writer *writer, kp_error *error) {
  KP_TRY(lay_out(writer, error));
  for (size_t i = 0; i < writer->count; i++)
    if (writer->tensors[i].written != writer->tensors[i].size)
      return kp_fail(
          error, KP_ERR_INPUT, "tensor '%.120s' of '%s' is incomplete: %zu of %zu bytes were written",
          writer->tensors[i].name, writer->path, (size_t)writer->tensors[i].written, writer->tensors[i].size);
  kp_atomic_file *file = writer->file;
  writer->file = NULL;
  return kp_atomic_file_commit(file, error);
}
