/* The hyperplane of one class in Lorentz multinomial logistic regression (Bdeir, Schwethelm, Landwehr 2024,
 * "Fully hyperbolic convolutional neural networks for computer vision", theorem 2).
 *
 * On the hyperboloid -x_t² + |x_s|² = -R² the points with <w, x> = 0, where w = (sinh(a/R) |z|, cosh(a/R) z)
 * in the Lorentz product, form a hyperplane at distance a from the origin, in the direction of z; |w| = |z|.
 * The sine of a point's signed distance d is sinh(d/R) = <w, x> / (R |z|), and the logit is d |z|:
 *
 *   logit = m asinh(u),   u = p <z, x_s> + t x_t,   m = R |z|,  p = cosh(a/R) / (R |z|),  t = -sinh(a/R) / R.
 *
 * |z| is kept above KP_NORMAL_FLOOR, where the logit vanishes with it. */
#ifndef KAPPA_GEOMETRY_HYPERPLANE_H
#define KAPPA_GEOMETRY_HYPERPLANE_H

#include <math.h>

/* Below this |z|² underflows in float. */
#define KP_NORMAL_FLOOR 1e-18

typedef struct kp_hyperplane {
  double multiple, by_product, by_time; /* m, p, t */
} kp_hyperplane;

static inline kp_hyperplane kp_hyperplane_of(double norm, double offset, double radius) {
  const double q = fmax(norm, KP_NORMAL_FLOOR), angle = offset / radius;
  return (kp_hyperplane){
      .multiple = radius * q, .by_product = cosh(angle) / (radius * q), .by_time = -sinh(angle) / radius};
}

/* From the gradients of m, p and t those of |z|, a and R. */
typedef struct kp_hyperplane_gradient {
  double norm, offset, radius;
} kp_hyperplane_gradient;

static inline kp_hyperplane_gradient kp_hyperplane_backward(double norm, double offset, double radius,
                                                            kp_hyperplane g) {
  const double q = fmax(norm, KP_NORMAL_FLOOR), angle = offset / radius;
  const double sine = sinh(angle), cosine = cosh(angle);
  const double g_angle = (g.by_product * sine / q - g.by_time * cosine) / radius;
  return (kp_hyperplane_gradient){
      .norm = norm < KP_NORMAL_FLOOR ? 0 : radius * g.multiple - g.by_product * cosine / (radius * q * q),
      .offset = g_angle / radius,
      .radius = q * g.multiple - (g.by_product * cosine / q - g.by_time * sine) / (radius * radius) -
                g_angle * angle / radius};
}

#endif
