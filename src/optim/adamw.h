/* AdamW: Adam with decoupled weight decay (Kingma and Ba 2015, algorithm 1;
 * Loshchilov and Hutter 2019, algorithm 2), in the form and order of PyTorch:
 *
 *   p ← p (1 - λ w)                       λ learning rate, w weight decay
 *   m ← β₁ m + (1 - β₁) g                 v ← β₂ v + (1 - β₂) g²
 *   p ← p - λ/(1 - β₁ᵗ) · m / (√v / √(1 - β₂ᵗ) + ε)
 *
 * Matrices and embeddings decay; biases, norms, scales and curvatures do not,
 * and curvatures have their learning rate multiplied.  Frozen parameters and
 * those that no operator reads stay as they are.
 *
 * 0 threads are all processors. */
#ifndef KAPPA_OPTIM_ADAMW_H
#define KAPPA_OPTIM_ADAMW_H

#include "core/parameters.h"

typedef struct kp_adamw_options {
  double learning_rate, beta1, beta2, epsilon, weight_decay;
  double curvature_rate_multiplier; /* 1: curvatures learn at the common rate */
} kp_adamw_options;

/* Step `t` (the first is 1) on all parameters, with gradients times `gradient_scale` (a clipping factor).
 * One pass over values, gradients and moments, which must be allocated; double or float buffers. */
void kp_adamw_step(kp_parameters *parameters, const kp_adamw_options *options, int64_t t,
                   double gradient_scale, int threads);

/* The Euclidean norm of all gradients together, summed in double; it does not depend on the number of
 * threads, and is not finite when a gradient is not. */
double kp_gradient_norm(const kp_parameters *parameters, int threads);

/* Sets all gradients to zero. */
void kp_gradient_zero(kp_parameters *parameters, int threads);

#endif
