/* The gyromidpoint of points exp_0(v_i), as a tangent vector at 0: log coordinates in and out.
 *
 * In the ambient coordinates of a space of curvature κ (a sphere or a hyperboloid of radius 1/√|κ|) the point
 * exp_0(v) is (2 S(4z) v, C(4z)), z = κ|v|², S and C of geometry/functions.h; with x = exp_0(v) these are λ x
 * and λ - 1, λ = 2 / (1 + κ|x|²).  So the weighted gyromidpoint (Bachmann et al. 2020, section 2; Ungar 2010)
 * is the weighted mean (A, B) of ambient coordinates, divided by its norm R = √(B² + κ|A|²):
 *     o = f A,   f = φ(κ|A|²/R²) / 2R  for B > 0,   angle(√κ|A|, B) / (2√κ|A|) for κ > 0
 * with φ(z) = arcsin √z / √z.  It is smooth through κ = 0, where it is the weighted mean; for κ > 0 it is
 * right beyond the equator too, where the quotient A/B changes sign.
 *
 * Backward needs the midpoint o and R alone: with y = κ|o|², S = S(4y), C = C(4y), E(z) = (S(z) - 1)/z and g
 * the gradient of o,
 *     A' = (g + 16 κ E(16y) <g, o> o) / (2 R S),   B' = -S <g, o> / R,   κ' = 8 E(16y) |o|² <g, o>
 * and <A', A> + B'B = 0, as the midpoint does not depend on the sum of the weights. */
#ifndef KAPPA_GEOMETRY_TANGENT_MIDPOINT_H
#define KAPPA_GEOMETRY_TANGENT_MIDPOINT_H

#include "geometry/functions.h"

/* Floors for κ > 0, where a mean can vanish and a midpoint reach the antipode of 0: of R² for weights of sum
 * 1, and of S. */
#define KP_MIDPOINT_NORM_FLOOR ((kp_real)1e-12)
#define KP_MIDPOINT_SINE_FLOOR ((kp_real)1e-6)

/* exp_0(v) in ambient coordinates: (scale · v, cosine). */
typedef struct kp_ambient_row {
  kp_real scale, cosine;
} kp_ambient_row;

KP_HD static inline kp_ambient_row kp_ambient_row_of(kp_real square, kp_real kappa) {
  kp_sine_cosine both = kp_sine_cosine_of(4 * kappa * square);
  kp_ambient_row row = {2 * both.sine_ratio.value, both.cosine.value};
  return row;
}

/* Given <A', v> and B' of the mean: returns what multiplies v in v' = scale A' + … v; adds to *kappa_bar. */
KP_HD static inline kp_real kp_ambient_row_backward(kp_real square, kp_real kappa, kp_real vector_bar_v,
                                                    kp_real cosine_bar, kp_real *kappa_bar) {
  kp_sine_cosine both = kp_sine_cosine_of(4 * kappa * square);
  kp_real z_bar = 2 * vector_bar_v * both.sine_ratio.derivative + cosine_bar * both.cosine.derivative;
  *kappa_bar += 4 * square * z_bar;
  return 8 * kappa * z_bar;
}

typedef struct kp_tangent_midpoint {
  kp_real norm;  /* R */
  kp_real scale; /* f: the midpoint is scale · A */
} kp_tangent_midpoint;

/* square = |A|², cosine = B, weight the sum of the weights.  For κ <= 0 R is at least that sum, which
 * rounding may miss. */
KP_HD static inline kp_tangent_midpoint kp_tangent_midpoint_of(kp_real square, kp_real cosine, kp_real weight,
                                                               kp_real kappa) {
  kp_tangent_midpoint midpoint;
  kp_real inside = kappa * square, floor = weight * weight * (kappa > 0 ? KP_MIDPOINT_NORM_FLOOR : 1);
  kp_real norm_square = kp_max(cosine * cosine + inside, floor);
  kp_real z = inside / norm_square, ratio;
  midpoint.norm = kp_sqrt(norm_square);
  if (inside > 0 && cosine < 0) {
    kp_real sine = kp_max(kp_sqrt(inside), KP_REAL_EPSILON * midpoint.norm);
    ratio = kp_atan2(sine, cosine) / sine * midpoint.norm;
  } else {
    kp_real root = cosine / midpoint.norm;
    ratio = kp_asin_ratio_complement(z, root * root).value;
  }
  midpoint.scale = ratio / (2 * midpoint.norm);
  return midpoint;
}

/* E(z) = (S(z) - 1)/z. */
KP_HD static inline kp_real kp_sine_excess(kp_real z) {
  const kp_real c[] = {-(kp_real)0.16666666666666666,   (kp_real)0.008333333333333333,
                       -(kp_real)0.0001984126984126984, (kp_real)2.7557319223985893e-06,
                       -(kp_real)2.505210838544172e-08, (kp_real)1.6059043836821613e-10,
                       -(kp_real)7.647163731819816e-13};
  if (kp_abs(z) < KP_SERIES_RADIUS) return kp_polynomial(c, 7, z).value;
  return (kp_sine_ratio(z) - 1) / z;
}

/* A' = gradient · g + along · o. */
typedef struct kp_tangent_midpoint_slopes {
  kp_real gradient, along;
  kp_real cosine; /* B' */
  kp_real kappa;  /* at fixed A and B */
} kp_tangent_midpoint_slopes;

/* square = |o|², norm = R, product = <g, o>. */
KP_HD static inline kp_tangent_midpoint_slopes kp_tangent_midpoint_backward(kp_real square, kp_real norm,
                                                                            kp_real product, kp_real kappa) {
  kp_tangent_midpoint_slopes slopes;
  kp_real sine = kp_max(kp_sine_ratio(4 * kappa * square), KP_MIDPOINT_SINE_FLOOR);
  kp_real excess = kp_sine_excess(16 * kappa * square);
  slopes.gradient = 1 / (2 * norm * sine);
  slopes.along = slopes.gradient * 16 * kappa * excess * product;
  slopes.cosine = -sine * product / norm;
  slopes.kappa = 8 * excess * square * product;
  return slopes;
}

#endif
