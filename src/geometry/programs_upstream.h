/* Row programs that compute what the published mixed-curvature transformer computes, with its shifts by 1e-9,
 * its clamps, its conformal factor of the wrong sign and its square root of it; and the flat programs of the
 * Euclidean twin.
 *
 * The published code has c = -kappa, clamped to [1e-4, 1] (gradient 1 inside and on the ends, 0 outside).
 *   ADD(x,y) = [ (1 + 2c<x,y> + c|y|^2) x + (1 - c|x|^2) y ] / (D + 1e-9),  D = 1 + 2c<x,y> + c^2|x|^2|y|^2
 *   LAM(x)   = 2 / (1 + c|x|^2 + 1e-9)
 *   EXP(r,v) = ADD(r, tanh(sqrt(c LAM(r) |v|^2 / 2 + 1e-9)) v / ((s + 1e-9)(n + 1e-9)))
 *   LOG(r,x) = K artanh(min(arg, 0.9999)) w / (m + 1e-9),  w = ADD(-r, x),  K = 2 / (LAM(r) s + 1e-9)
 * with s = sqrt(c + 1e-9), n = sqrt(|v|^2 + 1e-9), m = sqrt(|w|^2 + 1e-9), and arg = s m per head or
 * sqrt(c|w|^2 + 1e-9) for one curvature.  LOG reports an event when its clamp acts or r lies outside the
 * ball. */
#ifndef KAPPA_GEOMETRY_PROGRAMS_UPSTREAM_H
#define KAPPA_GEOMETRY_PROGRAMS_UPSTREAM_H

#include "geometry/real.h"

/* c, and the derivative of the clamped c with respect to kappa. */
typedef struct kp_upstream_curvature {
  kp_real c;
  kp_real by_kappa;
} kp_upstream_curvature;

KP_HD static inline kp_upstream_curvature kp_upstream_curvature_of(kp_real kappa) {
  kp_upstream_curvature curvature;
  int inside = -kappa >= KP_UPSTREAM_CURVATURE_MIN && -kappa <= KP_UPSTREAM_CURVATURE_MAX;
  curvature.c = kp_min(kp_max(-kappa, KP_UPSTREAM_CURVATURE_MIN), KP_UPSTREAM_CURVATURE_MAX);
  curvature.by_kappa = inside ? -1 : 0;
  return curvature;
}

/* ADD(x, y) = first x + second y; bars are added. */
typedef struct kp_upstream_sum {
  kp_real first, second, denominator;
} kp_upstream_sum;

typedef struct kp_upstream_bar {
  kp_real xx, xy, yy, c;
} kp_upstream_bar;

KP_HD static inline kp_upstream_sum kp_upstream_sum_of(kp_real xx, kp_real xy, kp_real yy, kp_real c) {
  kp_upstream_sum sum;
  sum.denominator = 1 + 2 * c * xy + c * c * xx * yy + KP_UPSTREAM_EPSILON;
  sum.first = (1 + 2 * c * xy + c * yy) / sum.denominator;
  sum.second = (1 - c * xx) / sum.denominator;
  return sum;
}

KP_HD static inline void kp_upstream_sum_backward(const kp_upstream_sum *sum, kp_real xx, kp_real xy,
                                                  kp_real yy, kp_real c, kp_real first_bar,
                                                  kp_real second_bar, kp_upstream_bar *bar) {
  kp_real f = first_bar / sum->denominator, s = second_bar / sum->denominator;
  kp_real d = -(f * sum->first + s * sum->second);
  bar->xy += 2 * c * (f + d);
  bar->yy += c * f + c * c * xx * d;
  bar->xx += -c * s + c * c * yy * d;
  bar->c += (2 * xy + yy) * f - xx * s + 2 * (xy + c * xx * yy) * d;
}

/* upstream_add: ADD(x, y) over (x, y). */
KP_HD static inline int kp_upstream_add_forward(const kp_real *gram, kp_real kappa, kp_real p,
                                                kp_real *coefficients) {
  (void)p;
  kp_upstream_sum sum = kp_upstream_sum_of(gram[0], gram[1], gram[2], kp_upstream_curvature_of(kappa).c);
  coefficients[0] = sum.first;
  coefficients[1] = sum.second;
  return 0;
}

KP_HD static inline void kp_upstream_add_backward(const kp_real *gram, kp_real kappa, kp_real p,
                                                  const kp_real *coefficients_bar, kp_real *gram_bar,
                                                  kp_real *kappa_bar, kp_real *p_bar) {
  (void)p;
  kp_upstream_curvature curvature = kp_upstream_curvature_of(kappa);
  kp_upstream_sum sum = kp_upstream_sum_of(gram[0], gram[1], gram[2], curvature.c);
  kp_upstream_bar bar = {0, 0, 0, 0};
  kp_upstream_sum_backward(&sum, gram[0], gram[1], gram[2], curvature.c, coefficients_bar[0],
                           coefficients_bar[1], &bar);
  gram_bar[0] = bar.xx;
  gram_bar[1] = bar.xy;
  gram_bar[2] = bar.yy;
  *kappa_bar = bar.c * curvature.by_kappa;
  *p_bar = 0;
}

/* EXP(r, v) = first r + along v, from rr, rv, vv. */
typedef struct kp_upstream_exp {
  kp_real conformal;           /* LAM(r) */
  kp_real root, length, angle; /* s, n, and the argument of tanh */
  kp_real tangent, factor;     /* tanh(angle), and the factor of v before ADD */
  kp_upstream_sum sum;
  kp_real along;
} kp_upstream_exp;

KP_HD static inline kp_upstream_exp kp_upstream_exp_of(kp_real rr, kp_real rv, kp_real vv, kp_real c) {
  kp_upstream_exp map;
  map.conformal = 2 / (1 + c * rr + KP_UPSTREAM_EPSILON);
  map.root = kp_sqrt(c + KP_UPSTREAM_EPSILON);
  map.length = kp_sqrt(vv + KP_UPSTREAM_EPSILON);
  map.angle = kp_sqrt(c * map.conformal * vv / 2 + KP_UPSTREAM_EPSILON);
  map.tangent = kp_tanh(map.angle);
  map.factor = map.tangent / ((map.root + KP_UPSTREAM_EPSILON) * (map.length + KP_UPSTREAM_EPSILON));
  map.sum = kp_upstream_sum_of(rr, map.factor * rv, map.factor * map.factor * vv, c);
  map.along = map.sum.second * map.factor;
  return map;
}

/* bar: xx is rr, xy is rv, yy is vv. */
KP_HD static inline void kp_upstream_exp_map_backward(const kp_upstream_exp *map, kp_real rr, kp_real rv,
                                                      kp_real vv, kp_real c, kp_real first_bar,
                                                      kp_real along_bar, kp_upstream_bar *bar) {
  kp_upstream_bar inner = {0, 0, 0, 0};
  kp_real t = map->factor;
  kp_upstream_sum_backward(&map->sum, rr, t * rv, t * t * vv, c, first_bar, along_bar * t, &inner);
  kp_real factor_bar = along_bar * map->sum.second + inner.xy * rv + inner.yy * 2 * t * vv;
  bar->xx += inner.xx;
  bar->xy += inner.xy * t;
  bar->yy += inner.yy * t * t;
  bar->c += inner.c;
  /* 1 - tanh^2 from exp, because the difference is 0 in the number type for large arguments. */
  kp_real e = kp_exp(-2 * map->angle);
  kp_real slope = 4 * e / ((1 + e) * (1 + e));
  kp_real tangent_bar =
      factor_bar / ((map->root + KP_UPSTREAM_EPSILON) * (map->length + KP_UPSTREAM_EPSILON));
  kp_real q_bar = tangent_bar * slope / (2 * map->angle); /* q = c LAM |v|^2 / 2 */
  bar->yy += q_bar * c * map->conformal / 2;
  bar->c += q_bar * map->conformal * vv / 2;
  kp_real conformal_bar = q_bar * c * vv / 2;
  bar->yy -= factor_bar * t / (map->length + KP_UPSTREAM_EPSILON) / (2 * map->length);
  bar->c -= factor_bar * t / (map->root + KP_UPSTREAM_EPSILON) / (2 * map->root);
  kp_real nominal_bar = -conformal_bar * map->conformal * map->conformal / 2;
  bar->c += nominal_bar * rr;
  bar->xx += nominal_bar * c;
}

/* upstream_exp: EXP(r, v) over (r, v). */
KP_HD static inline int kp_upstream_exp_forward(const kp_real *gram, kp_real kappa, kp_real p,
                                                kp_real *coefficients) {
  (void)p;
  kp_upstream_exp map = kp_upstream_exp_of(gram[0], gram[1], gram[2], kp_upstream_curvature_of(kappa).c);
  coefficients[0] = map.sum.first;
  coefficients[1] = map.along;
  return 0;
}

KP_HD static inline void kp_upstream_exp_backward(const kp_real *gram, kp_real kappa, kp_real p,
                                                  const kp_real *coefficients_bar, kp_real *gram_bar,
                                                  kp_real *kappa_bar, kp_real *p_bar) {
  (void)p;
  kp_upstream_curvature curvature = kp_upstream_curvature_of(kappa);
  kp_upstream_exp map = kp_upstream_exp_of(gram[0], gram[1], gram[2], curvature.c);
  kp_upstream_bar bar = {0, 0, 0, 0};
  kp_upstream_exp_map_backward(&map, gram[0], gram[1], gram[2], curvature.c, coefficients_bar[0],
                               coefficients_bar[1], &bar);
  gram_bar[0] = bar.xx;
  gram_bar[1] = bar.xy;
  gram_bar[2] = bar.yy;
  *kappa_bar = bar.c * curvature.by_kappa;
  *p_bar = 0;
}

/* LOG(r, x) = factor (A e - c E r) over (r, e = x - r), A = 1 - c|r|^2, E = |e|^2: what ADD(-r, x) is up to
 * rounding, without the cancellation of two nearly equal coefficients. */
typedef struct kp_upstream_log {
  kp_real a, denominator, shifted; /* A, D, D + 1e-9 */
  kp_real conformal, root;         /* LAM(r), s */
  kp_real square, length;          /* |w|^2 = E D / (D + 1e-9)^2, m */
  kp_real argument, distance;      /* arg and its artanh */
  kp_real weight;                  /* K artanh(arg) / (m + 1e-9) */
  kp_real factor;                  /* weight / (D + 1e-9) */
  int clamped;
} kp_upstream_log;

KP_HD static inline kp_upstream_log kp_upstream_log_of(const kp_real *gram, kp_real c, int per_head) {
  kp_upstream_log map;
  map.a = 1 - c * gram[0];
  map.denominator = map.a * map.a - 2 * c * gram[1] * map.a + c * c * gram[0] * gram[2];
  map.shifted = map.denominator + KP_UPSTREAM_EPSILON;
  map.conformal = 2 / (1 + c * gram[0] + KP_UPSTREAM_EPSILON);
  map.root = kp_sqrt(c + KP_UPSTREAM_EPSILON);
  map.square = kp_max(gram[2] * map.denominator / map.shifted / map.shifted, 0);
  map.length = kp_sqrt(map.square + KP_UPSTREAM_EPSILON);
  map.argument = per_head ? map.root * map.length : kp_sqrt(c * map.square + KP_UPSTREAM_EPSILON);
  map.clamped = map.argument > KP_UPSTREAM_ARGUMENT_LIMIT;
  if (map.clamped) map.argument = KP_UPSTREAM_ARGUMENT_LIMIT;
  map.distance = (kp_real)0.5 * kp_log1p(2 * map.argument / (1 - map.argument));
  kp_real gain = 2 / (map.conformal * map.root + KP_UPSTREAM_EPSILON);
  map.weight = gain * map.distance / (map.length + KP_UPSTREAM_EPSILON);
  map.factor = map.weight / map.shifted;
  return map;
}

KP_HD static inline int kp_upstream_log_forward(const kp_real *gram, kp_real kappa, int per_head,
                                                kp_real *coefficients) {
  kp_real c = kp_upstream_curvature_of(kappa).c;
  kp_upstream_log map = kp_upstream_log_of(gram, c, per_head);
  coefficients[0] = -map.factor * c * gram[2];
  coefficients[1] = map.factor * map.a;
  return map.clamped || !(map.a > 0);
}

KP_HD static inline void kp_upstream_log_backward(const kp_real *gram, kp_real kappa, int per_head,
                                                  const kp_real *coefficients_bar, kp_real *gram_bar,
                                                  kp_real *kappa_bar) {
  kp_upstream_curvature curvature = kp_upstream_curvature_of(kappa);
  kp_real c = curvature.c;
  kp_upstream_log map = kp_upstream_log_of(gram, c, per_head);
  kp_real factor_bar = -coefficients_bar[0] * c * gram[2] + coefficients_bar[1] * map.a;
  kp_real a_bar = coefficients_bar[1] * map.factor;
  kp_real c_bar = -coefficients_bar[0] * map.factor * gram[2];
  kp_real e_bar = -coefficients_bar[0] * map.factor * c;
  kp_real weight_bar = factor_bar / map.shifted;
  kp_real d_bar = -factor_bar * map.factor / map.shifted;
  /* weight = K artanh(arg) / (m + 1e-9) */
  kp_real scaled = map.length + KP_UPSTREAM_EPSILON, nominal = map.conformal * map.root + KP_UPSTREAM_EPSILON;
  kp_real length_bar = -weight_bar * map.weight / scaled;
  kp_real nominal_bar = -weight_bar * map.weight / nominal;
  kp_real conformal_bar = nominal_bar * map.root, root_bar = nominal_bar * map.conformal;
  kp_real argument_bar =
      map.clamped ? 0 : weight_bar * 2 / (nominal * scaled) / (1 - map.argument * map.argument);
  kp_real square_bar = 0;
  if (per_head) {
    length_bar += argument_bar * map.root;
    root_bar += argument_bar * map.length;
  } else {
    square_bar += argument_bar * c / (2 * map.argument);
    c_bar += argument_bar * map.square / (2 * map.argument);
  }
  square_bar += length_bar / (2 * map.length);
  c_bar += root_bar / (2 * map.root);
  kp_real q_bar = -conformal_bar * map.conformal * map.conformal / 2; /* of c|r|^2 in LAM */
  /* |w|^2 = E D / (D + 1e-9)^2 */
  e_bar += square_bar * map.denominator / map.shifted / map.shifted;
  d_bar +=
      square_bar * gram[2] * ((map.shifted - 2 * map.denominator) / map.shifted) / map.shifted / map.shifted;
  /* D = A^2 - 2 c <r,e> A + c^2 |r|^2 E */
  a_bar += d_bar * 2 * (map.a - c * gram[1]);
  c_bar += d_bar * 2 * (c * gram[0] * gram[2] - gram[1] * map.a) + q_bar * gram[0] - a_bar * gram[0];
  gram_bar[0] = d_bar * c * c * gram[2] + q_bar * c - a_bar * c;
  gram_bar[1] = -d_bar * 2 * c * map.a;
  gram_bar[2] = e_bar + d_bar * c * c * gram[0];
  *kappa_bar = c_bar * curvature.by_kappa;
}

/* upstream_log_scalar: LOG with one curvature for the whole width, over (r, e = x - r). */
KP_HD static inline int kp_upstream_log_scalar_forward(const kp_real *gram, kp_real kappa, kp_real p,
                                                       kp_real *coefficients) {
  (void)p;
  return kp_upstream_log_forward(gram, kappa, 0, coefficients);
}
KP_HD static inline void kp_upstream_log_scalar_backward(const kp_real *gram, kp_real kappa, kp_real p,
                                                         const kp_real *coefficients_bar, kp_real *gram_bar,
                                                         kp_real *kappa_bar, kp_real *p_bar) {
  (void)p;
  kp_upstream_log_backward(gram, kappa, 0, coefficients_bar, gram_bar, kappa_bar);
  *p_bar = 0;
}

/* upstream_log_per_head: LOG with a curvature per head, over (r, e = x - r). */
KP_HD static inline int kp_upstream_log_per_head_forward(const kp_real *gram, kp_real kappa, kp_real p,
                                                         kp_real *coefficients) {
  (void)p;
  return kp_upstream_log_forward(gram, kappa, 1, coefficients);
}
KP_HD static inline void kp_upstream_log_per_head_backward(const kp_real *gram, kp_real kappa, kp_real p,
                                                           const kp_real *coefficients_bar, kp_real *gram_bar,
                                                           kp_real *kappa_bar, kp_real *p_bar) {
  (void)p;
  kp_upstream_log_backward(gram, kappa, 1, coefficients_bar, gram_bar, kappa_bar);
  *p_bar = 0;
}

/* upstream_update: ADD(x, EXP(r, u)) over (x, r, u). */
typedef struct kp_upstream_update_state {
  kp_upstream_exp map;
  kp_real xy, yy; /* <x, y>, |y|^2 with y = EXP(r, u) */
  kp_upstream_sum sum;
} kp_upstream_update_state;

KP_HD static inline kp_upstream_update_state kp_upstream_update_of(const kp_real *gram, kp_real c) {
  kp_upstream_update_state state;
  state.map = kp_upstream_exp_of(gram[3], gram[4], gram[5], c);
  kp_real al = state.map.sum.first, be = state.map.along;
  state.xy = al * gram[1] + be * gram[2];
  state.yy = al * al * gram[3] + 2 * al * be * gram[4] + be * be * gram[5];
  state.sum = kp_upstream_sum_of(gram[0], state.xy, state.yy, c);
  return state;
}

KP_HD static inline int kp_upstream_update_forward(const kp_real *gram, kp_real kappa, kp_real p,
                                                   kp_real *coefficients) {
  (void)p;
  kp_upstream_update_state state = kp_upstream_update_of(gram, kp_upstream_curvature_of(kappa).c);
  coefficients[0] = state.sum.first;
  coefficients[1] = state.sum.second * state.map.sum.first;
  coefficients[2] = state.sum.second * state.map.along;
  return 0;
}

KP_HD static inline void kp_upstream_update_backward(const kp_real *gram, kp_real kappa, kp_real p,
                                                     const kp_real *coefficients_bar, kp_real *gram_bar,
                                                     kp_real *kappa_bar, kp_real *p_bar) {
  (void)p;
  kp_upstream_curvature curvature = kp_upstream_curvature_of(kappa);
  kp_real c = curvature.c;
  kp_upstream_update_state state = kp_upstream_update_of(gram, c);
  kp_real al = state.map.sum.first, be = state.map.along;
  kp_upstream_bar outer = {0, 0, 0, 0}, inner = {0, 0, 0, 0};
  kp_upstream_sum_backward(&state.sum, gram[0], state.xy, state.yy, c, coefficients_bar[0],
                           coefficients_bar[1] * al + coefficients_bar[2] * be, &outer);
  kp_real al_bar = coefficients_bar[1] * state.sum.second + outer.xy * gram[1] +
                   outer.yy * 2 * (al * gram[3] + be * gram[4]);
  kp_real be_bar = coefficients_bar[2] * state.sum.second + outer.xy * gram[2] +
                   outer.yy * 2 * (al * gram[4] + be * gram[5]);
  kp_upstream_exp_map_backward(&state.map, gram[3], gram[4], gram[5], c, al_bar, be_bar, &inner);
  gram_bar[0] = outer.xx;
  gram_bar[1] = outer.xy * al;
  gram_bar[2] = outer.xy * be;
  gram_bar[3] = inner.xx + outer.yy * al * al;
  gram_bar[4] = inner.xy + outer.yy * 2 * al * be;
  gram_bar[5] = inner.yy + outer.yy * be * be;
  *kappa_bar = (outer.c + inner.c) * curvature.by_kappa;
  *p_bar = 0;
}

/* flat_add: x + u over (x, u). */
KP_HD static inline int kp_flat_add_forward(const kp_real *gram, kp_real kappa, kp_real p,
                                            kp_real *coefficients) {
  (void)gram, (void)kappa, (void)p;
  coefficients[0] = 1;
  coefficients[1] = 1;
  return 0;
}

/* flat_bounded: tau(kappa |x + u|^2) (x + u) over (x, u).  For kappa < 0 the sum is a flat one and stays in
 * the ball of the curved stream: what of a curved residual is its bound.  kappa = 0 is flat_add. */
KP_HD static inline int kp_flat_bounded_forward(const kp_real *gram, kp_real kappa, kp_real p,
                                                kp_real *coefficients) {
  (void)p;
  kp_radial radial = kp_radial_of(kappa * kp_max(gram[0] + 2 * gram[1] + gram[2], 0));
  coefficients[0] = radial.ratio;
  coefficients[1] = radial.ratio;
  return radial.clamped;
}

KP_HD static inline void kp_flat_bounded_backward(const kp_real *gram, kp_real kappa, kp_real p,
                                                  const kp_real *coefficients_bar, kp_real *gram_bar,
                                                  kp_real *kappa_bar, kp_real *p_bar) {
  (void)p;
  kp_real square = kp_max(gram[0] + 2 * gram[1] + gram[2], 0);
  kp_real z_bar = (coefficients_bar[0] + coefficients_bar[1]) * kp_radial_of(kappa * square).ratio_derivative;
  gram_bar[0] = kappa * z_bar;
  gram_bar[1] = 2 * kappa * z_bar;
  gram_bar[2] = kappa * z_bar;
  *kappa_bar = square * z_bar;
  *p_bar = 0;
}

/* flat_difference: x - r over (r, e = x - r). */
KP_HD static inline int kp_flat_difference_forward(const kp_real *gram, kp_real kappa, kp_real p,
                                                   kp_real *coefficients) {
  (void)gram, (void)kappa, (void)p;
  coefficients[0] = 0;
  coefficients[1] = 1;
  return 0;
}

/* Sum and difference have constant coefficients. */
KP_HD static inline void kp_flat_backward(const kp_real *gram, kp_real kappa, kp_real p,
                                          const kp_real *coefficients_bar, kp_real *gram_bar,
                                          kp_real *kappa_bar, kp_real *p_bar) {
  (void)gram, (void)kappa, (void)p, (void)coefficients_bar;
  for (int i = 0; i < 3; i++) gram_bar[i] = 0;
  *kappa_bar = 0;
  *p_bar = 0;
}

#endif
