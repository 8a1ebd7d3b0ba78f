/* What runs are compared by: one number a run of each measure, NaN where it is not known.
 *
 * Some come from a run's metrics; those of its geometry from the last analysis
 * in its folder (RUN/analysis/analysis.json), if there is one. */
#ifndef KAPPA_STUDY_MEASURES_H
#define KAPPA_STUDY_MEASURES_H

#include "study/curvature_signs.h"
#include "study/run_record.h"

typedef enum kp_measure {
  KP_FINAL_LOSS, /* validation; at the last evaluation, */
  KP_BEST_LOSS,  /* the best, */
  KP_BEST_STEP,
  KP_QUARTER_LOSS, /* and at a quarter of the planned steps */
  KP_BITS_PER_BYTE,
  KP_ACCURACY, /* of classifiers and taggers, at the last evaluation */
  KP_MACRO_F1,
  KP_ENTITY_F1,
  KP_STEPS,
  KP_TOKENS,
  KP_SECONDS,
  KP_TOKENS_PER_S,
  KP_STEP_MS,
  KP_BOUNDARY_SHARE,
  KP_SKIPPED,
  KP_HYPERBOLIC, /* shares of the curvatures at the last evaluation */
  KP_EUCLIDEAN,
  KP_SPHERICAL,
  KP_MEAN_COSINE, /* from here on of the analysis */
  KP_PARTICIPATION_RATIO,
  KP_EFFECTIVE_RANK,
  KP_SVD_ENTROPY,
  KP_RELATIVE_DELTA,
  KP_RELATIVE_DELTA_GAUSSIAN,
  KP_EDGE_SHARE,
  KP_FREQUENCY_CORRELATION,
  KP_LOAD_ENTROPY,
  KP_MEASURES,
} kp_measure;

/* Its name in files ("final_loss"), what a reader calls it ("final validation loss"), and the decimals that
 * are worth printing. */
const char *kp_measure_name(kp_measure measure);
const char *kp_measure_words(kp_measure measure);
int kp_measure_digits(kp_measure measure);

/* Fills all measures of a run.  A broken analysis is an error, a missing one is not. */
kp_status kp_measures_of(const kp_run_record *run, double values[KP_MEASURES], kp_error *error);

/* Adds the run's curvatures of all places: those of its first evaluation, at step 0, against the last. */
void kp_measures_curvature(const kp_run_record *run, kp_curvature_table *table);

#endif
