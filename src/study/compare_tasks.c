#include "study/compare_tasks.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/arena.h"
#include "core/json_text.h"
#include "data/task.h"

#define EVALUATIONS_FILE "evaluations.jsonl"

/* One number of one run. */
typedef struct result {
  const char *task, *metric;
  int64_t examples;
  double chance, value;
  int model;
  const kp_run_record *run;
} result;

typedef struct results {
  kp_arena *arena;
  result *list;
  int count, capacity;
} results;

static bool same_score(const result *a, const char *task, const char *metric, int64_t examples) {
  return a->examples == examples && strcmp(a->task, task) == 0 && strcmp(a->metric, metric) == 0;
}

/* A later result takes the place of an earlier one of the same run. */
static void add(results *r, const result *added) {
  if (!isfinite(added->value)) return;
  for (int i = 0; i < r->count; i++)
    if (r->list[i].run == added->run &&
        same_score(&r->list[i], added->task, added->metric, added->examples)) {
      r->list[i] = *added;
      return;
    }
  if (r->count == r->capacity) {
    result *list = kp_arena_take(r->arena, (size_t)(2 * r->capacity + 64) * sizeof *list);
    if (r->count > 0) memcpy(list, r->list, (size_t)r->count * sizeof *list);
    r->list = list;
    r->capacity = 2 * r->capacity + 64;
  }
  r->list[r->count++] = *added;
}

/* ---- where results are ---- */

static double number_of(const json_t *line, const char *key) {
  const json_t *value = json_object_get(line, key);
  return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

static const char *last_part(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash == NULL || slash[1] == 0 ? path : slash + 1;
}

static const char *own_data(const kp_run_record *run) {
  return last_part(kp_config_string(run->config, "data.path"));
}

/* "hellaswag, 5-shot"; the data of labelled examples and texts. */
static const char *task_name(kp_arena *arena, const kp_run_record *run, const json_t *line) {
  const char *task = json_string_value(json_object_get(line, "task"));
  const char *data = json_string_value(json_object_get(line, "data"));
  const double shots = number_of(line, "shots"), context = number_of(line, "context");
  if (task == NULL) return NULL;
  if (isfinite(shots)) return kp_arena_format(arena, "%s, %.0f-shot", task, shots);
  if (json_object_get(line, "accuracy") == NULL && !isfinite(context)) return NULL; /* lengths of context */
  data = data == NULL ? own_data(run) : last_part(data);
  if (!isfinite(context)) return kp_arena_text(arena, data);
  return kp_arena_format(arena, "%s, windows of %.0f every %.0f", data, context, number_of(line, "stride"));
}

static void add_line(results *r, const kp_run_record *run, int model, const json_t *line) {
  static const char *const metrics[] = {"accuracy",  "accuracy_norm", "macro_f1",     "mcc",
                                        "entity_f1", "loss",          "bits_per_byte"};
  static const char *const counts[] = {"questions", "examples", "tokens"};
  const char *name = task_name(r->arena, run, line);
  result found = {
      .task = name, .examples = -1, .chance = number_of(line, "chance"), .model = model, .run = run};
  if (name == NULL) return;
  for (size_t i = 0; i < sizeof counts / sizeof *counts && found.examples < 0; i++)
    if (isfinite(number_of(line, counts[i]))) found.examples = (int64_t)number_of(line, counts[i]);
  for (size_t m = 0; m < sizeof metrics / sizeof *metrics; m++) {
    const bool of_labels = json_object_get(line, "accuracy") != NULL;
    if (of_labels && strcmp(metrics[m], "loss") == 0) continue;
    found.metric = metrics[m];
    found.value = number_of(line, metrics[m]);
    if (strncmp(metrics[m], "accuracy", 8) != 0) found.chance = (double)NAN;
    add(r, &found);
  }
}

/* What training saw at its last evaluation. */
static void add_training(results *r, const kp_comparison_row *row, int number, int model) {
  static const struct {
    kp_measure measure;
    const char *metric;
  } measures[] = {{KP_ACCURACY, "accuracy"}, {KP_MACRO_F1, "macro_f1"}, {KP_ENTITY_F1, "entity_f1"}};
  const kp_run_record *run = row->runs[number];
  for (size_t m = 0; m < sizeof measures / sizeof *measures; m++)
    add(r, &(result){.task = own_data(run),
                     .metric = measures[m].metric,
                     .examples = -1,
                     .chance = (double)NAN,
                     .value = row->values[number][measures[m].measure],
                     .model = model,
                     .run = run});
}

static kp_status add_run(results *r, const kp_comparison_row *row, int number, int model, kp_error *error) {
  const kp_run_record *run = row->runs[number];
  char path[KP_PATH_SIZE];
  json_t *lines = NULL;
  bool own = false;
  KP_TRY(kp_path_join(path, run->path, EVALUATIONS_FILE, error));
  if (kp_path_kind_of(path) != KP_PATH_MISSING) KP_TRY(kp_jsonl_read_last(path, SIZE_MAX, &lines, error));
  for (size_t i = 0; i < json_array_size(lines); i++) {
    const json_t *line = json_array_get(lines, i);
    own =
        own || (json_object_get(line, "accuracy") != NULL && !json_is_string(json_object_get(line, "data")));
    add_line(r, run, model, line);
  }
  json_decref(lines);
  if (!own && run->options.task != KP_TASK_LANGUAGE) add_training(r, row, number, model);
  return KP_OK;
}

/* ---- models ---- */

static bool follows_from_task(const char *key) {
  static const char *const keys[] = {"model.task", "model.context", "model.vocabulary", "model.classes",
                                     "model.pooling"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
    if (strcmp(key, keys[i]) == 0) return true;
  return false;
}

static bool same_model(const kp_run_record *a, const kp_run_record *b) {
  if (a->settings.count != b->settings.count) return false;
  for (size_t i = 0; i < a->settings.count; i++) {
    const kp_yaml_entry *x = &a->settings.entries[i], *y = &b->settings.entries[i];
    if (strncmp(x->key, "model.", 6) != 0 || follows_from_task(x->key)) continue;
    if (x->count != y->count) return false;
    for (size_t item = 0; item < x->count; item++)
      if (strcmp(x->items[item].text, y->items[item].text) != 0) return false;
  }
  return true;
}

/* Two rows of one model and one task differ in training. */
static bool same_task(const kp_run_record *a, const kp_run_record *b) {
  return a->options.task == b->options.task && strcmp(own_data(a), own_data(b)) == 0;
}

/* The model of a row: the first that is the same and has no other row of its task. */
static int model_of(kp_task_table *t, const kp_comparison *c, const int *models, int row) {
  for (int m = 0; m < t->model_count; m++) {
    bool fits = same_model(t->models[m].row->runs[0], c->rows[row].runs[0]);
    for (int i = 0; i < row && fits; i++)
      fits = models[i] != m || !same_task(c->rows[i].runs[0], c->rows[row].runs[0]);
    if (fits) return m;
  }
  t->models[t->model_count] = (kp_task_model){.row = &c->rows[row]};
  return t->model_count++;
}

static void name_models(kp_task_table *t) {
  for (int m = 0; m < t->model_count; m++) {
    const kp_comparison_row *row = t->models[m].row;
    bool family_tells = true, description_tells = true;
    for (int i = 0; i < t->model_count; i++) {
      if (i == m) continue;
      family_tells = family_tells && t->models[i].row->runs[0]->family != row->runs[0]->family;
      description_tells = description_tells && strcmp(t->models[i].row->model, row->model) != 0;
    }
    t->models[m].name = family_tells        ? row->runs[0]->family->name
                        : description_tells ? row->model
                                            : row->name;
  }
}

/* ---- the table ---- */

static void fill_scores(kp_task_table *t, const results *r) {
  double *values = kp_arena_take(t->arena, (size_t)(r->count + 1) * sizeof *values);
  t->scores = kp_arena_take(t->arena, (size_t)(r->count + 1) * sizeof *t->scores);
  for (int i = 0; i < r->count; i++) {
    const result *first = &r->list[i];
    bool seen = false;
    for (int j = 0; j < i && !seen; j++)
      seen = same_score(&r->list[j], first->task, first->metric, first->examples);
    if (seen) continue;
    kp_task_score *score = &t->scores[t->score_count++];
    *score =
        (kp_task_score){.task = first->task,
                        .metric = first->metric,
                        .examples = first->examples,
                        .chance = first->chance,
                        .models = kp_arena_take(t->arena, (size_t)t->model_count * sizeof *score->models)};
    for (int m = 0; m < t->model_count; m++) {
      int count = 0;
      for (int j = i; j < r->count; j++)
        if (r->list[j].model == m && same_score(&r->list[j], first->task, first->metric, first->examples))
          values[count++] = r->list[j].value;
      score->models[m] = kp_statistic_of(values, count);
    }
  }
}

kp_status kp_task_table_create(const kp_comparison *c, kp_task_table *table, kp_error *error) {
  *table = (kp_task_table){.arena = kp_arena_create()};
  results r = {.arena = table->arena};
  int *models = kp_arena_take(table->arena, (size_t)c->row_count * sizeof *models);
  table->models = kp_arena_take(table->arena, (size_t)c->row_count * sizeof *table->models);
  for (int row = 0; row < c->row_count; row++) {
    models[row] = model_of(table, c, models, row);
    for (int i = 0; i < c->rows[row].count; i++) {
      kp_status status = add_run(&r, &c->rows[row], i, models[row], error);
      if (status == KP_OK) continue;
      kp_task_table_destroy(table);
      return status;
    }
  }
  name_models(table);
  fill_scores(table, &r);
  return KP_OK;
}

void kp_task_table_destroy(kp_task_table *table) {
  kp_arena_destroy(table->arena);
  *table = (kp_task_table){0};
}

json_t *kp_task_table_json(const kp_task_table *t) {
  json_t *scores = json_array();
  for (int s = 0; s < t->score_count; s++) {
    const kp_task_score *score = &t->scores[s];
    json_t *models = json_array();
    for (int m = 0; m < t->model_count; m++) {
      const kp_statistic *of = &score->models[m];
      if (of->count > 0)
        json_array_append_new(models, json_pack("{s:s, s:o, s:o, s:i}", "model", t->models[m].name, "mean",
                                                kp_json_number(of->mean), "spread",
                                                kp_json_number(of->spread), "runs", of->count));
    }
    json_array_append_new(scores, json_pack("{s:s, s:s, s:I, s:o, s:o}", "task", score->task, "metric",
                                            score->metric, "examples", (json_int_t)score->examples, "chance",
                                            kp_json_number(score->chance), "models", models));
  }
  return scores;
}
