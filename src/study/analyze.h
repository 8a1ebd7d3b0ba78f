/* The geometry of a trained model: how its hidden states fill the space, how far out they lie, which
 * curvatures it has learned, and how its matrices' spectra are spread.
 *
 * Hidden states are those of the residual stream at validation tokens, before block 0, 1, … and after the
 * last. A model of exact geometry stores them as tangent vectors h = log_0(x), whose length is half the
 * distance from the origin; the upstream variant stores the points x of the ball. */
#ifndef KAPPA_STUDY_ANALYZE_H
#define KAPPA_STUDY_ANALYZE_H

#include <jansson.h>

#include "core/backend.h"
#include "study/isotropy.h"
#include "study/run_record.h"

typedef struct kp_analysis_options {
  const char *checkpoint; /* "last" (also NULL), "best" or a step */
  const char *data;       /* prepared data instead of the run's own; NULL: the run's */
  int64_t tokens;         /* of the validation text, from its front; 0: 16384 */
  const kp_backend *backend;
  int threads; /* 0: all */
} kp_analysis_options;

typedef struct kp_stream_analysis {
  kp_isotropy_result isotropy;
  double *eigenvalues; /* (C) of the covariance, descending */
  /* Of curved models, else NaN; by the curvature κ of the block that reads the stream (behind the last: of
   * the last), over rows and groups of channels: */
  double mean_radius; /* √|κ| d(0, x): the distance from the origin in units of the curvature radius */
  double edge_share; /* share with √-κ |x| > 0.99, near the ball's boundary; for κ > 0, beyond the equator */
} kp_stream_analysis;

typedef struct kp_matrix_analysis {
  const char *name, *kind; /* "transformer.h.0.mlp.c_fc.weight", "mlp.c_fc" */
  int layer;               /* -1: of no block */
  int64_t rows, columns;
  double entropy; /* SVD entropy -Σ p ln p, p = σ / Σσ; at most ln min(rows, columns) */
} kp_matrix_analysis;

typedef struct kp_analysis {
  kp_run_record record;
  int64_t step, tokens; /* the checkpoint's step; tokens that were read */
  double loss;          /* on them */
  int layers;
  int64_t width;
  kp_stream_analysis *streams; /* layers + 1 */
  int groups;                  /* curvatures of a block; 0: flat */
  double *curvature, *start; /* κ (layers, groups) of the checkpoint, and before training; means over tokens
                                where κ is predicted */
  double embedding_curvature, embedding_start; /* NaN without one */
  kp_matrix_analysis *matrices;
  int matrix_count;
  kp_arena *arena; /* owns the arrays */
} kp_analysis;

/* Destroy with kp_analysis_destroy. */
kp_status kp_analysis_create(const char *run, const kp_analysis_options *options, kp_analysis **analysis,
                             kp_error *error);
void kp_analysis_destroy(kp_analysis *analysis);

/* All of it, with curvature over training; the caller's to release. */
json_t *kp_analysis_json(const kp_analysis *analysis);

/* Writes folder/analysis.json and, with `figures`, isotropy, weights and (of curved models) curvature as .png
 * and .svg. */
kp_status kp_analysis_write(const kp_analysis *analysis, const char *folder, bool figures, kp_error *error);

/* √|κ| d(0, x) of a point that is stored with this norm, as a tangent vector at the origin or (`point`) as a
 * point of the ball; a point at or beyond the boundary counts as the last float32 inside.  0 for κ = 0. */
double kp_scaled_radius(double norm, double kappa, bool point);
/* Whether a point so far out is near the boundary, or on a sphere beyond the equator. */
bool kp_radius_is_edge(double scaled_radius, double kappa);

#endif
