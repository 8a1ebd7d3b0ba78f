/* The weighted gyromidpoint of points x_i with weights w_i (Bachmann et al. 2020, section 2; Ungar 2010):
 *
 *   lambda_i = 2 / (1 + kappa|x_i|^2),   M = sum_i w_i lambda_i x_i / sum_i w_i (lambda_i - 1),
 *   midpoint = 1/2 (x) M = M / (1 + sqrt(1 + kappa|M|^2)),
 *
 * in closed form smooth through kappa = 0, where it is the weighted mean.  No antipode is chosen for
 * kappa > 0: weights are those of an average, not negative. */
#ifndef KAPPA_GEOMETRY_MIDPOINT_H
#define KAPPA_GEOMETRY_MIDPOINT_H

#include <stddef.h>

#include "geometry/pair.h"

/* What a point contributes per unit of weight: lambda x to the numerator, lambda - 1 to the denominator. */
typedef struct kp_midpoint_factor {
  kp_real conformal;    /* lambda */
  kp_real denominator;  /* lambda - 1 */
  kp_real by_curvature; /* d lambda / d (kappa|x|^2), the same for both */
} kp_midpoint_factor;

KP_HD static inline kp_midpoint_factor kp_midpoint_factor_of(kp_real square, kp_real kappa) {
  kp_complement complement = kp_complement_of(square, kappa);
  kp_midpoint_factor factor;
  factor.conformal = 2 / complement.value;
  factor.denominator = (2 - complement.value) / complement.value;
  factor.by_curvature = -factor.conformal / complement.value * complement.slope;
  return factor;
}

/* 1 / (1 + sqrt(1 + z)) at z = kappa|M|^2, the factor of M in 1/2 (x) M. */
KP_HD static inline kp_slope kp_midpoint_close(kp_real z) {
  kp_real inside = 1 + z;
  int floored = inside <= KP_COMPLEMENT_FLOOR;
  kp_real root = kp_sqrt(floored ? KP_COMPLEMENT_FLOOR : inside);
  kp_slope result;
  result.value = 1 / (1 + root);
  result.derivative = floored ? 0 : -result.value * result.value / (2 * root);
  return result;
}

/* The sum of w (lambda - 1), kept away from 0. */
KP_HD static inline kp_real kp_midpoint_floor(kp_real denominator) {
  if (!(kp_abs(denominator) <= KP_COMPLEMENT_FLOOR)) return denominator;
  return denominator < 0 ? -KP_COMPLEMENT_FLOOR : KP_COMPLEMENT_FLOOR;
}

/* The reference over plain arrays: points (count, n), weights (count), in two passes and without memory. */

KP_HD static inline kp_real kp_midpoint_square(size_t n, const kp_real *point) {
  kp_real sum = 0;
  for (size_t k = 0; k < n; k++) sum += point[k] * point[k];
  return sum;
}

KP_HD static inline kp_real kp_midpoint_denominator(size_t n, size_t count, kp_real kappa,
                                                    const kp_real *points, const kp_real *weights) {
  kp_real sum = 0;
  for (size_t i = 0; i < count; i++)
    sum += weights[i] * kp_midpoint_factor_of(kp_midpoint_square(n, points + i * n), kappa).denominator;
  return kp_midpoint_floor(sum);
}

/* M, written to mean (n). */
KP_HD static inline void kp_midpoint_mean(size_t n, size_t count, kp_real kappa, const kp_real *points,
                                          const kp_real *weights, kp_real *mean) {
  kp_real denominator = kp_midpoint_denominator(n, count, kappa, points, weights);
  for (size_t k = 0; k < n; k++) mean[k] = 0;
  for (size_t i = 0; i < count; i++) {
    kp_real square = kp_midpoint_square(n, points + i * n);
    kp_real weight = weights[i] * kp_midpoint_factor_of(square, kappa).conformal / denominator;
    for (size_t k = 0; k < n; k++) mean[k] += weight * points[i * n + k];
  }
}

/* output (n): the gyromidpoint. */
KP_HD static inline void kp_midpoint_forward(size_t n, size_t count, kp_real kappa, const kp_real *points,
                                             const kp_real *weights, kp_real *output) {
  kp_midpoint_mean(n, count, kappa, points, weights, output);
  kp_real factor = kp_midpoint_close(kappa * kp_midpoint_square(n, output)).value;
  for (size_t k = 0; k < n; k++) output[k] *= factor;
}

/* Adds to points_bar (count, n), weights_bar (count) and *kappa_bar.  scratch holds 2 n numbers. */
KP_HD static inline void kp_midpoint_backward(size_t n, size_t count, kp_real kappa, const kp_real *points,
                                              const kp_real *weights, const kp_real *output_bar,
                                              kp_real *scratch, kp_real *points_bar, kp_real *weights_bar,
                                              kp_real *kappa_bar) {
  kp_real *mean = scratch, *numerator_bar = scratch + n;
  kp_real denominator = kp_midpoint_denominator(n, count, kappa, points, weights);
  kp_midpoint_mean(n, count, kappa, points, weights, mean);
  kp_real square = kp_midpoint_square(n, mean), factor_bar = 0, denominator_bar = 0;
  kp_slope close = kp_midpoint_close(kappa * square);
  for (size_t k = 0; k < n; k++) factor_bar += output_bar[k] * mean[k];
  kp_real z_bar = factor_bar * close.derivative;
  *kappa_bar += z_bar * square;
  for (size_t k = 0; k < n; k++) {
    numerator_bar[k] = (close.value * output_bar[k] + 2 * kappa * z_bar * mean[k]) / denominator;
    denominator_bar -= numerator_bar[k] * mean[k];
  }
  for (size_t i = 0; i < count; i++) {
    const kp_real *point = points + i * n;
    kp_real point_square = kp_midpoint_square(n, point), along = 0;
    kp_midpoint_factor factor = kp_midpoint_factor_of(point_square, kappa);
    for (size_t k = 0; k < n; k++) along += numerator_bar[k] * point[k];
    weights_bar[i] += factor.conformal * along + factor.denominator * denominator_bar;
    kp_real curvature_bar = weights[i] * (along + denominator_bar) * factor.by_curvature;
    *kappa_bar += curvature_bar * point_square;
    for (size_t k = 0; k < n; k++)
      points_bar[i * n + k] +=
          weights[i] * factor.conformal * numerator_bar[k] + 2 * kappa * curvature_bar * point[k];
  }
}

#endif
