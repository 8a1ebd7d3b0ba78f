/* Curvature as JSON: what it is, where it started, whether it changed sign, and how it went. */
#include <math.h>

#include "core/json_text.h"
#include "study/analyze_private.h"
#include "study/json_values.h"

static json_t *counts_json(const int counts[3][3]) {
  json_t *rows = json_array();
  for (int from = 0; from < 3; from++)
    json_array_append_new(rows, json_pack("[i, i, i]", counts[from][0], counts[from][1], counts[from][2]));
  return rows;
}

static json_t *shares_json(const double *kappa, int64_t count) {
  double shares[3];
  kp_curvature_shares(kappa, count, shares);
  return kp_json_list(shares, 3);
}

static json_t *layer_shares(const double *kappa, int layers, int groups) {
  json_t *list = json_array();
  for (int layer = 0; layer < layers; layer++)
    json_array_append_new(list, shares_json(kappa + layer * groups, groups));
  return list;
}

static json_t *history_json(const kp_run_record *record, int place) {
  json_t *history = json_array();
  const int groups = record->groups[place];
  for (int64_t e = 0; e < record->evaluation_count; e++) {
    const kp_evaluation_line *line = &record->evaluations[e];
    const double *kappa = line->curvature[place];
    if (kappa == NULL) continue;
    json_array_append_new(history,
                          json_pack("{s:o, s:o, s:o, s:o}", "step", kp_json_number(line->step), "blocks",
                                    kp_json_table(kappa, record->layers, groups), "shares",
                                    shares_json(kappa, (int64_t)record->layers * groups), "shares_of_blocks",
                                    layer_shares(kappa, record->layers, groups)));
  }
  return history;
}

static json_t *tests_json(const kp_curvature_table *table) {
  const kp_curvature_tests t = kp_curvature_test(table);
  char sentence[1024];
  kp_curvature_sentence(table, sentence, sizeof sentence);
  return json_pack("{s:i, s:o, s:o, s:i, s:i, s:o, s:o, s:o, s:s}", "count", table->heads, "kinds",
                   counts_json(table->kinds), "signs", counts_json(table->signs), "to_positive",
                   t.to_positive, "to_negative", t.to_negative, "p_signs", kp_json_number(t.p_signs),
                   "p_flat", kp_json_number(t.p_flat), "p_memory", kp_json_number(t.p_memory), "sentence",
                   sentence);
}

json_t *kp_analysis_curvature_json(const kp_analysis *a) {
  json_t *json = json_object();
  for (kp_place place = 0; place < KP_PLACES; place++) {
    const kp_curvature_analysis *c = &a->curvature[place];
    const int64_t all = (int64_t)a->layers * c->groups;
    if (c->groups == 0) continue;
    json_object_set_new(json, kp_place_name(place),
                        json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "start",
                                  kp_json_table(c->start, a->layers, c->groups), "blocks",
                                  kp_json_table(c->end, a->layers, c->groups), "shares_at_start",
                                  shares_json(c->start, all), "shares", shares_json(c->end, all),
                                  "shares_of_blocks", layer_shares(c->end, a->layers, c->groups),
                                  "start_against_end", tests_json(&c->table), "over_training",
                                  history_json(&a->record, (int)place)));
  }
  if (isnan(a->embedding_curvature)) return json;
  json_object_set_new(json, "embedding_start", kp_json_number(a->embedding_start));
  json_object_set_new(json, "embedding", kp_json_number(a->embedding_curvature));
  return json;
}
