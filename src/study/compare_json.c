#include "core/json_text.h"
#include "study/compare.h"

static json_t *statistic_json(kp_statistic s) {
  return json_pack("{s:o, s:o, s:i}", "mean", kp_json_number(s.mean), "spread", kp_json_number(s.spread), "n",
                   s.count);
}

static json_t *row_json(const kp_comparison *c, const kp_comparison_row *row) {
  const struct {
    const char *name;
    kp_statistic value;
  } statistics[] = {
      {"final_loss", row->final_loss},
      {"best_loss", row->best_loss},
      {"best_step", row->best_step},
      {"loss_at_quarter", row->quarter_loss},
      {"bits_per_byte", row->bits_per_byte},
      {"steps", row->steps},
      {"tokens", row->tokens},
      {"seconds", row->seconds},
      {"tokens_per_s", row->tokens_per_s},
      {"step_ms", row->step_ms},
      {"boundary_share", row->boundary_share},
      {"skipped", row->skipped},
  };
  json_t *runs = json_array(), *seeds = json_array();
  for (int i = 0; i < row->count; i++) {
    json_array_append_new(runs, json_string(row->runs[i]->path));
    json_array_append_new(seeds, json_integer(kp_config_integer(row->runs[i]->config, "train.seed")));
  }
  json_t *json = json_pack("{s:s, s:s, s:o, s:o, s:o, s:o}", "name", row->name, "model", row->model, "runs",
                           runs, "seeds", seeds, "parameters", kp_json_number(row->parameters),
                           "planned_bytes", kp_json_number(row->planned_bytes));
  for (size_t i = 0; i < sizeof statistics / sizeof *statistics; i++)
    json_object_set_new(json, statistics[i].name, statistic_json(statistics[i].value));
  json_object_set_new(json, "step_ratio", kp_json_number(row->step_ratio));
  json_object_set_new(json, "step_ratio_to", json_string(c->rows[row->reference].name));
  if (row->twin < 0) return json;
  json_object_set_new(json, "twin", json_string(c->rows[row->twin].name));
  json_object_set_new(json, "twin_difference", kp_json_number(row->twin_difference));
  json_object_set_new(json, "twin_standard_error", kp_json_number(row->twin_error));
  json_object_set_new(json, "twin_difference_at_quarter", kp_json_number(row->twin_early_difference));
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
  return json_pack("{s:o, s:o, s:o}", "rows", rows, "differing_keys", keys, "warnings", warnings);
}
