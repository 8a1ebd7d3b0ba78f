/* A model that is run over text for a study: everything that studies look at can be read afterwards. */
#ifndef KAPPA_STUDY_MODEL_PASS_H
#define KAPPA_STUDY_MODEL_PASS_H

#include "core/executor.h"
#include "models/model.h"
#include "study/radii.h"
#include "study/run_record.h"

typedef struct kp_model_pass {
  const kp_model_options *options;
  kp_network *network;
  kp_executor *executor;
  kp_tensor *embedding_curvature; /* κ (1), or NULL */
  double *states;                 /* (B·T, C): room for the stream of a batch */
  double *numbers;                /* room for any curvature table or any scores of a batch */
} kp_model_pass;

/* Builds the model for batches of `rows` windows.  Parameters without values get those that `seed` draws.
 * Close it, also after a failure. */
kp_status kp_model_pass_open(kp_model_pass *pass, const kp_model_options *options, kp_parameters *parameters,
                             int64_t rows, uint64_t seed, const kp_backend *backend, int threads,
                             kp_error *error);
void kp_model_pass_close(kp_model_pass *pass);

/* One batch, forward. */
kp_status kp_model_pass_run(kp_model_pass *pass, const int32_t *inputs, const int32_t *targets,
                            kp_error *error);

/* κ (K, G) of a place in a block, or NULL. */
const kp_tensor *kp_model_pass_curvature(const kp_model_pass *pass, kp_place place, int layer);

/* How many curvatures a block has at that place; 0: none. */
int kp_model_pass_groups(const kp_model_pass *pass, kp_place place);

/* Means over the K rows of a table of the last batch, (G). */
void kp_model_pass_mean(kp_model_pass *pass, const kp_tensor *table, double *means);

/* κ of the embedding; NaN without one. */
double kp_model_pass_embedding(const kp_model_pass *pass);

/* κ of a curved stream in a block: (rows, groups), a row for every so many tokens.  The values live in
 * pass->numbers until something else is read into it. */
typedef struct kp_stream_curvature {
  int64_t rows, groups;
  const double *values;
} kp_stream_curvature;

kp_stream_curvature kp_model_pass_stream(kp_model_pass *pass, int layer);

/* Whether the stream is a point of a curved space, and in which chart it is stored. */
bool kp_stream_is_curved(const kp_model_pass *pass, kp_chart *chart);

#endif
