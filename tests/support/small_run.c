#include "support/small_run.h"

#include <dirent.h>

#include "core/json_text.h"
#include "data/prepare.h"

static const char text[] =
    "In the beginning was the line, and the line was straight; and it met no other line, for they were "
    "parallel.\nThen came the curve, and said: all lines meet, or none, or all but one.\n";

static const char config[] = "model: {layers: 1, heads: 2, width: 8, context: 8}\n"
                             "data: {path: %s}\n"
                             "train: {steps: 20, batch: 4, warmup: 2, log_every: 1, evaluate_every: 10,\n"
                             "        evaluate_batches: 2, checkpoint_every: 10}\n";

const char *small_config(fixture *files) {
  kp_error error = {0};
  kp_prepared prepared;
  bool fresh;
  const char *path = fixture_write(files, "text.txt", text, strlen(text));
  const kp_prepare_options options = {
      .texts = &path, .text_count = 1, .folder = fixture_path(files, "text"), .train_fraction = 0.75};
  check_ok(kp_prepare(&options, &prepared, &fresh, &error), &error);
  char filled[KP_PATH_SIZE + sizeof config];
  snprintf(filled, sizeof filled, config, options.folder);
  return fixture_write(files, "small.yaml", filled, strlen(filled));
}

void small_check_same(const char *a, const char *b) {
  size_t a_size, b_size;
  char *a_bytes = fixture_read(a, &a_size), *b_bytes = fixture_read(b, &b_size);
  if (a_size != b_size || memcmp(a_bytes, b_bytes, a_size) != 0) fail_msg("%s and %s differ", a, b);
  free(a_bytes);
  free(b_bytes);
}

json_t *small_state(const char *run, int64_t step) {
  char path[KP_PATH_SIZE];
  kp_error error = {0};
  json_t *state;
  snprintf(path, sizeof path, "%s/checkpoints/step-%lld/state.json", run, (long long)step);
  check_ok(kp_json_read_file(path, &state, &error), &error);
  assert_int_equal(json_object_del(state, "seconds"), 0);
  return state;
}

json_t *small_metrics(const char *run) {
  char path[KP_PATH_SIZE];
  kp_error error = {0};
  json_t *lines;
  snprintf(path, sizeof path, "%s/metrics.jsonl", run);
  check_ok(kp_jsonl_read_last(path, SIZE_MAX, &lines, &error), &error);
  return lines;
}

const char *small_listing(const char *folder, char *listing, size_t size) {
  struct dirent **names;
  const int count = scandir(folder, &names, NULL, alphasort);
  size_t used = 0;
  listing[0] = 0;
  assert_true(count >= 0);
  for (int i = 0; i < count; i++) {
    if (strcmp(names[i]->d_name, ".") != 0 && strcmp(names[i]->d_name, "..") != 0)
      used += (size_t)snprintf(listing + used, size - used, "%s%s", used == 0 ? "" : ", ", names[i]->d_name);
    assert_true(used < size);
    free(names[i]);
  }
  free(names);
  return listing;
}

void small_poison(const char *path, const char *tensor, double value) {
  size_t size;
  uint64_t header;
  json_int_t first;
  char *bytes = fixture_read(path, &size);
  memcpy(&header, bytes, sizeof header);
  json_t *json = json_loadb(bytes + sizeof header, header, 0, NULL);
  assert_non_null(json);
  const json_t *entry = json_object_get(json, tensor);
  if (entry == NULL) fail_msg("%s has no tensor %s", path, tensor);
  assert_string_equal(json_string_value(json_object_get(entry, "dtype")), "F64");
  first = json_integer_value(json_array_get(json_object_get(entry, "data_offsets"), 0));
  memcpy(bytes + sizeof header + header + first, &value, sizeof value);
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(bytes, 1, size, file), size);
  assert_int_equal(fclose(file), 0);
  json_decref(json);
  free(bytes);
}
