/* What a model on the unit sphere has learned apart from its matrices (nGPT, Loshchilov et al. 2024, sections
 * 2.2 to 2.5): the eigen learning rates of each block and its scales, as means over channels of their
 * effective values.
 *
 * Scales are stored smaller than they are; `stored` is what a scale of 1 is stored as, `rate` the eigen
 * learning rate that is stored so (model.sphere_scale, model.sphere_rate). */
#ifndef KAPPA_STUDY_LEARNING_RATES_H
#define KAPPA_STUDY_LEARNING_RATES_H

#include <jansson.h>

#include "core/parameters.h"

typedef struct kp_block_rates {
  double attention, feed_forward; /* mean |α| */
  double query_gain;              /* s_qk, shared by queries and keys */
  double up_scale, gate_scale;    /* s_u, s_v */
} kp_block_rates;

/* NaN where the model has no such parameter. */
typedef struct kp_learning_rates {
  kp_block_rates *blocks; /* (layers) */
  int layers;
  double logit_scale; /* s_z */
} kp_learning_rates;

/* Whether the model has any of them. */
bool kp_learning_rates_present(const kp_learning_rates *rates);

/* Fills *rates, whose array lives in `arena`. */
kp_status kp_learning_rates_read(const kp_parameters *parameters, int layers, double stored, double rate,
                                 kp_arena *arena, kp_learning_rates *rates, kp_error *error);

/* The caller's to release. */
json_t *kp_learning_rates_json(const kp_learning_rates *rates);

#endif
