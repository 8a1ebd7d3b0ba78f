/* AdamW: Adam with decoupled weight decay (Kingma and Ba 2015, algorithm 1;
 * Loshchilov and Hutter 2019, algorithm 2), in the form and order of PyTorch:
 *
 *   p ← p (1 - λ w)                       λ learning rate, w weight decay
 *   m ← β₁ m + (1 - β₁) g                 v ← β₂ v + (1 - β₂) g²
 *   p ← p - λ/(1 - β₁ᵗ) · m / (√v / √(1 - β₂ᵗ) + ε)
 *
 * Hidden matrices, embeddings and heads decay; biases, norms, scales and
 * curvatures do not, and curvatures have their learning rate multiplied. */
#ifndef KAPPA_OPTIM_ADAMW_H
#define KAPPA_OPTIM_ADAMW_H

#include "core/parameters.h"

typedef struct kp_adamw_options {
  double learning_rate, beta1, beta2, epsilon, weight_decay;
  double curvature_rate_multiplier; /* 1: curvatures learn at the common rate */
} kp_adamw_options;

/* One group's step number t, in double. */
typedef struct kp_adamw_step {
  double gradient_scale;
  double keep; /* 1 - λ w */
  double beta1, beta2;
  double rate;                             /* λ */
  double mean_correction, root_correction; /* 1 - β₁ᵗ, √(1 - β₂ᵗ) */
  double epsilon;
} kp_adamw_step;

/* Step `t` (the first is 1) of a group, at `rate_factor` times its learning rate, with gradients times
 * `gradient_scale` (a clipping factor). */
kp_adamw_step kp_adamw_step_of(const kp_adamw_options *options, kp_group group, int64_t t, double rate_factor,
                               double gradient_scale);

/* The step on elements [first, first + count) of the flat buffers, one pass over them on the calling thread:
 * for double buffers, or on the fast backend's functions. */
void kp_adamw_apply(const kp_parameters *parameters, const kp_adamw_step *step, int64_t first, int64_t count);

#endif
