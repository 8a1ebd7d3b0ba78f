/* Row programs on points: vectors are coordinates of the ball (kappa < 0), the plane (kappa = 0) or the
 * stereographic chart of the sphere (kappa > 0).  See geometry/row_program.h for what a row program is.
 *
 * Gram entries come in the order 11, 12, 22 or 11, 12, 13, 22, 23, 33 of the basis; programs marked
 * "difference" have v_m - v_1 as their last basis vector.  A forward returns 1 when a clamp acted.
 * A backward writes (never adds) its three results. */
#ifndef KAPPA_GEOMETRY_PROGRAMS_POINT_H
#define KAPPA_GEOMETRY_PROGRAMS_POINT_H

#include "geometry/chains.h"

/* The pair (x, y) of chart points: both complements from their squares. */
KP_HD static inline kp_pair kp_point_pair(kp_real xx, kp_real xy, kp_real yy, kp_real kappa, int *event) {
  kp_complement x = kp_complement_of(xx, kappa), y = kp_complement_of(yy, kappa);
  kp_pair pair = kp_pair_of(xx, xy, yy, x.value, y.value, kappa);
  *event = x.slope == 0 || y.slope == 0 || pair.floored;
  return pair;
}

KP_HD static inline void kp_point_pair_backward(const kp_pair *pair, kp_real kappa, kp_pair_bar *bar) {
  kp_pair_backward(pair, kappa, bar);
  kp_complement x = kp_complement_of(pair->xx, kappa), y = kp_complement_of(pair->yy, kappa);
  kp_complement_backward(&x, pair->xx, kappa, bar->x_complement, &bar->xx, &bar->kappa);
  kp_complement_backward(&y, pair->yy, kappa, bar->y_complement, &bar->yy, &bar->kappa);
}

/* add: x (+) y over (x, y). */
KP_HD static inline int kp_add_forward(const kp_real *gram, kp_real kappa, kp_real p, kp_real *coefficients) {
  (void)p;
  int event;
  kp_pair pair = kp_point_pair(gram[0], gram[1], gram[2], kappa, &event);
  kp_mobius sum = kp_mobius_of(&pair, kappa);
  coefficients[0] = sum.first;
  coefficients[1] = sum.second;
  return event;
}

KP_HD static inline void kp_add_backward(const kp_real *gram, kp_real kappa, kp_real p,
                                         const kp_real *coefficients_bar, kp_real *gram_bar,
                                         kp_real *kappa_bar, kp_real *p_bar) {
  (void)p;
  int event;
  kp_pair pair = kp_point_pair(gram[0], gram[1], gram[2], kappa, &event);
  kp_mobius sum = kp_mobius_of(&pair, kappa);
  kp_mobius_bar sum_bar = {coefficients_bar[0], coefficients_bar[1], 0, 0};
  kp_pair_bar bar = {0, 0, 0, 0, 0, 0, 0, 0};
  kp_mobius_backward(&pair, &sum, kappa, &sum_bar, &bar);
  kp_point_pair_backward(&pair, kappa, &bar);
  gram_bar[0] = bar.xx;
  gram_bar[1] = bar.xy;
  gram_bar[2] = bar.yy;
  *kappa_bar = bar.kappa;
  *p_bar = 0;
}

/* exp0: exp_0(u) = tau(kappa|u|^2) u over (u). */
KP_HD static inline int kp_exp0_forward(const kp_real *gram, kp_real kappa, kp_real p,
                                        kp_real *coefficients) {
  (void)p;
  kp_radial radial = kp_radial_of(kappa * gram[0]);
  coefficients[0] = radial.ratio;
  return radial.clamped || radial.complement < KP_COMPLEMENT_FLOOR;
}

KP_HD static inline void kp_exp0_backward(const kp_real *gram, kp_real kappa, kp_real p,
                                          const kp_real *coefficients_bar, kp_real *gram_bar,
                                          kp_real *kappa_bar, kp_real *p_bar) {
  (void)p;
  kp_real z_bar = coefficients_bar[0] * kp_tan_ratio_derivative(kappa * gram[0]);
  gram_bar[0] = kappa * z_bar;
  *kappa_bar = gram[0] * z_bar;
  *p_bar = 0;
}

/* log0: log_0(x) = psi(kappa|x|^2) x over (x). */
KP_HD static inline int kp_log0_forward(const kp_real *gram, kp_real kappa, kp_real p,
                                        kp_real *coefficients) {
  (void)p;
  coefficients[0] = kp_atan_ratio(kappa * gram[0]);
  return !(1 + kappa * gram[0] > KP_COMPLEMENT_FLOOR);
}

KP_HD static inline void kp_log0_backward(const kp_real *gram, kp_real kappa, kp_real p,
                                          const kp_real *coefficients_bar, kp_real *gram_bar,
                                          kp_real *kappa_bar, kp_real *p_bar) {
  (void)p;
  kp_real z_bar = coefficients_bar[0] * kp_atan_ratio_derivative(kappa * gram[0]);
  gram_bar[0] = kappa * z_bar;
  *kappa_bar = gram[0] * z_bar;
  *p_bar = 0;
}

/* exp: exp_p(u) over (p, u). */
KP_HD static inline int kp_exp_forward(const kp_real *gram, kp_real kappa, kp_real p, kp_real *coefficients) {
  (void)p;
  kp_complement complement = kp_complement_of(gram[0], kappa);
  kp_exp_chain chain = kp_exp_chain_of(gram[0], gram[1], gram[2], complement.value, kappa);
  coefficients[0] = chain.sum.first;
  coefficients[1] = chain.along;
  return complement.slope == 0 || kp_exp_chain_event(&chain);
}

KP_HD static inline void kp_exp_backward(const kp_real *gram, kp_real kappa, kp_real p,
                                         const kp_real *coefficients_bar, kp_real *gram_bar,
                                         kp_real *kappa_bar, kp_real *p_bar) {
  (void)p;
  kp_complement complement = kp_complement_of(gram[0], kappa);
  kp_exp_chain chain = kp_exp_chain_of(gram[0], gram[1], gram[2], complement.value, kappa);
  kp_mobius_bar out = {coefficients_bar[0], coefficients_bar[1], 0, 0};
  kp_exp_chain_bar bar = {0, 0, 0, 0, 0};
  kp_exp_chain_backward(&chain, gram[1], gram[2], complement.value, kappa, &out, &bar);
  kp_complement_backward(&complement, gram[0], kappa, bar.p_complement, &bar.pp, &bar.kappa);
  gram_bar[0] = bar.pp;
  gram_bar[1] = bar.pu;
  gram_bar[2] = bar.uu;
  *kappa_bar = bar.kappa;
  *p_bar = 0;
}

/* Two chart points in the basis (x, e = y - x): the logarithm between them. */
typedef struct kp_point_difference {
  kp_complement x, y;
  kp_real yy;
  kp_difference_log log;
} kp_point_difference;

KP_HD static inline kp_point_difference kp_point_difference_of(const kp_real *gram, kp_real kappa) {
  kp_point_difference points;
  points.yy = kp_max(gram[0] + 2 * gram[1] + gram[2], 0);
  points.x = kp_complement_of(gram[0], kappa);
  points.y = kp_complement_of(points.yy, kappa);
  points.log = kp_difference_log_of(points.x.value, points.y.value, gram[2], kappa);
  return points;
}

/* Writes gram_bar and kappa_bar from the gradient of (scale, square) and of x's complement. */
KP_HD static inline void kp_point_difference_backward(const kp_point_difference *points, const kp_real *gram,
                                                      kp_real kappa, kp_real scale_bar, kp_real square_bar,
                                                      kp_real x_complement_bar, kp_real *gram_bar,
                                                      kp_real *kappa_bar) {
  kp_difference_log_bar bar = {x_complement_bar, 0, 0, 0};
  kp_difference_log_backward(&points->log, points->x.value, points->y.value, kappa, scale_bar, square_bar,
                             &bar);
  kp_real xx_bar = 0, yy_bar = 0;
  kp_complement_backward(&points->x, gram[0], kappa, bar.p_complement, &xx_bar, &bar.kappa);
  kp_complement_backward(&points->y, points->yy, kappa, bar.x_complement, &yy_bar, &bar.kappa);
  gram_bar[0] = xx_bar + yy_bar;
  gram_bar[1] = 2 * yy_bar;
  gram_bar[2] = bar.difference + yy_bar;
  *kappa_bar = bar.kappa;
}

KP_HD static inline int kp_point_difference_event(const kp_point_difference *points) {
  return points->x.slope == 0 || points->y.slope == 0 || points->log.floored;
}

/* log: log_p(x) = A scale (A e + kappa E p) over (p, e = x - p). */
KP_HD static inline int kp_log_forward(const kp_real *gram, kp_real kappa, kp_real p, kp_real *coefficients) {
  (void)p;
  kp_point_difference points = kp_point_difference_of(gram, kappa);
  kp_real scale = points.x.value * points.log.scale;
  coefficients[0] = scale * kappa * gram[2];
  coefficients[1] = scale * points.x.value;
  return kp_point_difference_event(&points);
}

KP_HD static inline void kp_log_backward(const kp_real *gram, kp_real kappa, kp_real p,
                                         const kp_real *coefficients_bar, kp_real *gram_bar,
                                         kp_real *kappa_bar, kp_real *p_bar) {
  (void)p;
  kp_point_difference points = kp_point_difference_of(gram, kappa);
  kp_real a = points.x.value, scale = points.log.scale;
  kp_real product_bar = coefficients_bar[0] * kappa * gram[2] + coefficients_bar[1] * a; /* of A scale */
  kp_real a_bar = product_bar * scale + coefficients_bar[1] * a * scale;
  kp_point_difference_backward(&points, gram, kappa, product_bar * a, 0, a_bar, gram_bar, kappa_bar);
  gram_bar[2] += coefficients_bar[0] * a * scale * kappa;
  *kappa_bar += coefficients_bar[0] * a * scale * gram[2];
  *p_bar = 0;
}

/* distance: d(x, y) = 2 sqrt(W) phi(kappa W) over (x, e = y - x), W = E / (A B); derivative 0 at x = y. */
KP_HD static inline int kp_distance_forward(const kp_real *gram, kp_real kappa, kp_real p, kp_real *value) {
  (void)p;
  kp_point_difference points = kp_point_difference_of(gram, kappa);
  value[0] = 2 * kp_sqrt(points.log.square);
  return kp_point_difference_event(&points);
}

KP_HD static inline void kp_distance_backward(const kp_real *gram, kp_real kappa, kp_real p,
                                              const kp_real *value_bar, kp_real *gram_bar, kp_real *kappa_bar,
                                              kp_real *p_bar) {
  (void)p;
  kp_point_difference points = kp_point_difference_of(gram, kappa);
  kp_real root = kp_sqrt(points.log.square);
  kp_real square_bar = root > 0 ? value_bar[0] / root : 0;
  kp_point_difference_backward(&points, gram, kappa, 0, square_bar, 0, gram_bar, kappa_bar);
  *p_bar = 0;
}

/* distance_squared: d(x, y)^2 = 4 W phi(kappa W)^2 over (x, e = y - x), smooth at x = y. */
KP_HD static inline int kp_distance_squared_forward(const kp_real *gram, kp_real kappa, kp_real p,
                                                    kp_real *value) {
  (void)p;
  kp_point_difference points = kp_point_difference_of(gram, kappa);
  value[0] = 4 * points.log.square;
  return kp_point_difference_event(&points);
}

KP_HD static inline void kp_distance_squared_backward(const kp_real *gram, kp_real kappa, kp_real p,
                                                      const kp_real *value_bar, kp_real *gram_bar,
                                                      kp_real *kappa_bar, kp_real *p_bar) {
  (void)p;
  kp_point_difference points = kp_point_difference_of(gram, kappa);
  kp_point_difference_backward(&points, gram, kappa, 0, 4 * value_bar[0], 0, gram_bar, kappa_bar);
  *p_bar = 0;
}

/* geodesic: the point at time p on the geodesic from x (p = 0) to y (p = 1), over (x, e = y - x):
 * x (+) exp_0(p w) with w = log_0((-x) (+) y) = scale (A e + kappa E x) (Ungar). */
typedef struct kp_geodesic_state {
  kp_point_difference points;
  kp_real inner;    /* <x, A e + kappa E x> */
  kp_radial radial; /* of p w */
  kp_real length;   /* p tau scale, the factor of A e + kappa E x */
  kp_real square;   /* |exp_0(p w)|^2 */
  kp_pair pair;
  kp_mobius sum;
} kp_geodesic_state;

KP_HD static inline kp_geodesic_state kp_geodesic_of(const kp_real *gram, kp_real kappa, kp_real p) {
  kp_geodesic_state state;
  state.points = kp_point_difference_of(gram, kappa);
  const kp_difference_log *log = &state.points.log;
  kp_real a = state.points.x.value;
  state.inner = a * gram[1] + kappa * gram[2] * gram[0];
  state.radial = kp_radial_of(kappa * p * p * log->square);
  state.length = p * state.radial.ratio * log->scale;
  state.square = p * p * state.radial.ratio * state.radial.ratio * log->square;
  state.pair =
      kp_pair_of(gram[0], state.length * state.inner, state.square, a, state.radial.complement, kappa);
  state.sum = kp_mobius_of(&state.pair, kappa);
  return state;
}

KP_HD static inline int kp_geodesic_forward(const kp_real *gram, kp_real kappa, kp_real p,
                                            kp_real *coefficients) {
  kp_geodesic_state state = kp_geodesic_of(gram, kappa, p);
  kp_real along = state.sum.second * state.length;
  coefficients[0] = state.sum.first + along * kappa * gram[2];
  coefficients[1] = along * state.points.x.value;
  return kp_point_difference_event(&state.points) || state.radial.clamped || state.pair.floored;
}

KP_HD static inline void kp_geodesic_backward(const kp_real *gram, kp_real kappa, kp_real p,
                                              const kp_real *coefficients_bar, kp_real *gram_bar,
                                              kp_real *kappa_bar, kp_real *p_bar) {
  kp_geodesic_state state = kp_geodesic_of(gram, kappa, p);
  const kp_difference_log *log = &state.points.log;
  kp_real a = state.points.x.value, tau = state.radial.ratio;
  kp_real along = state.sum.second * state.length;
  kp_real along_bar = coefficients_bar[0] * kappa * gram[2] + coefficients_bar[1] * a;
  kp_mobius_bar sum_bar = {coefficients_bar[0], along_bar * state.length, 0, 0};
  kp_pair_bar pair_bar = {0, 0, 0, 0, 0, 0, 0, 0};
  kp_mobius_backward(&state.pair, &state.sum, kappa, &sum_bar, &pair_bar);
  kp_pair_backward(&state.pair, kappa, &pair_bar);
  kp_real length_bar = along_bar * state.sum.second + pair_bar.xy * state.inner;
  kp_real inner_bar = pair_bar.xy * state.length;
  kp_real tau_bar = length_bar * p * log->scale + pair_bar.yy * 2 * p * p * tau * log->square;
  kp_real z_bar =
      tau_bar * state.radial.ratio_derivative + pair_bar.y_complement * state.radial.complement_derivative;
  kp_real square_bar = pair_bar.yy * p * p * tau * tau + z_bar * kappa * p * p;
  kp_real a_bar = coefficients_bar[1] * along + inner_bar * gram[1] + pair_bar.x_complement;
  kp_point_difference_backward(&state.points, gram, kappa, length_bar * p * tau, square_bar, a_bar, gram_bar,
                               kappa_bar);
  gram_bar[0] += pair_bar.xx + inner_bar * kappa * gram[2];
  gram_bar[1] += inner_bar * a;
  gram_bar[2] += kappa * (coefficients_bar[0] * along + inner_bar * gram[0]);
  *kappa_bar += gram[2] * (coefficients_bar[0] * along + inner_bar * gram[0]) + pair_bar.kappa +
                z_bar * p * p * log->square;
  *p_bar = length_bar * tau * log->scale + 2 * p * log->square * (pair_bar.yy * tau * tau + z_bar * kappa);
}

/* gyration: gyr[x, y] v over (x, y, v) (Ungar). */
KP_HD static inline int kp_gyration_forward(const kp_real *gram, kp_real kappa, kp_real p,
                                            kp_real *coefficients) {
  (void)p;
  int event;
  kp_pair pair = kp_point_pair(gram[0], gram[1], gram[3], kappa, &event);
  kp_turn gyration = kp_turn_of(&pair, gram[2], gram[4], kappa);
  coefficients[0] = gyration.x_part;
  coefficients[1] = gyration.y_part;
  coefficients[2] = 1;
  return event;
}

KP_HD static inline void kp_gyration_backward(const kp_real *gram, kp_real kappa, kp_real p,
                                              const kp_real *coefficients_bar, kp_real *gram_bar,
                                              kp_real *kappa_bar, kp_real *p_bar) {
  (void)p;
  int event;
  kp_pair pair = kp_point_pair(gram[0], gram[1], gram[3], kappa, &event);
  kp_turn gyration = kp_turn_of(&pair, gram[2], gram[4], kappa);
  kp_pair_bar bar = {0, 0, 0, 0, 0, 0, 0, 0};
  gram_bar[2] = gram_bar[4] = gram_bar[5] = 0;
  kp_turn_backward(&pair, &gyration, gram[2], gram[4], kappa, coefficients_bar[0], coefficients_bar[1], &bar,
                   &gram_bar[2], &gram_bar[4]);
  kp_point_pair_backward(&pair, kappa, &bar);
  gram_bar[0] = bar.xx;
  gram_bar[1] = bar.xy;
  gram_bar[3] = bar.yy;
  *kappa_bar = bar.kappa;
  *p_bar = 0;
}

/* transport: parallel transport of v from x to y, gyr[y, -x] v lambda_x / lambda_y, over (x, y, v)
 * (Bachmann et al. 2020, section 2; Ungar). */
KP_HD static inline int kp_transport_forward(const kp_real *gram, kp_real kappa, kp_real p,
                                             kp_real *coefficients) {
  (void)p;
  int event;
  kp_pair pair = kp_point_pair(gram[3], -gram[1], gram[0], kappa, &event);
  kp_turn gyration = kp_turn_of(&pair, gram[4], -gram[2], kappa);
  kp_real factor = pair.x_complement / pair.y_complement;
  coefficients[0] = -factor * gyration.y_part;
  coefficients[1] = factor * gyration.x_part;
  coefficients[2] = factor;
  return event;
}

KP_HD static inline void kp_transport_backward(const kp_real *gram, kp_real kappa, kp_real p,
                                               const kp_real *coefficients_bar, kp_real *gram_bar,
                                               kp_real *kappa_bar, kp_real *p_bar) {
  (void)p;
  int event;
  kp_pair pair = kp_point_pair(gram[3], -gram[1], gram[0], kappa, &event);
  kp_turn gyration = kp_turn_of(&pair, gram[4], -gram[2], kappa);
  kp_real factor = pair.x_complement / pair.y_complement;
  kp_real factor_bar =
      -coefficients_bar[0] * gyration.y_part + coefficients_bar[1] * gyration.x_part + coefficients_bar[2];
  kp_pair_bar bar = {0, 0, 0, 0, 0, 0, 0, 0};
  kp_real yv_bar = 0, minus_xv_bar = 0;
  kp_turn_backward(&pair, &gyration, gram[4], -gram[2], kappa, coefficients_bar[1] * factor,
                   -coefficients_bar[0] * factor, &bar, &yv_bar, &minus_xv_bar);
  bar.x_complement += factor_bar / pair.y_complement;
  bar.y_complement -= factor_bar * factor / pair.y_complement;
  kp_point_pair_backward(&pair, kappa, &bar);
  gram_bar[0] = bar.yy;
  gram_bar[1] = -bar.xy;
  gram_bar[2] = -minus_xv_bar;
  gram_bar[3] = bar.xx;
  gram_bar[4] = yv_bar;
  gram_bar[5] = 0;
  *kappa_bar = bar.kappa;
  *p_bar = 0;
}

/* scalar_multiply: p (x) x = exp_0(p log_0(x)) = p psi tau(kappa p^2 psi^2 |x|^2) x over (x). */
KP_HD static inline int kp_scalar_multiply_forward(const kp_real *gram, kp_real kappa, kp_real p,
                                                   kp_real *coefficients) {
  kp_real psi = kp_atan_ratio(kappa * gram[0]);
  kp_radial radial = kp_radial_of(kappa * p * p * psi * psi * gram[0]);
  coefficients[0] = p * psi * radial.ratio;
  return radial.clamped || !(1 + kappa * gram[0] > KP_COMPLEMENT_FLOOR);
}

KP_HD static inline void kp_scalar_multiply_backward(const kp_real *gram, kp_real kappa, kp_real p,
                                                     const kp_real *coefficients_bar, kp_real *gram_bar,
                                                     kp_real *kappa_bar, kp_real *p_bar) {
  kp_slope psi = kp_atan_ratio_both(kappa * gram[0]);
  kp_real square = psi.value * psi.value * gram[0];
  kp_radial radial = kp_radial_of(kappa * p * p * square);
  kp_real z_bar = coefficients_bar[0] * p * psi.value * radial.ratio_derivative;
  kp_real square_bar = z_bar * kappa * p * p;
  kp_real psi_bar = coefficients_bar[0] * p * radial.ratio + square_bar * 2 * psi.value * gram[0];
  gram_bar[0] = square_bar * psi.value * psi.value + psi_bar * psi.derivative * kappa;
  *kappa_bar = z_bar * p * p * square + psi_bar * psi.derivative * gram[0];
  *p_bar = coefficients_bar[0] * psi.value * radial.ratio + z_bar * 2 * kappa * p * square;
}

/* project: x back into the ball of radius (1 - p) / sqrt(-kappa), over (x); identity inside and for kappa >=
 * 0. */
KP_HD static inline int kp_project_forward(const kp_real *gram, kp_real kappa, kp_real p,
                                           kp_real *coefficients) {
  kp_real relative = kp_sqrt(kp_max(-kappa * gram[0], 0)); /* |x| over the ball's radius */
  int outside = relative > 1 - p;
  coefficients[0] = outside ? (1 - p) / relative : 1;
  return outside;
}

KP_HD static inline void kp_project_backward(const kp_real *gram, kp_real kappa, kp_real p,
                                             const kp_real *coefficients_bar, kp_real *gram_bar,
                                             kp_real *kappa_bar, kp_real *p_bar) {
  kp_real relative = kp_sqrt(kp_max(-kappa * gram[0], 0));
  int outside = relative > 1 - p;
  kp_real half = outside ? (kp_real)-0.5 * coefficients_bar[0] * (1 - p) / relative : 0;
  gram_bar[0] = outside ? half / gram[0] : 0;
  *kappa_bar = outside ? half / kappa : 0;
  *p_bar = outside ? -coefficients_bar[0] / relative : 0;
}

/* add_exp: x (+) exp_p(u) over (x, p, u). */
KP_HD static inline int kp_add_exp_forward(const kp_real *gram, kp_real kappa, kp_real p,
                                           kp_real *coefficients) {
  (void)p;
  kp_complement x = kp_complement_of(gram[0], kappa), foot = kp_complement_of(gram[3], kappa);
  kp_add_exp_chain chain = kp_add_exp_chain_of(gram, x.value, foot.value, kappa);
  for (int i = 0; i < 3; i++) coefficients[i] = chain.step.coefficients[i];
  return chain.step.event || x.slope == 0 || foot.slope == 0;
}

KP_HD static inline void kp_add_exp_backward(const kp_real *gram, kp_real kappa, kp_real p,
                                             const kp_real *coefficients_bar, kp_real *gram_bar,
                                             kp_real *kappa_bar, kp_real *p_bar) {
  (void)p;
  kp_complement x = kp_complement_of(gram[0], kappa), foot = kp_complement_of(gram[3], kappa);
  kp_add_exp_chain chain = kp_add_exp_chain_of(gram, x.value, foot.value, kappa);
  kp_step_bar out = {{coefficients_bar[0], coefficients_bar[1], coefficients_bar[2]}, 0, 0};
  kp_triple_bar bar = {{0, 0, 0, 0, 0, 0}, 0, 0, 0};
  kp_add_exp_chain_backward(&chain, gram, foot.value, kappa, &out, &bar);
  kp_complement_backward(&x, gram[0], kappa, bar.x_complement, &bar.gram[0], &bar.kappa);
  kp_complement_backward(&foot, gram[3], kappa, bar.p_complement, &bar.gram[3], &bar.kappa);
  for (int i = 0; i < 6; i++) gram_bar[i] = bar.gram[i];
  *kappa_bar = bar.kappa;
  *p_bar = 0;
}

#endif
