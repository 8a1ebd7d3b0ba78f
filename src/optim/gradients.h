/* All gradients of a model together.  0 threads are all processors. */
#ifndef KAPPA_OPTIM_GRADIENTS_H
#define KAPPA_OPTIM_GRADIENTS_H

#include "core/parameters.h"

/* The Euclidean norm of all gradients together, summed in double; it does not depend on the number of
 * threads, and is not finite when a gradient is not. */
double kp_gradient_norm(const kp_parameters *parameters, int threads);

/* What gradients of that norm are multiplied by, so that it is at most `clip` (0: never): PyTorch's formula.
 */
static inline double kp_clip_factor(double clip, double norm) {
  const double factor = clip / (norm + 1e-6);
  return clip > 0 && factor < 1 ? factor : 1;
}

/* Sets all gradients to zero. */
void kp_gradient_zero(kp_parameters *parameters, int threads);

#endif
