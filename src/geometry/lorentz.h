/* The hyperboloid of curvature κ = -1/c: points (t, s) with -t² + |s|² = -c, t > 0.
 *
 * Time is the lift √(|s|² + c) of the space coordinates.  The centroid of points with weights that are not
 * negative is √c M / |M|, M the weighted sum and |M|² = t² - |s|² (Law et al. 2019, equation 11): the point
 * of least weighted sum of squared Lorentzian distances -2c - 2<x, y>.
 *
 * Gradients are ambient: space and time are coordinates of their own, and `along` of a centroid is <g, o>
 * over all of them. */
#ifndef KAPPA_GEOMETRY_LORENTZ_H
#define KAPPA_GEOMETRY_LORENTZ_H

#include "geometry/real.h"

/* c = -1/κ, and dc/dκ = c². */
KP_HD static inline kp_real kp_lorentz_radius(kp_real kappa) {
  return -1 / kappa;
}

KP_HD static inline kp_real kp_lorentz_time(kp_real square, kp_real c) {
  return kp_sqrt(square + c);
}

/* What minus the squared Lorentzian distance of two lifted points, 2c + 2<x, y>, changes with c: the times
 * change by 1/(2t).  Never positive. */
KP_HD static inline kp_real kp_lorentz_score_by_radius(kp_real x_time, kp_real y_time) {
  kp_real difference = x_time - y_time;
  return -difference * difference / (x_time * y_time);
}

typedef struct kp_lorentz_centroid {
  kp_real norm;  /* |M| */
  kp_real scale; /* the centroid is scale · M */
} kp_lorentz_centroid;

/* M has `time` and |s|² = `square`; `weight` is the sum of the weights: |M| is at least √c weight, which
 * rounding may miss. */
KP_HD static inline kp_lorentz_centroid kp_lorentz_centroid_of(kp_real square, kp_real time, kp_real weight,
                                                               kp_real c) {
  kp_lorentz_centroid centroid;
  centroid.norm = kp_sqrt(kp_max(time * time - square, c * weight * weight));
  centroid.scale = kp_sqrt(c) / centroid.norm;
  return centroid;
}

/* The gradient of M is (gradient · g_s + along_space · o_s, gradient · g_t + along_time · o_t). */
typedef struct kp_lorentz_centroid_slopes {
  kp_real gradient, along_space, along_time;
  kp_real by_radius; /* of c, at fixed M */
} kp_lorentz_centroid_slopes;

KP_HD static inline kp_lorentz_centroid_slopes kp_lorentz_centroid_backward(kp_real norm, kp_real along,
                                                                            kp_real c) {
  kp_lorentz_centroid_slopes slopes;
  slopes.gradient = kp_sqrt(c) / norm;
  slopes.along_space = slopes.gradient * along / c;
  slopes.along_time = -slopes.along_space;
  slopes.by_radius = along / (2 * c);
  return slopes;
}

#endif
