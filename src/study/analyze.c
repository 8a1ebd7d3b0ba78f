#include "study/analyze.h"

#include <math.h>

#include "core/arena.h"
#include "core/directory.h"
#include "core/json_text.h"
#include "study/analyze_private.h"

kp_status kp_analysis_create(const char *run, const kp_analysis_options *options, kp_analysis **result,
                             kp_error *error) {
  kp_arena *arena = kp_arena_create();
  kp_analysis *a = kp_arena_take(arena, sizeof *a);
  kp_trained trained = {0};
  *a = (kp_analysis){.arena = arena, .embedding_curvature = NAN, .embedding_start = NAN};
  *result = NULL;
  kp_status status = kp_run_record_open(run, &a->record, error);
  if (status == KP_OK)
    status = kp_trained_open(a->record.path, options->checkpoint == NULL ? "last" : options->checkpoint,
                             options->backend, &trained, error);
  if (status == KP_OK) {
    a->step = trained.step;
    a->width = trained.options.width;
    status = kp_analysis_read_states(a, &trained, options, error);
    if (status == KP_OK) status = kp_analysis_read_weights(a, trained.parameters, error);
    kp_trained_close(&trained);
  }
  if (status == KP_OK)
    *result = a;
  else
    kp_analysis_destroy(a);
  return status;
}

void kp_analysis_destroy(kp_analysis *a) {
  if (a == NULL) return;
  kp_run_record_close(&a->record);
  kp_arena_destroy(a->arena);
}

/* ---- JSON ---- */

static json_t *list_of(const double *values, int64_t count) {
  json_t *list = json_array();
  for (int64_t i = 0; i < count; i++) json_array_append_new(list, kp_json_number(values[i]));
  return list;
}

static json_t *stream_json(const kp_analysis *a, int index) {
  const kp_stream_analysis *s = &a->streams[index];
  json_t *json = json_pack(
      "{s:i, s:I, s:I, s:o, s:o, s:o, s:o}", "before_block", index, "rows", (json_int_t)s->isotropy.rows,
      "zero_rows", (json_int_t)s->isotropy.zero_rows, "mean_cosine", kp_json_number(s->isotropy.mean_cosine),
      "participation_ratio", kp_json_number(s->isotropy.participation_ratio), "effective_rank",
      kp_json_number(s->isotropy.effective_rank), "mean_norm", kp_json_number(s->isotropy.mean_norm));
  if (a->groups > 0) {
    json_object_set_new(json, "mean_radius", kp_json_number(s->mean_radius));
    json_object_set_new(json, "edge_share", kp_json_number(s->edge_share));
  }
  json_object_set_new(json, "eigenvalues", list_of(s->eigenvalues, a->width));
  return json;
}

static json_t *blocks_json(const kp_analysis *a, const double *values) {
  json_t *blocks = json_array();
  for (int layer = 0; layer < a->layers; layer++)
    json_array_append_new(blocks, list_of(values + layer * a->groups, a->groups));
  return blocks;
}

static json_t *history_json(const kp_run_record *record) {
  json_t *history = json_array();
  for (int64_t e = 0; e < record->evaluation_count; e++) {
    const kp_evaluation_line *line = &record->evaluations[e];
    json_t *blocks = json_array();
    for (int layer = 0; layer < record->layers && line->curvature != NULL; layer++)
      json_array_append_new(blocks, list_of(line->curvature + layer * record->groups, record->groups));
    json_array_append_new(history,
                          json_pack("{s:o, s:o}", "step", kp_json_number(line->step), "blocks", blocks));
  }
  return history;
}

static json_t *curvature_json(const kp_analysis *a) {
  json_t *json = json_pack("{s:o, s:o, s:o}", "start", blocks_json(a, a->start), "blocks",
                           blocks_json(a, a->curvature), "over_training", history_json(&a->record));
  if (isnan(a->embedding_curvature)) return json;
  json_object_set_new(json, "embedding_start", kp_json_number(a->embedding_start));
  json_object_set_new(json, "embedding", kp_json_number(a->embedding_curvature));
  return json;
}

json_t *kp_analysis_json(const kp_analysis *a) {
  char model[160];
  json_t *streams = json_array(), *matrices = json_array();
  kp_run_record_describe(&a->record, model, sizeof model);
  for (int i = 0; i <= a->layers; i++) json_array_append_new(streams, stream_json(a, i));
  for (int i = 0; i < a->matrix_count; i++) {
    const kp_matrix_analysis *m = &a->matrices[i];
    json_array_append_new(matrices,
                          json_pack("{s:s, s:s, s:i, s:I, s:I, s:o}", "name", m->name, "kind", m->kind,
                                    "layer", m->layer, "rows", (json_int_t)m->rows, "columns",
                                    (json_int_t)m->columns, "svd_entropy", kp_json_number(m->entropy)));
  }
  json_t *json = json_pack("{s:s, s:s, s:I, s:I, s:o, s:o, s:o}", "run", a->record.path, "model", model,
                           "step", (json_int_t)a->step, "tokens", (json_int_t)a->tokens, "loss",
                           kp_json_number(a->loss), "streams", streams, "matrices", matrices);
  if (a->groups > 0) json_object_set_new(json, "curvature", curvature_json(a));
  return json;
}

kp_status kp_analysis_write(const kp_analysis *a, const char *folder, bool figures, kp_error *error) {
  char path[KP_PATH_SIZE];
  KP_TRY(kp_directory_create(folder, error));
  KP_TRY(kp_path_join(path, folder, "analysis.json", error));
  json_t *json = kp_analysis_json(a);
  kp_status status = kp_json_write_file(path, json, KP_JSON_FLOAT_DIGITS, error);
  json_decref(json);
  if (status != KP_OK || !figures) return status;
  return kp_analysis_plot(a, folder, error);
}
