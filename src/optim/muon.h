/* Muon (Jordan et al. 2024): momentum whose matrix is made orthogonal before it is applied.
 *
 *   m ← μ m + (1 - μ) g                   μ momentum
 *   x = (1 - μ) g + μ m  with Nesterov's look-ahead, else m
 *   p ← p (1 - λ w)                       λ learning rate, w weight decay
 *   p ← p - λ √max(1, rows / columns) · orthogonalize(x)
 *
 * For hidden matrices; only the first moment is used. */
#ifndef KAPPA_OPTIM_MUON_H
#define KAPPA_OPTIM_MUON_H

#include "core/parameters.h"

typedef struct kp_muon_options {
  double learning_rate, momentum, weight_decay;
  bool nesterov;
  int steps; /* iterations of Newton and Schulz */
  bool
      split; /* a parameter that stacks several matrices (kp_parameter.blocks) is orthogonalized one by one */
} kp_muon_options;

/* Elements of scratch memory that a matrix of that shape needs. */
int64_t kp_muon_scratch(int64_t rows, int64_t columns);

/* The step on one matrix, whose first element is number `first` of the flat buffers, at `rate_factor` times
 * the learning rate and with gradients times `gradient_scale`. */
void kp_muon_apply(const kp_parameters *parameters, const kp_muon_options *options, double rate_factor,
                   double gradient_scale, int64_t first, int64_t rows, int64_t columns, void *scratch);

#endif
