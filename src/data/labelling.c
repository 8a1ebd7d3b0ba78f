/* task.json: what a labelled set is about. */
#include <stdlib.h>
#include <string.h>

#include "core/json_text.h"
#include "core/path.h"
#include "data/labelled.h"

void kp_labelling_clear(kp_labelling *labelling) {
  kp_label_set_clear(&labelling->labels);
  *labelling = (kp_labelling){0};
}

bool kp_labelling_stands_in(const char *folder) {
  char path[KP_PATH_SIZE];
  return kp_path_join(path, folder, KP_TASK_FILE, NULL) == KP_OK && kp_path_kind_of(path) == KP_PATH_FILE;
}

/* ---- reading ---- */

static bool take_integer(const json_t *object, const char *key, int64_t minimum, int64_t maximum,
                         int64_t *out) {
  const json_t *value = json_object_get(object, key);
  *out = json_integer_value(value);
  return json_is_integer(value) && *out >= minimum && *out <= maximum;
}

static bool take_text(const json_t *object, const char *key, char *out, size_t size) {
  const char *text = json_string_value(json_object_get(object, key));
  if (text == NULL || strlen(text) >= size) return false;
  memcpy(out, text, strlen(text) + 1);
  return true;
}

static bool take_counts(const json_t *object, kp_labelled_counts *counts) {
  return take_integer(object, "examples", 1, INT32_MAX, &counts->examples) &&
         take_integer(object, "truncated", 0, counts->examples, &counts->truncated) &&
         take_integer(object, "longest", 1, INT32_MAX, &counts->longest) &&
         take_text(object, "sha256", counts->sha256, sizeof counts->sha256);
}

static bool take_task(const json_t *document, kp_task *task) {
  const char *name = json_string_value(json_object_get(document, "task"));
  for (*task = KP_TASK_CLASSIFY; *task <= KP_TASK_TAG; (*task)++)
    if (name != NULL && strcmp(name, kp_task_name(*task)) == 0) return true;
  return false;
}

/* Names in ascending order, as they are written: their place is their number. */
static bool take_labels(const json_t *names, kp_label_set *labels) {
  int32_t renumbered[KP_LABELS_MOST];
  for (size_t i = 0; i < json_array_size(names); i++) {
    const json_t *name = json_array_get(names, i);
    int32_t number;
    if (!json_is_string(name) ||
        kp_label_set_add(labels, json_string_value(name), json_string_length(name), &number, NULL) != KP_OK)
      return false;
    if (number != (int32_t)i) return false;
  }
  kp_label_set_sort(labels, renumbered);
  for (int32_t i = 0; i < labels->count; i++)
    if (renumbered[i] != i) return false;
  labels->closed = true;
  return labels->count >= 2;
}

static bool take_all(const json_t *document, kp_labelling *labelling) {
  int64_t vocabulary;
  if (!take_task(document, &labelling->task)) return false;
  if (!take_labels(json_object_get(document, "labels"), &labelling->labels)) return false;
  if (!take_integer(document, "vocabulary", 1, INT32_MAX - 2, &vocabulary)) return false;
  labelling->vocabulary = (int32_t)vocabulary;
  return take_integer(document, "length", 1, INT32_MAX, &labelling->length) &&
         take_counts(json_object_get(document, "train"), &labelling->train) &&
         take_counts(json_object_get(document, "validation"), &labelling->validation);
}

kp_status kp_labelling_read(const char *folder, kp_labelling *labelling, kp_error *error) {
  char path[KP_PATH_SIZE];
  json_t *document;
  *labelling = (kp_labelling){0};
  KP_TRY(kp_path_join(path, folder, KP_TASK_FILE, error));
  KP_TRY(kp_json_read_file(path, &document, error));
  const bool understood = take_all(document, labelling);
  json_decref(document);
  if (understood) return KP_OK;
  kp_labelling_clear(labelling);
  return kp_fail(error, KP_ERR_INPUT, "%s lacks what it must say of its labels: prepare the data again",
                 path);
}

/* ---- writing ---- */

static json_t *counts_to_json(const char *file, const kp_labelled_counts *counts) {
  return json_pack("{s:s, s:I, s:I, s:I, s:s}", "file", file, "examples", (json_int_t)counts->examples,
                   "truncated", (json_int_t)counts->truncated, "longest", (json_int_t)counts->longest,
                   "sha256", counts->sha256);
}

kp_status kp_labelling_write(const char *folder, const kp_labelling *labelling, kp_error *error) {
  char path[KP_PATH_SIZE];
  KP_TRY(kp_path_join(path, folder, KP_TASK_FILE, error));
  json_t *names = json_array();
  for (int32_t i = 0; i < labelling->labels.count; i++)
    json_array_append_new(names, json_string(labelling->labels.names[i]));
  json_t *document =
      json_pack("{s:s, s:o, s:I, s:I, s:I, s:I, s:o, s:o}", "task", kp_task_name(labelling->task), "labels",
                names, "vocabulary", (json_int_t)labelling->vocabulary, "separator",
                (json_int_t)kp_labelling_separator(labelling), "padding",
                (json_int_t)kp_labelling_padding(labelling), "length", (json_int_t)labelling->length, "train",
                counts_to_json(KP_TRAIN_EXAMPLES_FILE, &labelling->train), "validation",
                counts_to_json(KP_VALIDATION_EXAMPLES_FILE, &labelling->validation));
  if (document == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory to write %s", path);
  kp_status status = kp_json_write_file(path, document, KP_JSON_DOUBLE_DIGITS, error);
  json_decref(document);
  return status;
}
