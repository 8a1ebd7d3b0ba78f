/* Row programs of the residual stream in log coordinates.
 *
 * A stream point x is stored as the tangent vector h = log_0(x) = exp_0^-1(x).  So no stored value can leave
 * the ball, the curvature may change from block to block without any work, and the complement
 * 1 + kappa|x|^2 = 1 / C(kappa|h|^2)^2 is exact however near the boundary x is.  r below is the log of the
 * reference point, u the output of a branch.  At kappa = 0 the updates are h + u (E1: h + r + u) and the
 * tangents are h - r, exactly.
 *
 *   update_e1            h' = log_0( x (+) exp_r(u) )
 *   update_e2            h' = log_0( exp_x(PT_{r->x} u) )
 *   update_e3            h' = log_0( x (+) exp_0(u) ) = log_0( exp_x(PT_{0->x} u) )
 *   tangent_log          z = log_r(x)
 *   tangent_transported  z = PT_{r->0} log_r(x) = log_0( (-r) (+) x )
 *
 * Identities: Ungar 2008; Bachmann et al. 2020, section 2. */
#ifndef KAPPA_GEOMETRY_PROGRAMS_RESIDUAL_H
#define KAPPA_GEOMETRY_PROGRAMS_RESIDUAL_H

#include "geometry/chains.h"

/* update_e3 over (h, u). */
typedef struct kp_update_e3_state {
  kp_radial h, u;
  kp_pair pair;
  kp_mobius sum;
  kp_atan_split psi;
} kp_update_e3_state;

KP_HD static inline kp_update_e3_state kp_update_e3_of(const kp_real *gram, kp_real kappa) {
  kp_update_e3_state state;
  state.h = kp_radial_of(kappa * gram[0]);
  state.u = kp_radial_of(kappa * gram[2]);
  kp_real th = state.h.ratio, tu = state.u.ratio;
  state.pair = kp_pair_of(th * th * gram[0], th * tu * gram[1], tu * tu * gram[2], state.h.complement,
                          state.u.complement, kappa);
  state.sum = kp_mobius_of(&state.pair, kappa);
  state.psi = kp_atan_ratio_split(kappa * state.sum.square, state.sum.complement);
  return state;
}

KP_HD static inline int kp_update_e3_forward(const kp_real *gram, kp_real kappa, kp_real p,
                                             kp_real *coefficients) {
  (void)p;
  kp_update_e3_state state = kp_update_e3_of(gram, kappa);
  coefficients[0] = state.psi.value * state.sum.first * state.h.ratio;
  coefficients[1] = state.psi.value * state.sum.second * state.u.ratio;
  return state.h.clamped || state.u.clamped || state.pair.floored;
}

KP_HD static inline void kp_update_e3_backward(const kp_real *gram, kp_real kappa, kp_real p,
                                               const kp_real *coefficients_bar, kp_real *gram_bar,
                                               kp_real *kappa_bar, kp_real *p_bar) {
  (void)p;
  kp_update_e3_state state = kp_update_e3_of(gram, kappa);
  kp_real th = state.h.ratio, tu = state.u.ratio, psi = state.psi.value;
  kp_real first_bar = coefficients_bar[0] * th, second_bar = coefficients_bar[1] * tu;
  kp_real psi_bar = first_bar * state.sum.first + second_bar * state.sum.second;
  kp_real z_bar = psi_bar * state.psi.by_z;
  kp_mobius_bar sum_bar = {first_bar * psi, second_bar * psi, psi_bar * state.psi.by_complement,
                           z_bar * kappa};
  kp_pair_bar bar = {0, 0, 0, 0, 0, 0, 0, 0};
  kp_mobius_backward(&state.pair, &state.sum, kappa, &sum_bar, &bar);
  kp_pair_backward(&state.pair, kappa, &bar);
  kp_real th_bar =
      coefficients_bar[0] * psi * state.sum.first + 2 * th * gram[0] * bar.xx + tu * gram[1] * bar.xy;
  kp_real tu_bar =
      coefficients_bar[1] * psi * state.sum.second + 2 * tu * gram[2] * bar.yy + th * gram[1] * bar.xy;
  kp_real zh_bar = th_bar * state.h.ratio_derivative + bar.x_complement * state.h.complement_derivative;
  kp_real zu_bar = tu_bar * state.u.ratio_derivative + bar.y_complement * state.u.complement_derivative;
  gram_bar[0] = th * th * bar.xx + kappa * zh_bar;
  gram_bar[1] = th * tu * bar.xy;
  gram_bar[2] = tu * tu * bar.yy + kappa * zu_bar;
  *kappa_bar = bar.kappa + z_bar * state.sum.square + gram[0] * zh_bar + gram[2] * zu_bar;
  *p_bar = 0;
}

/* The points behind (h, r, u): inner products of (x, p, u) with x = exp_0(h), p = exp_0(r). */
typedef struct kp_residual_points {
  kp_radial h, r;
  kp_real gram[6];
} kp_residual_points;

KP_HD static inline kp_residual_points kp_residual_points_of(const kp_real *gram, kp_real kappa) {
  kp_residual_points points;
  points.h = kp_radial_of(kappa * gram[0]);
  points.r = kp_radial_of(kappa * gram[3]);
  kp_real th = points.h.ratio, tr = points.r.ratio;
  points.gram[0] = th * th * gram[0];
  points.gram[1] = th * tr * gram[1];
  points.gram[2] = th * gram[2];
  points.gram[3] = tr * tr * gram[3];
  points.gram[4] = tr * gram[4];
  points.gram[5] = gram[5];
  return points;
}

/* Writes gram_bar and kappa_bar from the gradients of the points and of the ratios themselves. */
KP_HD static inline void kp_residual_points_backward(const kp_residual_points *points, const kp_real *gram,
                                                     kp_real kappa, const kp_triple_bar *bar, kp_real th_bar,
                                                     kp_real tr_bar, kp_real *gram_bar, kp_real *kappa_bar) {
  kp_real th = points->h.ratio, tr = points->r.ratio;
  th_bar += 2 * th * gram[0] * bar->gram[0] + tr * gram[1] * bar->gram[1] + gram[2] * bar->gram[2];
  tr_bar += 2 * tr * gram[3] * bar->gram[3] + th * gram[1] * bar->gram[1] + gram[4] * bar->gram[4];
  kp_real zh_bar = th_bar * points->h.ratio_derivative + bar->x_complement * points->h.complement_derivative;
  kp_real zr_bar = tr_bar * points->r.ratio_derivative + bar->p_complement * points->r.complement_derivative;
  gram_bar[0] = th * th * bar->gram[0] + kappa * zh_bar;
  gram_bar[1] = th * tr * bar->gram[1];
  gram_bar[2] = th * bar->gram[2];
  gram_bar[3] = tr * tr * bar->gram[3] + kappa * zr_bar;
  gram_bar[4] = tr * bar->gram[4];
  gram_bar[5] = bar->gram[5];
  *kappa_bar = bar->kappa + gram[0] * zh_bar + gram[3] * zr_bar;
}

/* h' = psi (c_x tau_h h + c_p tau_r r + c_u u) for a step with coefficients c. */
KP_HD static inline int kp_residual_forward(const kp_residual_points *points, const kp_step *step,
                                            kp_real kappa, kp_real *coefficients) {
  kp_real psi = kp_atan_ratio_split(kappa * step->square, step->complement).value;
  coefficients[0] = psi * step->coefficients[0] * points->h.ratio;
  coefficients[1] = psi * step->coefficients[1] * points->r.ratio;
  coefficients[2] = psi * step->coefficients[2];
  return step->event || points->h.clamped || points->r.clamped;
}

/* Fills the gradient of the step and of the two ratios; adds the part of kappa that psi sees. */
KP_HD static inline void kp_residual_backward(const kp_residual_points *points, const kp_step *step,
                                              kp_real kappa, const kp_real *coefficients_bar,
                                              kp_step_bar *out, kp_real *th_bar, kp_real *tr_bar,
                                              kp_real *kappa_bar) {
  kp_atan_split psi = kp_atan_ratio_split(kappa * step->square, step->complement);
  kp_real scaled[3] = {coefficients_bar[0] * points->h.ratio, coefficients_bar[1] * points->r.ratio,
                       coefficients_bar[2]};
  kp_real psi_bar = 0;
  for (int i = 0; i < 3; i++) {
    out->coefficients[i] = psi.value * scaled[i];
    psi_bar += scaled[i] * step->coefficients[i];
  }
  out->complement = psi_bar * psi.by_complement;
  out->square = psi_bar * psi.by_z * kappa;
  *kappa_bar += psi_bar * psi.by_z * step->square;
  *th_bar = coefficients_bar[0] * psi.value * step->coefficients[0];
  *tr_bar = coefficients_bar[1] * psi.value * step->coefficients[1];
}

/* update_e1 over (h, r, u). */
KP_HD static inline int kp_update_e1_forward(const kp_real *gram, kp_real kappa, kp_real p,
                                             kp_real *coefficients) {
  (void)p;
  kp_residual_points points = kp_residual_points_of(gram, kappa);
  kp_add_exp_chain chain = kp_add_exp_chain_of(points.gram, points.h.complement, points.r.complement, kappa);
  return kp_residual_forward(&points, &chain.step, kappa, coefficients);
}

KP_HD static inline void kp_update_e1_backward(const kp_real *gram, kp_real kappa, kp_real p,
                                               const kp_real *coefficients_bar, kp_real *gram_bar,
                                               kp_real *kappa_bar, kp_real *p_bar) {
  (void)p;
  kp_residual_points points = kp_residual_points_of(gram, kappa);
  kp_add_exp_chain chain = kp_add_exp_chain_of(points.gram, points.h.complement, points.r.complement, kappa);
  kp_step_bar out;
  kp_triple_bar bar = {{0, 0, 0, 0, 0, 0}, 0, 0, 0};
  kp_real th_bar, tr_bar;
  kp_residual_backward(&points, &chain.step, kappa, coefficients_bar, &out, &th_bar, &tr_bar, &bar.kappa);
  kp_add_exp_chain_backward(&chain, points.gram, points.r.complement, kappa, &out, &bar);
  kp_residual_points_backward(&points, gram, kappa, &bar, th_bar, tr_bar, gram_bar, kappa_bar);
  *p_bar = 0;
}

/* update_e2 over (h, r, u). */
KP_HD static inline int kp_update_e2_forward(const kp_real *gram, kp_real kappa, kp_real p,
                                             kp_real *coefficients) {
  (void)p;
  kp_residual_points points = kp_residual_points_of(gram, kappa);
  kp_transported_chain chain =
      kp_transported_chain_of(points.gram, points.h.complement, points.r.complement, kappa);
  return kp_residual_forward(&points, &chain.step, kappa, coefficients);
}

KP_HD static inline void kp_update_e2_backward(const kp_real *gram, kp_real kappa, kp_real p,
                                               const kp_real *coefficients_bar, kp_real *gram_bar,
                                               kp_real *kappa_bar, kp_real *p_bar) {
  (void)p;
  kp_residual_points points = kp_residual_points_of(gram, kappa);
  kp_transported_chain chain =
      kp_transported_chain_of(points.gram, points.h.complement, points.r.complement, kappa);
  kp_step_bar out;
  kp_triple_bar bar = {{0, 0, 0, 0, 0, 0}, 0, 0, 0};
  kp_real th_bar, tr_bar;
  kp_residual_backward(&points, &chain.step, kappa, coefficients_bar, &out, &th_bar, &tr_bar, &bar.kappa);
  kp_transported_chain_backward(&chain, points.gram, points.r.complement, kappa, &out, &bar);
  kp_residual_points_backward(&points, gram, kappa, &bar, th_bar, tr_bar, gram_bar, kappa_bar);
  *p_bar = 0;
}

/* Reference and stream in the basis (r, d = h - r).  The difference of the points is
 *   e = tau_h h - tau_r r = tau_h d + (tau_h - tau_r) r,
 * whose second part is formed without cancellation. */
typedef struct kp_residual_difference {
  kp_radial h, r;
  kp_real hh, rise; /* |h|^2, tau_h - tau_r */
  kp_real rise_by_kappa;
  kp_real square; /* |e|^2 */
  kp_difference_log log;
} kp_residual_difference;

KP_HD static inline kp_residual_difference kp_residual_difference_of(const kp_real *gram, kp_real kappa) {
  kp_residual_difference pair;
  kp_real step = 2 * gram[1] + gram[2];
  pair.hh = kp_max(gram[0] + step, 0);
  pair.h = kp_radial_of(kappa * pair.hh);
  pair.r = kp_radial_of(kappa * gram[0]);
  kp_tan_difference rise = kp_tan_ratio_difference(pair.hh, &pair.h, gram[0], &pair.r, step, kappa);
  pair.rise = rise.value;
  pair.rise_by_kappa = rise.by_kappa;
  kp_real th = pair.h.ratio;
  pair.square = th * th * gram[2] + 2 * th * pair.rise * gram[1] + pair.rise * pair.rise * gram[0];
  pair.square = kp_max(pair.square, 0);
  pair.log = kp_difference_log_of(pair.r.complement, pair.h.complement, pair.square, kappa);
  return pair;
}

KP_HD static inline int kp_residual_difference_event(const kp_residual_difference *pair) {
  return pair->h.clamped || pair->r.clamped || pair->log.floored;
}

/* The vector weight (A e + kappa |e|^2 p) in the basis (r, d), A the complement of p = exp_0(r). */
KP_HD static inline void kp_residual_tangent(const kp_residual_difference *pair, kp_real weight,
                                             kp_real kappa, kp_real *coefficients) {
  kp_real a = pair->r.complement;
  coefficients[0] = weight * (a * pair->rise + kappa * pair->square * pair->r.ratio);
  coefficients[1] = weight * a * pair->h.ratio;
}

/* Writes gram_bar and kappa_bar from the gradient of that vector, of the log's scale, and of A beside it. */
KP_HD static inline void kp_residual_tangent_backward(const kp_residual_difference *pair, kp_real weight,
                                                      const kp_real *gram, kp_real kappa,
                                                      const kp_real *coefficients_bar, kp_real scale_bar,
                                                      kp_real a_bar, kp_real *gram_bar, kp_real *kappa_bar) {
  kp_real a = pair->r.complement, th = pair->h.ratio;
  kp_real r_bar = coefficients_bar[0] * weight, d_bar = coefficients_bar[1] * weight;
  kp_difference_log_bar bar = {a_bar + r_bar * pair->rise + d_bar * th, 0, r_bar * kappa * pair->r.ratio,
                               r_bar * pair->square * pair->r.ratio};
  kp_difference_log_backward(&pair->log, a, pair->h.complement, kappa, scale_bar, 0, &bar);
  kp_real e = bar.difference;
  kp_real rise_bar = r_bar * a + 2 * e * (th * gram[1] + pair->rise * gram[0]);
  kp_real th_bar = d_bar * a + 2 * e * (th * gram[2] + pair->rise * gram[1]);
  kp_real tr_bar = r_bar * kappa * pair->square;
  kp_real zh_bar = th_bar * pair->h.ratio_derivative + bar.x_complement * pair->h.complement_derivative;
  kp_real zr_bar = tr_bar * pair->r.ratio_derivative + bar.p_complement * pair->r.complement_derivative;
  *kappa_bar = bar.kappa + zh_bar * pair->hh + zr_bar * gram[0] + rise_bar * pair->rise_by_kappa;
  zh_bar += rise_bar * pair->h.ratio_derivative;
  zr_bar -= rise_bar * pair->r.ratio_derivative;
  gram_bar[0] = e * pair->rise * pair->rise + kappa * (zh_bar + zr_bar);
  gram_bar[1] = 2 * e * th * pair->rise + 2 * kappa * zh_bar;
  gram_bar[2] = e * th * th + kappa * zh_bar;
}

/* tangent_log: log_r(x) over (r, d = h - r). */
KP_HD static inline int kp_tangent_log_forward(const kp_real *gram, kp_real kappa, kp_real p,
                                               kp_real *coefficients) {
  (void)p;
  kp_residual_difference pair = kp_residual_difference_of(gram, kappa);
  kp_residual_tangent(&pair, pair.r.complement * pair.log.scale, kappa, coefficients);
  return kp_residual_difference_event(&pair);
}

KP_HD static inline void kp_tangent_log_backward(const kp_real *gram, kp_real kappa, kp_real p,
                                                 const kp_real *coefficients_bar, kp_real *gram_bar,
                                                 kp_real *kappa_bar, kp_real *p_bar) {
  (void)p;
  kp_residual_difference pair = kp_residual_difference_of(gram, kappa);
  kp_real a = pair.r.complement, unit[2];
  kp_residual_tangent(&pair, 1, kappa, unit);
  kp_real weight_bar = coefficients_bar[0] * unit[0] + coefficients_bar[1] * unit[1];
  kp_residual_tangent_backward(&pair, a * pair.log.scale, gram, kappa, coefficients_bar, weight_bar * a,
                               weight_bar * pair.log.scale, gram_bar, kappa_bar);
  *p_bar = 0;
}

/* tangent_transported: PT_{r->0} log_r(x) over (r, d = h - r). */
KP_HD static inline int kp_tangent_transported_forward(const kp_real *gram, kp_real kappa, kp_real p,
                                                       kp_real *coefficients) {
  (void)p;
  kp_residual_difference pair = kp_residual_difference_of(gram, kappa);
  kp_residual_tangent(&pair, pair.log.scale, kappa, coefficients);
  return kp_residual_difference_event(&pair);
}

KP_HD static inline void kp_tangent_transported_backward(const kp_real *gram, kp_real kappa, kp_real p,
                                                         const kp_real *coefficients_bar, kp_real *gram_bar,
                                                         kp_real *kappa_bar, kp_real *p_bar) {
  (void)p;
  kp_residual_difference pair = kp_residual_difference_of(gram, kappa);
  kp_real unit[2];
  kp_residual_tangent(&pair, 1, kappa, unit);
  kp_real scale_bar = coefficients_bar[0] * unit[0] + coefficients_bar[1] * unit[1];
  kp_residual_tangent_backward(&pair, pair.log.scale, gram, kappa, coefficients_bar, scale_bar, 0, gram_bar,
                               kappa_bar);
  *p_bar = 0;
}

#endif
