/* Scalar formulas of the unit sphere in R^n, for points A and B, t the angle between them.
 *
 *   log_A(B) = (t / sin t) w,   w = B - cos t A           the tangent vector at A that leads to B
 *   exp_A(p) = cos |p| A + S(|p|^2) p                     S(z) = sin(sqrt z) / sqrt z
 *
 * (Absil, Mahony, Sepulchre 2008, examples 4.1.1 and 5.4.1.)  exp_A(a log_A(B)) is the point at the share a
 * of the arc, sin((1-a) t)/sin t A + sin(a t)/sin t B (Shoemake 1985).  Coefficients are functions of cos t =
 * <A,B> and sin^2 t = |w|^2, smooth through t = 0; at t = pi the arc is not unique, and its length stays
 * finite. */
#ifndef KAPPA_GEOMETRY_SPHERE_H
#define KAPPA_GEOMETRY_SPHERE_H

#include "geometry/functions.h"

/* 1/|x| from |x|^2; 0 for a vector without a direction. */
KP_HD static inline kp_real kp_sphere_inverse_length(kp_real square) {
  const kp_real length = kp_sqrt(square);
  return length <= KP_DIRECTION_FLOOR ? 0 : 1 / length; /* a NaN stays one */
}

/* t / sin t and its partial derivatives.  Near A it is taken as a function of sin^2 t alone, beyond as one of
 * both; along the sphere, where sin^2 t + cos^2 t = 1, they agree. */
typedef struct kp_sphere_log {
  kp_real ratio;
  kp_real by_square; /* with respect to sin^2 t */
  kp_real by_cosine;
} kp_sphere_log;

KP_HD static inline kp_sphere_log kp_sphere_log_of(kp_real square, kp_real cosine) {
  kp_sphere_log log;
  if (cosine > (kp_real)0.5) {
    const kp_slope arc = kp_asin_ratio_both(square);
    log.ratio = arc.value;
    log.by_square = arc.derivative;
    log.by_cosine = 0;
    return log;
  }
  const kp_real sine = kp_max(kp_sqrt(square), KP_ANTIPODE_SINE);
  log.ratio = kp_atan2(sine, cosine) / sine;
  log.by_square = sine <= KP_ANTIPODE_SINE ? 0 : (cosine - log.ratio) / (2 * square);
  log.by_cosine = -1;
  return log;
}

#endif
