/* The score of geometric attention: minus a geodesic distance, without poles and without division.
 *
 * Queries and keys are tangent vectors u at 0 of a space of curvature kappa.  With rho^2 = |u|^2, z = kappa
 * rho^2: m = S(z) u,   c = C(z),   alpha = |m|^2          (c^2 + kappa alpha = 1) and for a pair, G = <m_i,
 * m_j>: w = alpha_i c_j^2 + c_i^2 alpha_j - 2 c_i c_j G = |c_j m_i - c_i m_j|^2 = sin_kappa^2(d / 2) d = 2
 * sqrt(w) phi(kappa w) which is the distance of exp_0(u_i) and exp_0(u_j) (power 1) and its square 4 w phi^2
 * (power 2).  At kappa = 0 it is 2|u_i - u_j|.  alpha must be the squared norm of the m that enters G, so
 * that rounding m does no harm.
 *
 * Backward of a pair gives the gradients of G, alpha and c; those of alpha are folded into m by
 * m_bar += 2 alpha_bar m; then the row's backward leads to u and kappa. */
#ifndef KAPPA_GEOMETRY_GEODESIC_SCORE_H
#define KAPPA_GEOMETRY_GEODESIC_SCORE_H

#include "geometry/functions.h"

/* kappa = 2 tanh(theta): the bounded curvature of a head, and d kappa / d theta = 2 - kappa^2 / 2. */
KP_HD static inline kp_real kp_bounded_curvature(kp_real theta) {
  return 2 * kp_tanh(theta);
}
KP_HD static inline kp_real kp_bounded_curvature_derivative(kp_real kappa) {
  return 2 - kappa * kappa / 2;
}

/* What a row contributes: m = scale u, c, alpha. */
typedef struct kp_geodesic_row {
  kp_real scale;
  kp_real cosine;
  kp_real alpha;
  int clamped; /* the row was shortened to KP_SINE_LIMIT */
} kp_geodesic_row;

KP_HD static inline kp_geodesic_row kp_geodesic_row_of(kp_real square, kp_real kappa) {
  kp_sine_cosine both = kp_sine_cosine_of(kappa * square);
  kp_geodesic_row row;
  row.scale = both.sine_ratio.value;
  row.cosine = both.cosine.value;
  row.alpha = row.scale * row.scale * square;
  row.clamped = both.clamped;
  return row;
}

/* From <m_bar, u> and cosine_bar: returns z_bar with u_bar = scale m_bar + 2 kappa z_bar u; adds to
 * *kappa_bar. */
KP_HD static inline kp_real kp_geodesic_row_backward(kp_real square, kp_real kappa, kp_real m_bar_u,
                                                     kp_real cosine_bar, kp_real *kappa_bar) {
  kp_sine_cosine both = kp_sine_cosine_of(kappa * square);
  kp_real z_bar = m_bar_u * both.sine_ratio.derivative + cosine_bar * both.cosine.derivative;
  *kappa_bar += square * z_bar;
  return z_bar;
}

/* The distance (power 1) or its square (power 2) of a pair, and its partial derivatives. */
typedef struct kp_geodesic_pair {
  kp_real sine_square; /* w */
  kp_real distance;
  kp_real by_sine_square;
  kp_real by_kappa; /* at fixed w */
} kp_geodesic_pair;

/* From w before its floor. */
KP_HD static inline kp_geodesic_pair kp_geodesic_pair_at(kp_real w, kp_real kappa, int power) {
  kp_geodesic_pair pair;
  w = kp_max(w, 0) + KP_SCORE_EPSILON;
  kp_real z = kappa * w, root = kp_sqrt(w);
  kp_real cut_root = kp_sqrt(kp_max(1 - z, KP_SCORE_CUT_FLOOR));
  kp_slope phi = kp_asin_ratio_both(z);
  if (1 - z < KP_SCORE_CUT_FLOOR) phi.derivative = (1 / cut_root - phi.value) / (2 * z);
  pair.sine_square = w;
  if (power == 1) {
    pair.distance = 2 * root * phi.value;
    pair.by_sine_square = 1 / (root * cut_root);
    pair.by_kappa = 2 * w * root * phi.derivative;
  } else {
    pair.distance = 4 * w * phi.value * phi.value;
    pair.by_sine_square = 4 * phi.value / cut_root;
    pair.by_kappa = 8 * w * w * phi.value * phi.derivative;
  }
  return pair;
}

KP_HD static inline kp_geodesic_pair kp_geodesic_pair_of(const kp_geodesic_row *i, const kp_geodesic_row *j,
                                                         kp_real inner, kp_real kappa, int power) {
  kp_real w =
      i->alpha * j->cosine * j->cosine + i->cosine * i->cosine * j->alpha - 2 * i->cosine * j->cosine * inner;
  return kp_geodesic_pair_at(w, kappa, power);
}

/* Gradients of a pair for distance_bar = 1 are these times distance_bar. */
typedef struct kp_geodesic_pair_slopes {
  kp_real inner;
  kp_real alpha_i, cosine_i;
  kp_real alpha_j, cosine_j;
  kp_real kappa;
} kp_geodesic_pair_slopes;

KP_HD static inline kp_geodesic_pair_slopes kp_geodesic_pair_backward(const kp_geodesic_pair *pair,
                                                                      const kp_geodesic_row *i,
                                                                      const kp_geodesic_row *j, kp_real inner,
                                                                      kp_real distance_bar) {
  kp_geodesic_pair_slopes slopes;
  kp_real w_bar = distance_bar * pair->by_sine_square;
  slopes.inner = -2 * i->cosine * j->cosine * w_bar;
  slopes.alpha_i = w_bar * j->cosine * j->cosine;
  slopes.alpha_j = w_bar * i->cosine * i->cosine;
  slopes.cosine_i = 2 * w_bar * (i->cosine * j->alpha - j->cosine * inner);
  slopes.cosine_j = 2 * w_bar * (j->cosine * i->alpha - i->cosine * inner);
  slopes.kappa = distance_bar * pair->by_kappa;
  return slopes;
}

#endif
