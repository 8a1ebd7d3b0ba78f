#include "study/run_record.h"

#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/json_text.h"
#include "train/settings.h"

/* ---- reading ---- */

static double number(const json_t *object, const char *key) {
  const json_t *value = json_object_get(object, key);
  return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

static int64_t integer(const json_t *object, const char *key) {
  const json_t *value = json_object_get(object, key);
  return json_is_integer(value) ? (int64_t)json_integer_value(value) : -1;
}

static void text_of(const json_t *object, const char *key, char *text, size_t size) {
  const json_t *value = json_object_get(object, key);
  snprintf(text, size, "%s", json_is_string(value) ? json_string_value(value) : "");
}

/* The path without slashes at its end, and its last part. */
static kp_status name_run(const char *run, kp_run_record *record, kp_error *error) {
  KP_TRY(kp_path_check(run, error));
  snprintf(record->path, sizeof record->path, "%s", run);
  size_t length = strlen(record->path);
  while (length > 1 && record->path[length - 1] == '/') record->path[--length] = 0;
  const char *slash = strrchr(record->path, '/');
  record->name = slash == NULL || slash[1] == 0 ? record->path : slash + 1;
  return KP_OK;
}

static kp_status read_config(kp_run_record *record, kp_error *error) {
  char path[KP_PATH_SIZE];
  size_t size;
  KP_TRY(kp_path_join(path, record->path, "config.yaml", error));
  if (kp_path_kind_of(path) != KP_PATH_FILE)
    return kp_fail(error, KP_ERR_INPUT, "%s is no run: it has no config.yaml", record->path);
  KP_TRY(kp_config_load(path, kp_training_schema(), NULL, 0, &record->config, error));
  KP_TRY(kp_config_text(record->config, &record->config_text, &size, error));
  KP_TRY(kp_yaml_read(record->config_text, size, path, &record->settings, error));
  KP_TRY(kp_model_options_read(record->config, 0, &record->options, error));
  record->family = record->options.family;
  record->planned_steps = kp_config_integer(record->config, "train.steps");
  record->tokens_per_step = kp_config_integer(record->config, "train.batch") *
                            kp_config_integer(record->config, "train.accumulate") *
                            kp_config_integer(record->config, "model.context");
  return KP_OK;
}

static kp_status read_description(kp_run_record *record, kp_error *error) {
  char path[KP_PATH_SIZE];
  json_t *json;
  KP_TRY(kp_path_join(path, record->path, "run.json", error));
  KP_TRY(kp_json_read_file(path, &json, error));
  record->parameters = integer(json, "parameters");
  record->training_tokens = integer(json, "training_tokens");
  record->validation_tokens = integer(json, "validation_tokens");
  record->planned_bytes = integer(json, "planned_bytes");
  record->threads = integer(json, "threads");
  text_of(json, "backend", record->backend, sizeof record->backend);
  text_of(json, "data", record->data, sizeof record->data);
  json_decref(json);
  return KP_OK;
}

static void read_step(const json_t *line, kp_step_line *step) {
  *step = (kp_step_line){.step = number(line, "step"),
                         .loss = number(line, "loss"),
                         .gradient_norm = number(line, "gradient_norm"),
                         .learning_rate = number(line, "learning_rate"),
                         .step_ms = number(line, "step_ms"),
                         .boundary_share = number(line, "boundary_share"),
                         .tokens_per_s = number(line, "tokens_per_s"),
                         .seconds = number(line, "seconds"),
                         .skipped = number(line, "skipped")};
}

const char *kp_place_name(kp_place place) {
  static const char *const names[KP_PLACES] = {"stream", "heads", "experts"};
  return names[place];
}

/* Values of a block; a block without any gives NaN. */
static bool read_block(const json_t *list, int groups, double *values) {
  const bool empty = json_array_size(list) == 0;
  if (!empty && json_array_size(list) != (size_t)groups) return false;
  for (int g = 0; g < groups; g++) {
    const json_t *value = json_array_get(list, (size_t)g);
    values[g] = json_is_number(value) ? json_number_value(value) : (double)NAN;
  }
  return true;
}

/* κ of all blocks at a place; a list that is not (layers, groups) as the first one was is left out. */
static const double *read_curvature(kp_run_record *record, const json_t *blocks, kp_place place) {
  const size_t layers = json_array_size(blocks);
  size_t groups = 0;
  for (size_t l = 0; l < layers && groups == 0; l++) groups = json_array_size(json_array_get(blocks, l));
  if (groups == 0) return NULL;
  if (record->layers == 0) record->layers = (int)layers;
  if (record->groups[place] == 0) record->groups[place] = (int)groups;
  if (layers != (size_t)record->layers) return NULL;
  const int columns = record->groups[place];
  double *values = kp_arena_take(record->arena, layers * (size_t)columns * sizeof *values);
  for (size_t l = 0; l < layers; l++)
    if (!read_block(json_array_get(blocks, l), columns, values + l * (size_t)columns)) return NULL;
  return values;
}

static void read_evaluation(kp_run_record *record, const json_t *line, kp_evaluation_line *evaluation) {
  static const char *const keys[KP_PLACES] = {"curvature", "head_curvature", "expert_curvature"};
  *evaluation = (kp_evaluation_line){.step = number(line, "step"),
                                     .tokens = number(line, "tokens"),
                                     .seconds = number(line, "seconds"),
                                     .validation_loss = number(line, "validation_loss"),
                                     .bits_per_byte = number(line, "bits_per_byte"),
                                     .accuracy = number(line, "accuracy"),
                                     .macro_f1 = number(line, "macro_f1"),
                                     .entity_f1 = number(line, "entity_f1")};
  for (kp_place place = 0; place < KP_PLACES; place++)
    evaluation->curvature[place] = read_curvature(record, json_object_get(line, keys[place]), place);
}

static kp_status read_line(kp_run_record *record, const char *path, size_t row, const json_t *line,
                           kp_error *error) {
  if (isnan(number(line, "step")))
    return kp_fail(error, KP_ERR_INPUT, "%s:%zu: a line of metrics has no step", path, row + 1);
  if (json_object_get(line, "validation_loss") != NULL)
    read_evaluation(record, line, &record->evaluations[record->evaluation_count++]);
  else
    read_step(line, &record->steps[record->step_count++]);
  return KP_OK;
}

static kp_status read_metrics(kp_run_record *record, kp_error *error) {
  char path[KP_PATH_SIZE];
  json_t *lines, *line;
  size_t row;
  KP_TRY(kp_path_join(path, record->path, "metrics.jsonl", error));
  if (kp_path_kind_of(path) == KP_PATH_MISSING) return KP_OK; /* begun, and not yet evaluated */
  KP_TRY(kp_jsonl_read_last(path, SIZE_MAX, &lines, error));
  const size_t count = json_array_size(lines);
  record->steps = kp_arena_take(record->arena, (count + 1) * sizeof *record->steps);
  record->evaluations = kp_arena_take(record->arena, (count + 1) * sizeof *record->evaluations);
  kp_status status = KP_OK;
  json_array_foreach(lines, row, line) {
    if (status == KP_OK) status = read_line(record, path, row, line, error);
  }
  json_decref(lines);
  return status;
}

kp_status kp_run_record_open(const char *run, kp_run_record *record, kp_error *error) {
  *record = (kp_run_record){.arena = kp_arena_create()};
  kp_status status = name_run(run, record, error);
  if (status == KP_OK) status = read_config(record, error);
  if (status == KP_OK) status = read_description(record, error);
  if (status == KP_OK) status = read_metrics(record, error);
  if (status != KP_OK) kp_run_record_close(record);
  return status;
}

void kp_run_record_close(kp_run_record *record) {
  kp_yaml_clear(&record->settings);
  free(record->config_text);
  kp_model_options_destroy(&record->options);
  kp_config_destroy(record->config);
  if (record->arena != NULL) kp_arena_destroy(record->arena);
  *record = (kp_run_record){0};
}

/* ---- numbers ---- */

double kp_run_record_loss_at(const kp_run_record *record, double step) {
  for (int64_t i = 0; i < record->evaluation_count; i++) {
    const kp_evaluation_line *right = &record->evaluations[i];
    if (right->step < step) continue;
    if (right->step == step) return right->validation_loss;
    if (i == 0) return (double)NAN;
    const kp_evaluation_line *left = right - 1;
    const double share = (step - left->step) / (right->step - left->step);
    return left->validation_loss + share * (right->validation_loss - left->validation_loss);
  }
  return (double)NAN;
}

/* The options of a place's curvatures; NULL when the model has none there. */
static const kp_curvature_options *curvature_options(const kp_run_record *r, kp_place place) {
  const kp_model_options *o = &r->options;
  switch (place) {
  case KP_PLACE_STREAM:
    return o->residual == KP_RESIDUAL_STEREOGRAPHIC || o->residual == KP_RESIDUAL_LORENTZ ? &o->curvature
                                                                                          : NULL;
  case KP_PLACE_HEADS:
    return o->attention.score != KP_SCORE_DOT || o->attention.values != KP_VALUES_MEAN
               ? &o->attention.curvature
               : NULL;
  case KP_PLACE_EXPERTS: return o->feed_forward == KP_FEED_FORWARD_MICE ? &o->experts.curvature : NULL;
  case KP_PLACES: break;
  }
  return NULL;
}

bool kp_run_record_learns(const kp_run_record *r, kp_place place) {
  const kp_curvature_options *c = curvature_options(r, place);
  return c != NULL && c->mode != KP_CURVATURE_FIXED && !c->dynamic &&
         kp_config_real(r->config, "train.curvature_rate") > 0;
}

bool kp_run_record_learns_curvature(const kp_run_record *r) {
  for (kp_place place = 0; place < KP_PLACES; place++)
    if (kp_run_record_learns(r, place)) return true;
  return false;
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

double kp_run_record_step_ms(const kp_run_record *record) {
  size_t count = 0;
  double *times = malloc(((size_t)record->step_count + 1) * sizeof *times), median = (double)NAN;
  if (times == NULL) return median;
  for (int64_t i = 0; i < record->step_count; i++)
    if (isfinite(record->steps[i].step_ms)) times[count++] = record->steps[i].step_ms;
  qsort(times, count, sizeof *times, ascending);
  if (count > 0) median = (times[(count - 1) / 2] + times[count / 2]) / 2;
  free(times);
  return median;
}

/* ---- words ---- */

/* printf behind what stands in `text`; what does not fit is cut. */
__attribute__((format(printf, 3, 4))) static void append(char *text, size_t size, const char *format, ...) {
  const size_t length = strlen(text);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text + length, size - length, format, arguments);
  va_end(arguments);
}

void kp_run_record_setting(const kp_run_record *record, const char *key, char *text, size_t size) {
  text[0] = 0;
  for (size_t i = 0; i < record->settings.count; i++) {
    const kp_yaml_entry *entry = &record->settings.entries[i];
    if (strcmp(entry->key, key) != 0 || entry->kind == KP_YAML_MAPPING) continue;
    for (size_t item = 0; item < entry->count; item++)
      append(text, size, "%s%s", item == 0 ? "" : ", ", entry->items[item].text);
    return;
  }
}

/* The range of the last values that the run wrote. */
static void describe_last(const kp_run_record *r, kp_place place, char *text, size_t size) {
  for (int64_t e = r->evaluation_count - 1; e >= 0; e--) {
    const double *last = r->evaluations[e].curvature[place];
    double low = HUGE_VAL, high = -HUGE_VAL;
    if (last == NULL) continue;
    for (int i = 0; i < r->layers * r->groups[place]; i++) {
      if (isnan(last[i])) continue;
      low = fmin(low, last[i]);
      high = fmax(high, last[i]);
    }
    append(text, size, "→[%.3g, %.3g]", low, high);
    return;
  }
}

static void describe_curvature(const kp_run_record *r, kp_place place, char *text, size_t size) {
  static const char *const names[KP_PLACES] = {"κ", "κ of heads", "κ of experts"};
  const kp_curvature_options *c = curvature_options(r, place);
  if (c == NULL) return;
  append(text, size, " %s=", names[place]);
  if (c->mode == KP_CURVATURE_RANDOM)
    append(text, size, "random");
  else if (c->count > 0)
    append(text, size, "%g%s", c->values[0], c->count > 1 ? "…" : "");
  if (c->per_head) append(text, size, " per head");
  if (c->dynamic) append(text, size, " dynamic");
  if (c->mode == KP_CURVATURE_FIXED && !c->dynamic) return;
  if (kp_config_real(r->config, "train.curvature_rate") == 0 && !c->dynamic)
    append(text, size, " frozen");
  else
    describe_last(r, place, text, size);
}

/* How a stereographic stream moves. */
static void describe_wiring(const kp_run_record *r, char *text, size_t size) {
  char word[64];
  if (r->options.variant != KP_VARIANT_UPSTREAM) {
    kp_run_record_setting(r, "model.wiring", word, sizeof word);
    append(text, size, " %s", word);
  }
  if (r->options.reference == KP_CHOICE_PREVIOUS) return;
  kp_run_record_setting(r, "model.reference", word, sizeof word);
  append(text, size, " %s", word);
}

void kp_run_record_describe(const kp_run_record *r, char *text, size_t size) {
  snprintf(text, size, "%s", r->family->name);
  if (r->options.token_difference) append(text, size, " token difference");
  if (r->options.residual == KP_RESIDUAL_BOUNDED)
    append(text, size, " bounded κ=%g", r->options.curvature.values[0]);
  if (r->options.residual == KP_RESIDUAL_SLERP) append(text, size, " slerp");
  if (r->options.variant == KP_VARIANT_UPSTREAM) append(text, size, " upstream");
  if (r->options.residual == KP_RESIDUAL_STEREOGRAPHIC) describe_wiring(r, text, size);
  for (kp_place place = 0; place < KP_PLACES; place++) describe_curvature(r, place, text, size);
}
