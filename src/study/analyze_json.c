/* An analysis as one JSON object (docs/studies.md), and its means. */
#include <math.h>

#include "core/json_text.h"
#include "study/analyze_private.h"
#include "study/json_values.h"

static json_t *radius_json(const kp_radius_summary *r) {
  return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "mean", kp_json_number(r->mean), "median",
                   kp_json_number(r->median), "ninth_decile", kp_json_number(r->ninth), "largest",
                   kp_json_number(r->largest), "edge_share", kp_json_number(r->edge_share),
                   "mean_distance_to_boundary", kp_json_number(r->boundary_mean),
                   "least_distance_to_boundary", kp_json_number(r->boundary_least));
}

static json_t *stream_json(const kp_analysis *a, int index, bool whole) {
  const kp_stream_analysis *s = &a->streams[index];
  json_t *json = json_pack(
      "{s:i, s:I, s:I, s:o, s:o, s:o, s:o}", "before_block", index, "rows", (json_int_t)s->isotropy.rows,
      "zero_rows", (json_int_t)s->isotropy.zero_rows, "mean_cosine", kp_json_number(s->isotropy.mean_cosine),
      "participation_ratio", kp_json_number(s->isotropy.participation_ratio), "effective_rank",
      kp_json_number(s->isotropy.effective_rank), "mean_norm", kp_json_number(s->isotropy.mean_norm));
  if (!isnan(s->radius.mean)) json_object_set_new(json, "radius", radius_json(&s->radius));
  json_object_set_new(json, "delta", kp_tree_likeness_json(&s->trees));
  if (whole) json_object_set_new(json, "eigenvalues", kp_json_list(s->eigenvalues, a->width));
  return json;
}

static json_t *streams_json(const kp_analysis *a, bool whole) {
  json_t *streams = json_array();
  for (int i = 0; i <= a->layers; i++) json_array_append_new(streams, stream_json(a, i, whole));
  return streams;
}

static json_t *expert_json(const kp_expert_analysis *e, int layer) {
  json_t *json =
      json_pack("{s:i, s:i, s:i, s:o, s:o, s:o, s:o, s:o, s:o}", "block", layer, "experts", e->load.experts,
                "unused", e->load.unused, "load_entropy", kp_json_number(e->load.entropy), "largest_load",
                kp_json_number(e->load.largest), "smallest_load", kp_json_number(e->load.smallest),
                "load_variation", kp_json_number(e->load.variation), "routing_entropy",
                kp_json_number(e->routing_entropy), "counts", kp_json_list(e->counts, e->load.experts));
  if (e->curvature == NULL) return json;
  json_object_set_new(json, "curvature", kp_json_list(e->curvature, e->load.experts));
  json_object_set_new(json, "curvature_load_correlation", kp_json_number(e->curvature_load.value));
  json_object_set_new(json, "curvature_load_p", kp_json_number(e->curvature_load.p));
  return json;
}

static json_t *experts_json(const kp_analysis *a) {
  json_t *experts = json_array();
  for (int layer = 0; layer < a->layers; layer++)
    if (a->experts[layer].load.experts > 0)
      json_array_append_new(experts, expert_json(&a->experts[layer], layer));
  return experts;
}

static json_t *embedding_json(const kp_embedding_analysis *e) {
  const kp_token_norms *n = &e->norms;
  return json_pack("{s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "text_tokens", (json_int_t)e->tokens,
                   "seen", (json_int_t)n->seen, "unseen", (json_int_t)n->unseen, "unseen_norm",
                   kp_json_number(n->unseen_norm), "norm_by_frequency", kp_json_list(n->norm, n->groups),
                   "share_of_text", kp_json_list(n->share, n->groups), "spearman",
                   kp_json_number(n->spearman.value), "spearman_p", kp_json_number(n->spearman.p), "delta",
                   kp_tree_likeness_json(&e->trees));
}

static json_t *matrices_json(const kp_analysis *a) {
  json_t *matrices = json_array();
  for (int i = 0; i < a->matrix_count; i++) {
    const kp_matrix_analysis *m = &a->matrices[i];
    json_array_append_new(matrices,
                          json_pack("{s:s, s:s, s:i, s:I, s:I, s:o}", "name", m->name, "kind", m->kind,
                                    "layer", m->layer, "rows", (json_int_t)m->rows, "columns",
                                    (json_int_t)m->columns, "svd_entropy", kp_json_number(m->entropy)));
  }
  return matrices;
}

static json_t *means_json(const kp_analysis *a) {
  const kp_analysis_means m = kp_analysis_mean(a);
  return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "mean_cosine",
                   kp_json_number(m.mean_cosine), "participation_ratio",
                   kp_json_number(m.participation_ratio), "effective_rank", kp_json_number(m.effective_rank),
                   "svd_entropy_share", kp_json_number(m.svd_entropy_share), "relative_delta",
                   kp_json_number(m.relative_delta), "relative_delta_gaussian",
                   kp_json_number(m.relative_delta_gaussian), "hyperbolic", kp_json_number(m.hyperbolic),
                   "euclidean", kp_json_number(m.euclidean), "spherical", kp_json_number(m.spherical),
                   "edge_share", kp_json_number(m.edge_share), "frequency_correlation",
                   kp_json_number(m.frequency_correlation), "load_entropy", kp_json_number(m.load_entropy));
}

static json_t *history_json(const kp_analysis *a) {
  json_t *history = json_array();
  for (int i = 0; i < a->history_count; i++) {
    const kp_analysis *h = a->history[i];
    json_array_append_new(history, json_pack("{s:I, s:o, s:o, s:o}", "step", (json_int_t)h->step, "loss",
                                             kp_json_number(h->loss), "means", means_json(h), "streams",
                                             streams_json(h, false)));
  }
  return history;
}

json_t *kp_analysis_json(const kp_analysis *a) {
  char model[160];
  kp_run_record_describe(&a->record, model, sizeof model);
  json_t *json =
      json_pack("{s:s, s:s, s:I, s:I, s:o, s:o, s:o, s:o}", "run", a->record.path, "model", model, "step",
                (json_int_t)a->step, "tokens", (json_int_t)a->tokens, "loss", kp_json_number(a->loss),
                "means", means_json(a), "streams", streams_json(a, true), "matrices", matrices_json(a));
  json_object_set_new(json, "condition_numbers", kp_condition_numbers_json(&a->conditions));
  if (kp_learning_rates_present(&a->rates))
    json_object_set_new(json, "learning_rates", kp_learning_rates_json(&a->rates));
  json_t *curvature = kp_analysis_curvature_json(a);
  if (json_object_size(curvature) > 0) json_object_set(json, "curvature", curvature);
  json_decref(curvature);
  if (a->seam_count > 0)
    json_object_set_new(json, "boundary_share_of_seams", kp_json_list(a->seams, a->seam_count));
  if (a->has_experts) json_object_set_new(json, "experts", experts_json(a));
  if (a->embedding.known) json_object_set_new(json, "embedding", embedding_json(&a->embedding));
  if (a->history_count > 0) json_object_set_new(json, "over_training", history_json(a));
  return json;
}
