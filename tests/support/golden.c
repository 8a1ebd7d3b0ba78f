#include "support/golden.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/check.h"

static unsigned char *read_whole(const char *path, size_t *size) {
  FILE *file = fopen(path, "rb");
  if (!file) fail_msg("%s cannot be opened", path);
  fseek(file, 0, SEEK_END);
  long length = ftell(file);
  rewind(file);
  unsigned char *bytes = malloc((size_t)length);
  assert_non_null(bytes);
  assert_int_equal(fread(bytes, 1, (size_t)length, file), length);
  fclose(file);
  *size = (size_t)length;
  return bytes;
}

static double element(const char *type, const unsigned char *bytes, size_t i) {
  if (strcmp(type, "F64") == 0) {
    double value;
    memcpy(&value, bytes + 8 * i, 8);
    return value;
  }
  if (strcmp(type, "F32") == 0) {
    float value;
    memcpy(&value, bytes + 4 * i, 4);
    return (double)value;
  }
  if (strcmp(type, "I32") == 0) {
    int32_t value;
    memcpy(&value, bytes + 4 * i, 4);
    return value;
  }
  if (strcmp(type, "I64") == 0) {
    int64_t value;
    memcpy(&value, bytes + 8 * i, 8);
    return (double)value;
  }
  if (strcmp(type, "I8") == 0) return (signed char)bytes[i];
  if (strcmp(type, "BOOL") != 0) fail_msg("element type %s is not known here", type);
  return bytes[i];
}

static void read_array(golden_array *array, const char *name, json_t *entry, const unsigned char *data) {
  json_t *shape = json_object_get(entry, "shape");
  const char *type = json_string_value(json_object_get(entry, "dtype"));
  json_int_t start = json_integer_value(json_array_get(json_object_get(entry, "data_offsets"), 0));
  array->name = strdup(name);
  array->count = 1;
  array->dimensions = (int)json_array_size(shape);
  assert_true(array->dimensions <= GOLDEN_MAX_DIMENSIONS);
  for (int i = 0; i < array->dimensions; i++) {
    array->shape[i] = (size_t)json_integer_value(json_array_get(shape, (size_t)i));
    array->count *= array->shape[i];
  }
  array->data = malloc((array->count + 1) * sizeof *array->data);
  assert_non_null(array->data);
  for (size_t i = 0; i < array->count; i++) array->data[i] = element(type, data + start, i);
}

golden *golden_open(const char *path) {
  char full[1024];
  snprintf(full, sizeof full, "%s/goldens/%s/tensors.safetensors", KP_TEST_DIRECTORY, path);
  size_t size;
  unsigned char *bytes = read_whole(full, &size);
  uint64_t header;
  memcpy(&header, bytes, 8);
  json_error_t error;
  json_t *root = json_loadb((const char *)bytes + 8, header, 0, &error);
  if (!root) fail_msg("%s: header: %s", full, error.text);
  golden *file = calloc(1, sizeof *file);
  assert_non_null(file);
  file->arrays = calloc(json_object_size(root), sizeof *file->arrays);
  assert_non_null(file->arrays);
  const char *name;
  json_t *entry;
  json_object_foreach(root, name, entry) {
    if (strcmp(name, "__metadata__") != 0)
      read_array(&file->arrays[file->count++], name, entry, bytes + 8 + header);
  }
  json_decref(root);
  free(bytes);
  return file;
}

void golden_close(golden *file) {
  for (size_t i = 0; i < file->count; i++) {
    free(file->arrays[i].name);
    free(file->arrays[i].data);
  }
  free(file->arrays);
  free(file);
}

static const golden_array *look(const golden *file, const char *name) {
  for (size_t i = 0; i < file->count; i++)
    if (strcmp(file->arrays[i].name, name) == 0) return &file->arrays[i];
  return NULL;
}

const golden_array *golden_look(const golden *file, const char *format, ...) {
  char name[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(name, sizeof name, format, arguments);
  va_end(arguments);
  return look(file, name);
}

const golden_array *golden_find(const golden *file, const char *format, ...) {
  char name[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(name, sizeof name, format, arguments);
  va_end(arguments);
  const golden_array *array = look(file, name);
  if (!array) fail_msg("the reference file has no array %s", name);
  return array;
}
