/* The hyperplane of one class in Lorentz multinomial logistic regression (Bdeir, Schwethelm, Landwehr 2024,
 * "Fully hyperbolic convolutional neural networks for computer vision", theorem 2).
 *
 * On the hyperboloid -x_t² + |x_s|² = -R² the points with <w, x> = 0, where w = (sinh(a/R) |z|, cosh(a/R) z)
 * in the Lorentz product, form a hyperplane at distance a from the origin, in the direction of z; |w| = |z|.
 * The sine of a point's signed distance d is sinh(d/R) = <w, x> / (R |z|), and the logit is d |z|:
 *
 *   logit = m asinh(u),   u = p <z, x_s> + t x_t,   m = R |z|,  p = cosh(a/R) / (R |z|),  t = -sinh(a/R) / R.
 *
 * |z| is kept above KP_NORMAL_FLOOR, where the logit vanishes with it, and |a/R| below KP_ANGLE_LIMIT: cosh
 * of it is a number in float. */
#ifndef KAPPA_GEOMETRY_HYPERPLANE_H
#define KAPPA_GEOMETRY_HYPERPLANE_H

#include <math.h>

#include "geometry/real.h"

#define KP_NORMAL_FLOOR 1e-18 /* its square is a number in float */
#define KP_ANGLE_LIMIT  40.0

typedef struct kp_hyperplane {
  double multiple, by_product, by_time; /* m, p, t */
} kp_hyperplane;

/* A NaN stays one. */
KP_HD static inline double kp_hyperplane_angle(double offset, double radius) {
  const double angle = offset / radius;
  return fabs(angle) > KP_ANGLE_LIMIT ? copysign(KP_ANGLE_LIMIT, angle) : angle;
}

KP_HD static inline double kp_hyperplane_norm(double norm) {
  return norm < KP_NORMAL_FLOOR ? KP_NORMAL_FLOOR : norm;
}

KP_HD static inline kp_hyperplane kp_hyperplane_of(double norm, double offset, double radius) {
  const double q = kp_hyperplane_norm(norm), angle = kp_hyperplane_angle(offset, radius);
  return (kp_hyperplane){
      .multiple = radius * q, .by_product = cosh(angle) / (radius * q), .by_time = -sinh(angle) / radius};
}

/* Sums over the points, g being the gradient of their logits and h = g m / √(1 + u²) that of u.  The
 * derivatives by R and |z| at fixed angle hang on asinh u - u / √(1 + u²), which is small where u is: it is
 * summed as such, so that nothing cancels. */
typedef struct kp_hyperplane_sums {
  double bend;    /* Σ g (asinh u - u / √(1 + u²)) */
  double product; /* Σ h <z, x_s> */
  double time;    /* Σ h x_t */
} kp_hyperplane_sums;

/* Gradients of |z|, a and R. */
typedef struct kp_hyperplane_gradient {
  double norm, offset, radius;
} kp_hyperplane_gradient;

KP_HD static inline kp_hyperplane_gradient kp_hyperplane_backward(double norm, double offset, double radius,
                                                                  kp_hyperplane_sums sums) {
  const double q = kp_hyperplane_norm(norm), angle = kp_hyperplane_angle(offset, radius);
  const double g_angle =
      fabs(angle) < KP_ANGLE_LIMIT ? (sums.product * sinh(angle) / q - sums.time * cosh(angle)) / radius : 0;
  return (kp_hyperplane_gradient){
      .norm = norm < KP_NORMAL_FLOOR ? 0 : radius * sums.bend - sinh(angle) * sums.time / (radius * q),
      .offset = g_angle / radius,
      .radius = q * sums.bend - g_angle * angle / radius};
}

#endif
