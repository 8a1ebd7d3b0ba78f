/* A model that was never trained, to measure what generation costs: a token takes the same arithmetic and the
 * same bytes whatever the weights are. */
#ifndef KAPPA_INFER_RANDOM_MODEL_H
#define KAPPA_INFER_RANDOM_MODEL_H

#include "train/run.h"

/* Builds the model of a configuration, which must say model.vocabulary, with initial weights of `seed`, step
 * 0 and no tokenizer.  Close with kp_trained_close. */
kp_status kp_random_model_open(const char *config, const char *const *overrides, size_t count, uint64_t seed,
                               const kp_backend *backend, kp_trained *model, kp_error *error);

#endif
