#include "study/compare.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/assert.h"
#include "core/directory.h"
#include "core/json_text.h"
#include "study/compare_private.h"
#include "study/compare_tasks.h"
#include "study/run_plot.h"
#include "train/settings.h"

/* ---- rows ---- */

/* Of one measure over the runs of a row. */
static kp_statistic statistic(const kp_comparison_row *row, int measure, double *room) {
  for (int i = 0; i < row->count; i++) room[i] = row->values[i][measure];
  return kp_statistic_of(room, row->count);
}

static double known(int64_t value) {
  return value >= 0 ? (double)value : (double)NAN;
}

/* Runs that are called NAME-SEED, each with its own seed, are called NAME together: the length of NAME, or 0.
 */
static int seedless(const kp_comparison_row *row) {
  size_t stem = 0;
  if (row->count < 2) return 0;
  for (int i = 0; i < row->count; i++) {
    char ending[32];
    const char *name = row->runs[i]->name;
    snprintf(ending, sizeof ending, "-%lld",
             (long long)kp_config_integer(row->runs[i]->config, "train.seed"));
    const size_t length = strlen(name), tail = strlen(ending);
    if (length <= tail || strcmp(name + length - tail, ending) != 0) return 0;
    if (i == 0) stem = length - tail;
    if (length - tail != stem || strncmp(name, row->runs[0]->name, stem) != 0) return 0;
  }
  return (int)stem;
}

static kp_status fill_row(kp_comparison *c, kp_comparison_row *row, kp_error *error) {
  const kp_run_record *first = row->runs[0];
  double *room = kp_arena_take(c->arena, (size_t)row->count * sizeof *room);
  row->values = kp_arena_take(c->arena, (size_t)row->count * sizeof *row->values);
  for (int i = 0; i < row->count; i++) {
    KP_TRY(kp_measures_of(row->runs[i], row->values[i], error));
    kp_measures_curvature(row->runs[i], &row->curvature);
  }
  for (int m = 0; m < KP_MEASURES; m++) row->measures[m] = statistic(row, m, room);
  row->parameters = known(first->parameters);
  row->planned_bytes = known(first->planned_bytes);
  const int stem = seedless(row);
  if (stem > 0)
    snprintf(row->name, sizeof row->name, "%.*s", stem < 250 ? stem : 250, first->name);
  else if (row->count > 1)
    snprintf(row->name, sizeof row->name, "%.240s (+%d)", first->name, row->count - 1);
  else
    snprintf(row->name, sizeof row->name, "%.250s", first->name);
  kp_run_record_describe(first, row->model, sizeof row->model);
  return KP_OK;
}

/* ---- grouping ---- */

/* Whether every other key is the same. */
static bool same_but_for_seed(const kp_run_record *a, const kp_run_record *b) {
  if (a->settings.count != b->settings.count) return false;
  for (size_t i = 0; i < a->settings.count; i++) {
    const kp_yaml_entry *x = &a->settings.entries[i], *y = &b->settings.entries[i];
    if (strcmp(x->key, "train.seed") == 0) continue;
    if (x->count != y->count) return false;
    for (size_t item = 0; item < x->count; item++)
      if (strcmp(x->items[item].text, y->items[item].text) != 0) return false;
  }
  return true;
}

static void group_runs(kp_comparison *c) {
  c->rows = kp_arena_take(c->arena, (size_t)c->run_count * sizeof *c->rows);
  for (int r = 0; r < c->run_count; r++) {
    int at = 0;
    while (at < c->row_count && !same_but_for_seed(c->rows[at].runs[0], &c->runs[r])) at++;
    kp_comparison_row *row = &c->rows[at];
    if (at == c->row_count) {
      row->runs = kp_arena_take(c->arena, (size_t)c->run_count * sizeof *row->runs);
      c->row_count++;
    }
    row->runs[row->count++] = &c->runs[r];
  }
}

/* ---- keys that differ ---- */

static const char *value_text(kp_comparison *c, int row, const char *key) {
  char text[256];
  kp_run_record_setting(c->rows[row].runs[0], key, text, sizeof text);
  return kp_arena_text(c->arena, text);
}

static void find_keys(kp_comparison *c) {
  const kp_schema *schema = kp_training_schema();
  const size_t size = kp_schema_size(schema);
  c->keys = kp_arena_take(c->arena, size * sizeof *c->keys);
  for (size_t i = 0; i < size; i++) {
    const char *key = kp_schema_row(schema, i)->key;
    bool differs = false;
    if (strcmp(key, "train.seed") == 0) continue;
    const char **values = kp_arena_take(c->arena, (size_t)c->row_count * sizeof *values);
    for (int row = 0; row < c->row_count; row++) {
      values[row] = value_text(c, row, key);
      differs |= strcmp(values[row], values[0]) != 0;
    }
    if (differs) c->keys[c->key_count++] = (kp_comparison_key){.key = key, .values = values};
  }
}

/* ---- the whole ---- */

/* Folders of the same name in different places are called by their paths. */
static void tell_names_apart(kp_comparison *c) {
  for (int i = 0; i < c->run_count; i++)
    for (int j = 0; j < c->run_count; j++)
      if (i != j && strcmp(c->runs[i].name, strrchr(c->runs[j].path, '/') == NULL
                                                ? c->runs[j].path
                                                : strrchr(c->runs[j].path, '/') + 1) == 0)
        c->runs[i].name = c->runs[i].path;
}

static kp_status read_runs(kp_comparison *c, const char *const *runs, size_t count, kp_error *error) {
  c->runs = kp_arena_take(c->arena, (count + 1) * sizeof *c->runs);
  for (size_t i = 0; i < count; i++) {
    KP_TRY(kp_run_record_open(runs[i], &c->runs[i], error));
    c->run_count++;
    for (size_t earlier = 0; earlier < i; earlier++)
      if (strcmp(c->runs[earlier].path, c->runs[i].path) == 0)
        return kp_fail(error, KP_ERR_INPUT, "%s is given twice", c->runs[i].path);
  }
  return KP_OK;
}

kp_status kp_comparison_create(const char *const *runs, size_t count, kp_comparison **result,
                               kp_error *error) {
  kp_arena *arena = kp_arena_create();
  kp_comparison *c = kp_arena_take(arena, sizeof *c);
  *c = (kp_comparison){.arena = arena};
  *result = NULL;
  kp_assert(count > 0, "no runs to compare");
  kp_status status = read_runs(c, runs, count, error);
  if (status == KP_OK) {
    tell_names_apart(c);
    group_runs(c);
    for (int row = 0; row < c->row_count && status == KP_OK; row++)
      status = fill_row(c, &c->rows[row], error);
    find_keys(c);
  }
  if (status == KP_OK) status = kp_comparison_judge(c, error);
  if (status == KP_OK) {
    c->tasks = kp_arena_take(arena, sizeof *c->tasks);
    status = kp_task_table_create(c, c->tasks, error);
  }
  if (status == KP_OK)
    *result = c;
  else
    kp_comparison_destroy(c);
  return status;
}

void kp_comparison_destroy(kp_comparison *c) {
  if (c == NULL) return;
  for (int i = 0; i < c->run_count; i++) kp_run_record_close(&c->runs[i]);
  if (c->tasks != NULL) kp_task_table_destroy(c->tasks);
  kp_arena_destroy(c->arena);
}

kp_status kp_comparison_write(const kp_comparison *c, const char *folder, bool figures, kp_error *error) {
  char path[KP_PATH_SIZE];
  KP_TRY(kp_directory_create(folder, error));
  KP_TRY(kp_path_join(path, folder, "comparison.json", error));
  json_t *json = kp_comparison_json(c);
  kp_status status = kp_json_write_file(path, json, KP_JSON_FLOAT_DIGITS, error);
  json_decref(json);
  if (status != KP_OK || !figures) return status;
  KP_TRY(kp_plot_comparison(c, folder, error));
  return kp_plot_twins(c, folder, error);
}
