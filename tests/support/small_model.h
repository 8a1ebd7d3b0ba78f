/* A small model with random parameters, and nothing trained. */
#ifndef KAPPA_TESTS_SMALL_MODEL_H
#define KAPPA_TESTS_SMALL_MODEL_H

#include "core/config.h"
#include "models/model.h"

typedef struct small_model {
  kp_config *config;
  kp_model_options options;
  kp_parameters *parameters;
} small_model;

/* The model of the configuration `shape`, with "key=value key=value" of `words`, on that backend.  Initial
 * matrices and tables are times `factor`: the larger, the more every token weighs in the logits.  Fails the
 * running test when something goes wrong. */
void small_model_open(const kp_backend *backend, const char *shape, const char *words, double factor,
                      small_model *m);
void small_model_close(small_model *m);

#endif
