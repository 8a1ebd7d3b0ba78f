#include "study/measures.h"

#include <jansson.h>
#include <math.h>

#include "core/json_text.h"
#include "core/path.h"

typedef struct measure_row {
  const char *name, *words;
  int digits;
} measure_row;

static const measure_row rows[KP_MEASURES] = {
    [KP_FINAL_LOSS] = {"final_loss", "final validation loss", 4},
    [KP_BEST_LOSS] = {"best_loss", "best validation loss", 4},
    [KP_BEST_STEP] = {"best_step", "step of the best loss", 0},
    [KP_QUARTER_LOSS] = {"loss_at_quarter", "validation loss at a quarter of the steps", 4},
    [KP_BITS_PER_BYTE] = {"bits_per_byte", "bits per byte", 4},
    [KP_ACCURACY] = {"accuracy", "accuracy", 4},
    [KP_MACRO_F1] = {"macro_f1", "macro F1", 4},
    [KP_ENTITY_F1] = {"entity_f1", "F1 of entities", 4},
    [KP_STEPS] = {"steps", "steps", 0},
    [KP_TOKENS] = {"tokens", "tokens", 0},
    [KP_SECONDS] = {"seconds", "seconds of training", 0},
    [KP_TOKENS_PER_S] = {"tokens_per_s", "tokens/s", 0},
    [KP_STEP_MS] = {"step_ms", "step time in ms", 1},
    [KP_BOUNDARY_SHARE] = {"boundary_share", "share of rows at the boundary", 4},
    [KP_SKIPPED] = {"skipped", "skipped steps", 0},
    [KP_HYPERBOLIC] = {"hyperbolic", "share of curvatures below -0.1", 3},
    [KP_EUCLIDEAN] = {"euclidean", "share of curvatures within ±0.1", 3},
    [KP_SPHERICAL] = {"spherical", "share of curvatures above 0.1", 3},
    [KP_MEAN_COSINE] = {"mean_cosine", "mean cosine of hidden states", 4},
    [KP_PARTICIPATION_RATIO] = {"participation_ratio", "participation ratio of hidden states", 2},
    [KP_EFFECTIVE_RANK] = {"effective_rank", "effective rank of hidden states", 2},
    [KP_SVD_ENTROPY] = {"svd_entropy_share", "SVD entropy of matrices over its maximum", 5},
    [KP_RELATIVE_DELTA] = {"relative_delta", "relative δ of hidden states", 4},
    [KP_RELATIVE_DELTA_GAUSSIAN] = {"relative_delta_gaussian", "relative δ of a Gaussian cloud", 4},
    [KP_EDGE_SHARE] = {"edge_share", "share of hidden states at the edge", 4},
    [KP_FREQUENCY_CORRELATION] = {"frequency_correlation", "correlation of frequency and embedding length",
                                  3},
    [KP_LOAD_ENTROPY] = {"load_entropy", "entropy of the experts' load over its maximum", 4},
};

const char *kp_measure_name(kp_measure measure) {
  return rows[measure].name;
}

const char *kp_measure_words(kp_measure measure) {
  return rows[measure].words;
}

int kp_measure_digits(kp_measure measure) {
  return rows[measure].digits;
}

/* ---- of metrics ---- */

static const kp_evaluation_line *last_evaluation(const kp_run_record *run) {
  return run->evaluation_count > 0 ? &run->evaluations[run->evaluation_count - 1] : NULL;
}

static const kp_step_line *last_step(const kp_run_record *run) {
  return run->step_count > 0 ? &run->steps[run->step_count - 1] : NULL;
}

static void read_best(const kp_run_record *run, double values[KP_MEASURES]) {
  for (int64_t i = 0; i < run->evaluation_count; i++) {
    const kp_evaluation_line *line = &run->evaluations[i];
    if (!isnan(values[KP_BEST_LOSS]) && !(line->validation_loss < values[KP_BEST_LOSS])) continue;
    values[KP_BEST_LOSS] = line->validation_loss;
    values[KP_BEST_STEP] = line->step;
  }
}

static void read_metrics(const kp_run_record *run, double values[KP_MEASURES]) {
  const kp_evaluation_line *evaluation = last_evaluation(run);
  const kp_step_line *step = last_step(run);
  values[KP_STEPS] = fmax(evaluation != NULL ? evaluation->step : 0, step != NULL ? step->step : 0);
  values[KP_SECONDS] = fmax(evaluation != NULL ? evaluation->seconds : 0, step != NULL ? step->seconds : 0);
  values[KP_TOKENS] = values[KP_STEPS] * (double)run->tokens_per_step;
  if (values[KP_SECONDS] > 0) values[KP_TOKENS_PER_S] = values[KP_TOKENS] / values[KP_SECONDS];
  values[KP_STEP_MS] = kp_run_record_step_ms(run);
  values[KP_QUARTER_LOSS] = kp_run_record_loss_at(run, (double)run->planned_steps / 4);
  if (evaluation != NULL) {
    values[KP_FINAL_LOSS] = evaluation->validation_loss;
    values[KP_BITS_PER_BYTE] = evaluation->bits_per_byte;
    values[KP_ACCURACY] = evaluation->accuracy;
    values[KP_MACRO_F1] = evaluation->macro_f1;
    values[KP_ENTITY_F1] = evaluation->entity_f1;
  }
  if (step != NULL) {
    values[KP_BOUNDARY_SHARE] = step->boundary_share;
    values[KP_SKIPPED] = step->skipped;
  }
  read_best(run, values);
}

/* ---- of curvatures ---- */

/* κ of a place at the first evaluation, which must be of step 0, or at the last; NULL when not known. */
static const double *curvature_at(const kp_run_record *run, int place, bool last) {
  if (run->evaluation_count == 0) return NULL;
  const kp_evaluation_line *line = &run->evaluations[last ? run->evaluation_count - 1 : 0];
  return last || line->step == 0 ? line->curvature[place] : NULL;
}

void kp_measures_curvature(const kp_run_record *run, kp_curvature_table *table) {
  for (int place = 0; place < KP_PLACES; place++) {
    const double *start = curvature_at(run, place, false), *end = curvature_at(run, place, true);
    if (start != NULL && end != NULL)
      kp_curvature_table_add(table, start, end, (int64_t)run->layers * run->groups[place]);
  }
}

static void read_kinds(const kp_run_record *run, double values[KP_MEASURES]) {
  double counts[3] = {0}, all = 0;
  for (int place = 0; place < KP_PLACES; place++) {
    const double *end = curvature_at(run, place, true);
    for (int i = 0; end != NULL && i < run->layers * run->groups[place]; i++) {
      if (!isfinite(end[i])) continue;
      counts[kp_curvature_kind_of(end[i])]++;
      all++;
    }
  }
  if (all == 0) return;
  values[KP_HYPERBOLIC] = counts[KP_KIND_HYPERBOLIC] / all;
  values[KP_EUCLIDEAN] = counts[KP_KIND_EUCLIDEAN] / all;
  values[KP_SPHERICAL] = counts[KP_KIND_SPHERICAL] / all;
}

/* ---- of the analysis ---- */

static kp_status read_analysis(const kp_run_record *run, double values[KP_MEASURES], kp_error *error) {
  char path[KP_PATH_SIZE];
  json_t *json;
  KP_TRY(kp_path_join(path, run->path, "analysis/analysis.json", error));
  if (kp_path_kind_of(path) == KP_PATH_MISSING) return KP_OK;
  KP_TRY(kp_json_read_file(path, &json, error));
  const json_t *means = json_object_get(json, "means");
  for (int m = KP_MEAN_COSINE; m < KP_MEASURES; m++) {
    const json_t *value = json_object_get(means, rows[m].name);
    if (json_is_number(value)) values[m] = json_number_value(value);
  }
  json_decref(json);
  return KP_OK;
}

kp_status kp_measures_of(const kp_run_record *run, double values[KP_MEASURES], kp_error *error) {
  for (int m = 0; m < KP_MEASURES; m++) values[m] = (double)NAN;
  read_metrics(run, values);
  read_kinds(run, values);
  return read_analysis(run, values, error);
}
