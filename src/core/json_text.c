#include "core/json_text.h"
#include "core/atomic_file.h"
#include "core/file.h"
#include "core/path.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Larger than any report or configuration, small enough to refuse a wrong file at once. */
static const size_t maximum_size = (size_t)256 << 20;

json_t *kp_json_number(double value) {
  return isfinite(value) ? json_real(value) : json_null();
}

static kp_status not_json(const json_error_t *problem, const char *path, int line, kp_error *error) {
  if (json_error_code(problem) == json_error_out_of_memory)
    return kp_fail(error, KP_ERR_MEMORY, "not enough memory to read '%s'", path);
  return kp_fail(error, KP_ERR_INPUT, "%s:%d:%d: not valid JSON: %s", path, line, problem->column,
                 problem->text);
}

kp_status kp_json_read_file(const char *path, json_t **value, kp_error *error) {
  *value = NULL;
  char *text = NULL;
  size_t size = 0;
  KP_TRY(kp_file_read_all(path, maximum_size, &text, &size, error));
  json_error_t problem;
  *value = json_loadb(text, size, JSON_REJECT_DUPLICATES, &problem);
  free(text);
  return *value != NULL ? KP_OK : not_json(&problem, path, problem.line, error);
}

/* The value's text with a newline at its end, which the caller frees. */
static kp_status print(const char *path, const json_t *value, size_t flags, char **text, kp_error *error) {
  *text = NULL;
  char *printed = json_dumps(value, flags | JSON_ENCODE_ANY);
  if (printed == NULL)
    return kp_fail(error, KP_ERR_MEMORY, "cannot print JSON for '%s'; there may be too little memory", path);
  size_t length = strlen(printed);
  char *grown = realloc(printed, length + 2);
  if (grown == NULL) {
    free(printed);
    return kp_fail(error, KP_ERR_MEMORY, "not enough memory to write '%s'", path);
  }
  memcpy(grown + length, "\n", 2);
  *text = grown;
  return KP_OK;
}

kp_status kp_json_write_file(const char *path, const json_t *value, int digits, kp_error *error) {
  char *text = NULL;
  KP_TRY(print(path, value, JSON_INDENT(2) | JSON_REAL_PRECISION(digits), &text, error));
  kp_status status = kp_file_write_atomic(path, text, strlen(text), error);
  free(text);
  return status;
}

/* Bytes up to and with the last newline. */
static size_t complete_size(const kp_file_map *map) {
  size_t size = map->size;
  while (size > 0 && map->data[size - 1] != '\n') size--;
  return size;
}

static kp_status remove_torn_line(const char *path, kp_error *error) {
  if (kp_path_kind_of(path) == KP_PATH_MISSING) return KP_OK;
  kp_file_map map;
  KP_TRY(kp_file_map_open(path, KP_EMPTY_ALLOWED, &map, error));
  size_t size = map.size, complete = complete_size(&map);
  kp_file_map_close(&map);
  return complete == size ? KP_OK : kp_file_truncate(path, complete, error);
}

kp_status kp_jsonl_append(const char *path, const json_t *value, int digits, kp_error *error) {
  KP_TRY(remove_torn_line(path, error));
  char *text = NULL;
  KP_TRY(print(path, value, JSON_COMPACT | JSON_REAL_PRECISION(digits), &text, error));
  kp_status status = kp_file_append(path, text, strlen(text), error);
  free(text);
  return status;
}

/* The line that starts at `offset`, which must lie below the complete size. */
static kp_status parse_line(const char *path, const kp_file_map *map, size_t offset, int number,
                            size_t *length, json_t **value, kp_error *error) {
  const char *start = (const char *)map->data + offset;
  const char *end = memchr(start, '\n', map->size - offset);
  *length = (size_t)(end - start) + 1;
  json_error_t problem;
  *value = json_loadb(start, *length - 1, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &problem);
  return *value != NULL ? KP_OK : not_json(&problem, path, number, error);
}

static size_t count_lines(const kp_file_map *map) {
  size_t count = 0;
  for (size_t i = 0; i < map->size; i++) count += map->data[i] == '\n';
  return count;
}

static kp_status read_lines(const char *path, const kp_file_map *map, size_t maximum, json_t *lines,
                            kp_error *error) {
  size_t count = count_lines(map), skipped = count > maximum ? count - maximum : 0, offset = 0;
  for (size_t line = 0; line < count; line++) {
    if (line < skipped) {
      offset =
          (size_t)((const unsigned char *)memchr(map->data + offset, '\n', map->size - offset) - map->data) +
          1;
      continue;
    }
    size_t length = 0;
    json_t *value = NULL;
    KP_TRY(parse_line(path, map, offset, (int)line + 1, &length, &value, error));
    if (json_array_append_new(lines, value) != 0)
      return kp_fail(error, KP_ERR_MEMORY, "not enough memory to read '%s'", path);
    offset += length;
  }
  return KP_OK;
}

kp_status kp_jsonl_read_last(const char *path, size_t maximum, json_t **lines, kp_error *error) {
  *lines = NULL;
  kp_file_map map;
  KP_TRY(kp_file_map_open(path, KP_EMPTY_ALLOWED, &map, error));
  json_t *array = json_array();
  kp_status status = array == NULL ? kp_fail(error, KP_ERR_MEMORY, "not enough memory to read '%s'", path)
                                   : read_lines(path, &map, maximum, array, error);
  kp_file_map_close(&map);
  if (status == KP_OK)
    *lines = array;
  else
    json_decref(array);
  return status;
}

/* Bytes of the lines that stay: all before the first whose `key` is beyond `value`. */
static kp_status find_kept_size(const char *path, const kp_file_map *map, const char *key, int64_t value,
                                size_t *kept, kp_error *error) {
  size_t complete = complete_size(map);
  *kept = 0;
  for (int number = 1; *kept < complete; number++) {
    size_t length = 0;
    json_t *line = NULL;
    KP_TRY(parse_line(path, map, *kept, number, &length, &line, error));
    const json_t *found = json_object_get(line, key);
    bool beyond = json_is_integer(found) && json_integer_value(found) > value;
    json_decref(line);
    if (beyond) break;
    *kept += length;
  }
  return KP_OK;
}

kp_status kp_jsonl_truncate_after(const char *path, const char *key, int64_t value, kp_error *error) {
  if (kp_path_kind_of(path) == KP_PATH_MISSING) return KP_OK;
  kp_file_map map;
  KP_TRY(kp_file_map_open(path, KP_EMPTY_ALLOWED, &map, error));
  size_t size = map.size, kept = 0;
  kp_status status = find_kept_size(path, &map, key, value, &kept, error);
  kp_file_map_close(&map);
  if (status != KP_OK || kept == size) return status;
  return kp_file_truncate(path, kept, error);
}
