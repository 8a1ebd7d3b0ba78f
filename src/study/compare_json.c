#include <math.h>

#include "core/json_text.h"
#include "study/compare_tasks.h"

static json_t *statistic_json(kp_statistic s) {
  return json_pack("{s:o, s:o, s:i}", "mean", kp_json_number(s.mean), "spread", kp_json_number(s.spread), "n",
                   s.count);
}

static json_t *difference_json(const kp_difference *d) {
  return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:s}", "value", kp_json_number(d->value), "standard_error",
                   kp_json_number(d->error), "degrees_of_freedom", kp_json_number(d->freedom), "low",
                   kp_json_number(d->low), "high", kp_json_number(d->high), "p", kp_json_number(d->p),
                   "verdict", kp_verdict_words(d));
}

/* Of all measures that both rows have. */
static json_t *differences_json(const char *name, const kp_difference differences[KP_MEASURES]) {
  json_t *measures = json_object();
  for (int m = 0; m < KP_MEASURES; m++)
    if (!isnan(differences[m].value))
      json_object_set_new(measures, kp_measure_name((kp_measure)m), difference_json(&differences[m]));
  return json_pack("{s:s, s:o}", "name", name, "differences", measures);
}

static json_t *curvature_json(const kp_curvature_table *table) {
  char sentence[1024];
  const kp_curvature_tests t = kp_curvature_test(table);
  kp_curvature_sentence(table, sentence, sizeof sentence);
  return json_pack("{s:i, s:i, s:i, s:o, s:o, s:o, s:s}", "count", table->heads, "to_positive", t.to_positive,
                   "to_negative", t.to_negative, "p_signs", kp_json_number(t.p_signs), "p_flat",
                   kp_json_number(t.p_flat), "p_memory", kp_json_number(t.p_memory), "sentence", sentence);
}

static void add_twins(const kp_comparison *c, const kp_comparison_row *row, json_t *json) {
  if (row->twins[KP_TWIN_FLAT] >= 0) {
    json_t *twin = differences_json(c->rows[row->twins[KP_TWIN_FLAT]].name, row->differences[KP_TWIN_FLAT]);
    json_object_set_new(twin, "paired_final_loss", difference_json(&row->twin_paired));
    json_object_set_new(twin, "speed", kp_json_number(row->twin_speed));
    json_object_set_new(json, "twin", twin);
  }
  static const char *const names[KP_TWINS] = {
      [KP_TWIN_BOUNDED] = "bounded_twin", [KP_TWIN_FROZEN] = "frozen_twin"};
  for (int kind = KP_TWIN_BOUNDED; kind < KP_TWINS; kind++)
    if (row->twins[kind] >= 0)
      json_object_set_new(json, names[kind],
                          differences_json(c->rows[row->twins[kind]].name, row->differences[kind]));
}

static json_t *row_json(const kp_comparison *c, const kp_comparison_row *row) {
  json_t *runs = json_array(), *seeds = json_array();
  for (int i = 0; i < row->count; i++) {
    json_array_append_new(runs, json_string(row->runs[i]->path));
    json_array_append_new(seeds, json_integer(kp_config_integer(row->runs[i]->config, "train.seed")));
  }
  json_t *json = json_pack("{s:s, s:s, s:o, s:o, s:o, s:o}", "name", row->name, "model", row->model, "runs",
                           runs, "seeds", seeds, "parameters", kp_json_number(row->parameters),
                           "planned_bytes", kp_json_number(row->planned_bytes));
  for (int m = 0; m < KP_MEASURES; m++)
    if (row->measures[m].count > 0)
      json_object_set_new(json, kp_measure_name((kp_measure)m), statistic_json(row->measures[m]));
  json_object_set_new(json, "step_ratio", kp_json_number(row->step_ratio));
  json_object_set_new(json, "step_ratio_to", json_string(c->rows[row->reference].name));
  if (row->curvature.heads > 0) json_object_set_new(json, "curvature", curvature_json(&row->curvature));
  add_twins(c, row, json);
  return json;
}

json_t *kp_comparison_json(const kp_comparison *c) {
  json_t *rows = json_array(), *keys = json_object(), *warnings = json_array();
  for (int i = 0; i < c->row_count; i++) json_array_append_new(rows, row_json(c, &c->rows[i]));
  for (int k = 0; k < c->key_count; k++) {
    json_t *values = json_array();
    for (int i = 0; i < c->row_count; i++) json_array_append_new(values, json_string(c->keys[k].values[i]));
    json_object_set_new(keys, c->keys[k].key, values);
  }
  for (int i = 0; i < c->warning_count; i++) json_array_append_new(warnings, json_string(c->warnings[i]));
  return json_pack("{s:o, s:o, s:o, s:o}", "rows", rows, "tasks", kp_task_table_json(c->tasks),
                   "differing_keys", keys, "warnings", warnings);
}
