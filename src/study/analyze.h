/* The geometry of a trained model: how its hidden states fill the space, how far out they lie and how
 * tree-like they are; which curvatures it has learned and from which start; how its experts share the work;
 * what its embeddings say of frequency; how its matrices' spectra are spread.
 *
 * Hidden states are those of the residual stream at validation tokens, before block 0, 1, … and after the
 * last.  Where they are stored in a chart of a curved space (study/radii.h), radii and geodesic distances are
 * those of the points; isotropy is that of the stored numbers. */
#ifndef KAPPA_STUDY_ANALYZE_H
#define KAPPA_STUDY_ANALYZE_H

#include <jansson.h>

#include "core/backend.h"
#include "study/condition_numbers.h"
#include "study/curvature_signs.h"
#include "study/expert_load.h"
#include "study/hyperbolicity.h"
#include "study/isotropy.h"
#include "study/learning_rates.h"
#include "study/radii.h"
#include "study/run_record.h"
#include "study/token_norms.h"

typedef struct kp_analysis_options {
  const char *checkpoint; /* "last" (also NULL), "best" or a step */
  const char *data;       /* prepared data instead of the run's own; NULL: the run's */
  int64_t tokens;         /* of the validation text, from its front; 0: 16384 */
  bool over_training;     /* look at every checkpoint of the run, too */
  const kp_backend *backend;
  int threads; /* 0: all */
} kp_analysis_options;

/* Gromov's δ of a cloud beside what Gaussian clouds give. */
typedef struct kp_tree_likeness {
  kp_hyperbolicity rows;          /* Euclidean distances */
  kp_hyperbolicity gaussian;      /* of a standard Gaussian cloud of as many rows and columns */
  kp_hyperbolicity like;          /* of a Gaussian cloud with the mean and covariance of the rows */
  bool curved;                    /* the rows are points of a space of known curvature: */
  kp_hyperbolicity geodesic;      /* geodesic distances of the same rows, */
  kp_hyperbolicity geodesic_like; /* and of the points that the last cloud gives in that space */
} kp_tree_likeness;

typedef struct kp_stream_analysis {
  kp_isotropy_result isotropy;
  double *eigenvalues; /* (C) of the covariance, descending */
  /* Of curved streams, else NaN; by the curvature κ of the block that reads the stream (behind the last: of
   * the last), over rows and groups of channels. */
  kp_radius_summary radius;
  kp_tree_likeness trees;
} kp_stream_analysis;

typedef struct kp_matrix_analysis {
  const char *name, *kind; /* "transformer.h.0.mlp.c_fc.weight", "mlp.c_fc" */
  int layer;               /* -1: of no block */
  int64_t rows, columns;
  double entropy; /* SVD entropy -Σ p ln p, p = σ / Σσ; at most ln min(rows, columns) */
} kp_matrix_analysis;

/* κ of one kind of place in every block; means over tokens where it is predicted from them. */
typedef struct kp_curvature_analysis {
  int groups;          /* of a block; 0: the model has none there */
  double *start, *end; /* (layers, groups): before training, and of the checkpoint; NaN in blocks without */
  kp_curvature_table table;
} kp_curvature_analysis;

typedef struct kp_expert_analysis {
  kp_expert_load load; /* experts 0: this block has none */
  double *counts;      /* (experts) choices over all tokens */
  double *curvature;   /* (experts) κ, or NULL */
  double routing_entropy;
  kp_correlation curvature_load; /* of an expert's κ and its load, over experts */
} kp_expert_analysis;

typedef struct kp_embedding_analysis {
  bool known;     /* the model has a table of embeddings */
  int64_t tokens; /* of the training text that were counted */
  kp_token_norms norms;
  kp_tree_likeness trees; /* of the rows of tokens that occur */
} kp_embedding_analysis;

typedef struct kp_analysis {
  kp_run_record record;
  int64_t step, tokens; /* the checkpoint's step; tokens that were read */
  double loss;          /* on them */
  int layers;
  int64_t width;
  kp_stream_analysis *streams;                 /* layers + 1 */
  kp_curvature_analysis curvature[KP_PLACES];  /* of the stream, of attention heads, of experts */
  double embedding_curvature, embedding_start; /* NaN without one */
  kp_expert_analysis *experts;                 /* (layers) */
  bool has_experts;
  double *seams; /* share of rows · groups that met the boundary, of each seam in order */
  int seam_count;
  kp_embedding_analysis embedding;
  kp_matrix_analysis *matrices;
  int matrix_count;
  kp_condition_numbers conditions;
  kp_learning_rates rates;      /* of a stream on the unit sphere */
  struct kp_analysis **history; /* of all checkpoints, by step, itself included; with over_training */
  int history_count;
  kp_arena *arena; /* owns the arrays */
} kp_analysis;

/* Destroy with kp_analysis_destroy. */
kp_status kp_analysis_create(const char *run, const kp_analysis_options *options, kp_analysis **analysis,
                             kp_error *error);
void kp_analysis_destroy(kp_analysis *analysis);

/* All of it, with curvature over training; the caller's to release. */
json_t *kp_analysis_json(const kp_analysis *analysis);

/* Writes folder/analysis.json and, with `figures`, isotropy, weights, trees, and where the model has them
 * curvature, radii, experts, embedding and training as .png and .svg. */
kp_status kp_analysis_write(const kp_analysis *analysis, const char *folder, bool figures, kp_error *error);

/* Means over blocks, for tables: one number a run. */
typedef struct kp_analysis_means {
  double mean_cosine, participation_ratio, effective_rank; /* over streams, the last included */
  double svd_entropy_share;                                /* of its maximum, over matrices */
  double relative_delta, relative_delta_gaussian;          /* over streams; of the cloud with equal moments */
  double hyperbolic, euclidean, spherical;                 /* shares of curvatures, of all places */
  double edge_share, frequency_correlation, load_entropy;
} kp_analysis_means;

kp_analysis_means kp_analysis_mean(const kp_analysis *analysis);

#endif
