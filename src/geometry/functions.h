/* The scalar functions of the kappa-stereographic model, as functions of z = kappa r^2.
 *
 *   tan ratio   tau(z) = tan_kappa(r) / r      tan s / s   (z = s^2)    tanh s / s   (z = -s^2)
 *   atan ratio  psi(z) = artan_kappa(r) / r    atan s / s               atanh s / s
 *   asin ratio  phi(z) = arsin_kappa(r) / r    asin s / s               asinh s / s
 *   sine ratio  S(z)   = sin_kappa(r) / r      sin s / s                sinh s / s
 *   cosine      C(z)   = cos_kappa(r)          cos s                    cosh s
 *
 * (Bachmann, Becigneul, Ganea 2020, section 2, and the trigonometry of constant curvature.)
 * All are analytic at z = 0, where hyperbolic space turns into a sphere: there is no square root
 * of |kappa| and no division by it.  Derivatives are with respect to z:
 *
 *   tau' = (1 + z tau^2 - tau) / 2z     psi' = (1/(1+z) - psi) / 2z     phi' = (1/sqrt(1-z) - phi) / 2z
 *   S'   = (C - S) / 2z                 C'   = -S / 2
 *
 * and as series below KP_SERIES_RADIUS, where these cancel.  tau stops at the pole of tan. */
#ifndef KAPPA_GEOMETRY_FUNCTIONS_H
#define KAPPA_GEOMETRY_FUNCTIONS_H

#include "geometry/real.h"

/* A function's value and its derivative with respect to z. */
typedef struct kp_slope {
  kp_real value;
  kp_real derivative;
} kp_slope;

/* A polynomial and its derivative by Horner's rule; c[i] multiplies z^i. */
KP_HD static inline kp_slope kp_polynomial(const kp_real *c, int count, kp_real z) {
  kp_slope result = {c[count - 1], 0};
  for (int i = count - 2; i >= 0; i--) {
    result.derivative = result.derivative * z + result.value;
    result.value = result.value * z + c[i];
  }
  return result;
}

KP_HD static inline kp_slope kp_tan_ratio_series(kp_real z) {
  const kp_real c[] = {(kp_real)1.0,
                       (kp_real)0.3333333333333333,
                       (kp_real)0.13333333333333333,
                       (kp_real)0.05396825396825397,
                       (kp_real)0.021869488536155203,
                       (kp_real)0.008863235529902197,
                       (kp_real)0.003592128036572481,
                       (kp_real)0.0014558343870513183,
                       (kp_real)0.000590027440945586,
                       (kp_real)0.00023912911424355248,
                       (kp_real)9.691537956929451e-05,
                       (kp_real)3.927832388331683e-05,
                       (kp_real)1.5918905069328964e-05,
                       (kp_real)6.451689215655431e-06};
  return kp_polynomial(c, 14, z);
}

KP_HD static inline kp_slope kp_atan_ratio_series(kp_real z) {
  const kp_real c[] = {(kp_real)1.0,      -(kp_real)1.0 / 3,  (kp_real)1.0 / 5,  -(kp_real)1.0 / 7,
                       (kp_real)1.0 / 9,  -(kp_real)1.0 / 11, (kp_real)1.0 / 13, -(kp_real)1.0 / 15,
                       (kp_real)1.0 / 17, -(kp_real)1.0 / 19, (kp_real)1.0 / 21, -(kp_real)1.0 / 23,
                       (kp_real)1.0 / 25, -(kp_real)1.0 / 27, (kp_real)1.0 / 29, -(kp_real)1.0 / 31,
                       (kp_real)1.0 / 33, -(kp_real)1.0 / 35};
  return kp_polynomial(c, 18, z);
}

KP_HD static inline kp_slope kp_asin_ratio_series(kp_real z) {
  const kp_real c[] = {(kp_real)1.0,
                       (kp_real)0.16666666666666666,
                       (kp_real)0.075,
                       (kp_real)0.044642857142857144,
                       (kp_real)0.030381944444444444,
                       (kp_real)0.022372159090909092,
                       (kp_real)0.017352764423076924,
                       (kp_real)0.01396484375,
                       (kp_real)0.011551800896139705,
                       (kp_real)0.009761609529194078,
                       (kp_real)0.008390335809616815,
                       (kp_real)0.0073125258735988454,
                       (kp_real)0.006447210311889649,
                       (kp_real)0.005740037670841924,
                       (kp_real)0.005153309682319905,
                       (kp_real)0.004660143486915096,
                       (kp_real)0.004240907093679363};
  return kp_polynomial(c, 17, z);
}

KP_HD static inline kp_slope kp_sine_ratio_series(kp_real z) {
  const kp_real c[] = {(kp_real)1.0,
                       -(kp_real)0.16666666666666666,
                       (kp_real)0.008333333333333333,
                       -(kp_real)0.0001984126984126984,
                       (kp_real)2.7557319223985893e-06,
                       -(kp_real)2.505210838544172e-08,
                       (kp_real)1.6059043836821613e-10,
                       -(kp_real)7.647163731819816e-13};
  return kp_polynomial(c, 8, z);
}

/* A tangent vector at 0 of squared norm r^2, seen as a point: the ratio tau(z) with
 * exp_0(u) = tau u, and the complement 1 + kappa |exp_0(u)|^2 = 1 / C(z)^2, which is exact where the
 * point itself has rounded onto the boundary.  Derivatives are with respect to z.
 * clamped is 1 when the pole (kappa > 0) or the limit of tanh (kappa < 0) acted; the
 * point then stays at the largest radius and the complement is constant. */
typedef struct kp_radial {
  kp_real ratio;
  kp_real ratio_derivative;
  kp_real complement;
  kp_real complement_derivative;
  int clamped;
} kp_radial;

KP_HD static inline kp_radial kp_radial_of(kp_real z) {
  kp_radial radial;
  radial.clamped = 0;
  if (kp_abs(z) < KP_SERIES_RADIUS) {
    kp_slope tau = kp_tan_ratio_series(z);
    radial.ratio = tau.value;
    radial.ratio_derivative = tau.derivative;
    radial.complement = 1 + z * tau.value * tau.value;
    radial.complement_derivative = tau.value * radial.complement;
    return radial;
  }
  kp_real s = kp_sqrt(kp_abs(z));
  if (kp_positive(z)) {
    radial.clamped = s > KP_TANGENT_POLE;
    kp_real tangent = kp_tan(kp_min(s, KP_TANGENT_POLE));
    radial.ratio = tangent / s;
    radial.complement = 1 + tangent * tangent;
  } else {
    radial.clamped = s > KP_TANGENT_LIMIT;
    kp_real e = kp_exp(-2 * kp_min(s, KP_TANGENT_LIMIT));
    radial.ratio = (1 - e) / ((1 + e) * s);
    radial.complement = 4 * e / ((1 + e) * (1 + e));
  }
  kp_real growth = radial.clamped ? 0 : radial.complement;
  radial.ratio_derivative = (growth - radial.ratio) / (2 * z);
  radial.complement_derivative = radial.ratio * growth;
  return radial;
}

KP_HD static inline kp_slope kp_tan_ratio_both(kp_real z) {
  kp_radial radial = kp_radial_of(z);
  kp_slope result = {radial.ratio, radial.ratio_derivative};
  return result;
}
KP_HD static inline kp_real kp_tan_ratio(kp_real z) {
  return kp_radial_of(z).ratio;
}
KP_HD static inline kp_real kp_tan_ratio_derivative(kp_real z) {
  return kp_radial_of(z).ratio_derivative;
}

/* tau(kappa t) - tau(kappa f) for t = f + step, and its derivative with respect to kappa, both accurate
 * relative to step.  Small arguments: the divided differences of the series.  Others: with T = s tau,
 * T_t - T_f = sin_kappa(s_t - s_f) / (C_t C_f) by the addition theorem, and z tau' = (1 + z tau^2 - tau) / 2.
 */
typedef struct kp_tan_difference {
  kp_real value;
  kp_real by_kappa;
} kp_tan_difference;

KP_HD static inline kp_tan_difference kp_tan_difference_series(kp_real to, kp_real from, kp_real step,
                                                               kp_real kappa) {
  const kp_real c[] = {
      (kp_real)0.3333333333333333,    (kp_real)0.13333333333333333,   (kp_real)0.05396825396825397,
      (kp_real)0.021869488536155203,  (kp_real)0.008863235529902197,  (kp_real)0.003592128036572481,
      (kp_real)0.0014558343870513183, (kp_real)0.000590027440945586,  (kp_real)0.00023912911424355248,
      (kp_real)9.691537956929451e-05, (kp_real)3.927832388331683e-05, (kp_real)1.5918905069328964e-05,
      (kp_real)6.451689215655431e-06};
  kp_tan_difference sum = {0, 0};
  kp_real divided = 1, power = 1; /* sum_j to^j from^(n-1-j), and from^(n-1) */
  for (int n = 1; n <= 13; n++) {
    sum.value += c[n - 1] * divided;
    sum.by_kappa += (kp_real)n * c[n - 1] * divided;
    power *= from;
    divided = divided * to + power;
  }
  sum.value *= kappa * step;
  sum.by_kappa *= step;
  return sum;
}

KP_HD static inline kp_tan_difference kp_tan_ratio_difference(kp_real t, const kp_radial *at_t, kp_real f,
                                                              const kp_radial *at_f, kp_real step,
                                                              kp_real kappa) {
  kp_real to = kappa * t, from = kappa * f;
  if (kp_max(kp_abs(to), kp_abs(from)) < KP_SERIES_RADIUS)
    return kp_tan_difference_series(to, from, step, kappa);
  kp_real limit = kp_positive(kappa) ? KP_TANGENT_POLE : KP_TANGENT_LIMIT;
  kp_real s_to = kp_sqrt(kp_abs(to)), s_from = kp_sqrt(kp_abs(from));
  kp_real gap = kp_abs(kappa) * step / (s_to + s_from);
  int clamped = at_t->clamped || at_f->clamped;
  kp_real inner = clamped ? kp_min(s_to, limit) - kp_min(s_from, limit) : gap;
  kp_real rise = (kp_positive(kappa) ? kp_sin(inner) : kp_sinh(inner)) * kp_sqrt(at_t->complement) *
                 kp_sqrt(at_f->complement);
  kp_tan_difference result;
  result.value = s_to > s_from ? (rise - at_f->ratio * gap) / s_to : (rise - at_t->ratio * gap) / s_from;
  if (clamped) {
    result.by_kappa = at_t->ratio_derivative * t - at_f->ratio_derivative * f;
  } else {
    kp_real growth =
        kappa * step * at_t->ratio * at_t->ratio + from * (at_t->ratio + at_f->ratio) * result.value;
    result.by_kappa = (growth - result.value) / (2 * kappa);
  }
  return result;
}

/* psi when the complement 1 + z is known by itself: near the ball's boundary z = -1 + complement has
 * lost it.  atanh(s) = log1p(s) - log(complement) / 2.  by_z and by_complement
 * are partial derivatives; their sum is psi'. */
typedef struct kp_atan_split {
  kp_real value;
  kp_real by_z;
  kp_real by_complement;
} kp_atan_split;

KP_HD static inline kp_atan_split kp_atan_ratio_split(kp_real z, kp_real complement) {
  kp_atan_split result;
  if (kp_abs(z) < KP_SERIES_RADIUS) {
    kp_slope psi = kp_atan_ratio_series(z);
    result.value = psi.value;
    result.by_z = psi.derivative;
    result.by_complement = 0;
    return result;
  }
  kp_real s = kp_sqrt(kp_abs(z));
  if (kp_positive(z)) {
    result.value = kp_atan(s) / s;
    result.by_z = (1 / (1 + z) - result.value) / (2 * z);
    result.by_complement = 0;
  } else {
    result.value = (kp_log1p(s) - (kp_real)0.5 * kp_log(complement)) / s;
    result.by_z = (1 / (1 + s) - result.value) / (2 * z);
    result.by_complement = (kp_real)-0.5 / (s * complement);
  }
  return result;
}

/* psi of a chart point; z stops short of -1 by KP_COMPLEMENT_FLOOR. */
KP_HD static inline kp_slope kp_atan_ratio_both(kp_real z) {
  kp_real complement = 1 + z;
  int inside = !(complement <= KP_COMPLEMENT_FLOOR); /* a NaN stays one */
  kp_atan_split split = kp_atan_ratio_split(z, inside ? complement : KP_COMPLEMENT_FLOOR);
  kp_slope result = {split.value, split.by_z + (inside ? split.by_complement : 0)};
  return result;
}
KP_HD static inline kp_real kp_atan_ratio(kp_real z) {
  return kp_atan_ratio_both(z).value;
}
KP_HD static inline kp_real kp_atan_ratio_derivative(kp_real z) {
  return kp_atan_ratio_both(z).derivative;
}

/* phi when the complement 1 - z > 0 is known by itself: near the cut locus (z = 1) asin has lost it. */
KP_HD static inline kp_slope kp_asin_ratio_complement(kp_real z, kp_real complement) {
  if (kp_abs(z) < KP_SERIES_RADIUS) return kp_asin_ratio_series(z);
  kp_real s = kp_sqrt(kp_abs(z)), root = kp_sqrt(complement);
  kp_slope result;
  result.value = (kp_positive(z) ? kp_atan2(s, root) : kp_asinh(s)) / s;
  result.derivative = (1 / root - result.value) / (2 * z);
  return result;
}
KP_HD static inline kp_slope kp_asin_ratio_both(kp_real z) {
  return kp_asin_ratio_complement(kp_min(z, 1), kp_max(1 - z, KP_REAL_EPSILON));
}
KP_HD static inline kp_real kp_asin_ratio(kp_real z) {
  return kp_asin_ratio_both(z).value;
}
KP_HD static inline kp_real kp_asin_ratio_derivative(kp_real z) {
  return kp_asin_ratio_both(z).derivative;
}

/* S and C together.  Beyond KP_SINE_LIMIT (kappa < 0) the vector stops growing: S falls as
 * 1/s, C is constant, and clamped is 1. */
typedef struct kp_sine_cosine {
  kp_slope sine_ratio;
  kp_slope cosine;
  int clamped;
} kp_sine_cosine;

KP_HD static inline kp_sine_cosine kp_sine_cosine_of(kp_real z) {
  kp_sine_cosine result;
  result.clamped = 0;
  if (kp_abs(z) < KP_SERIES_RADIUS) {
    result.sine_ratio = kp_sine_ratio_series(z);
    kp_real half = z / 4; /* cos s = 1 - 2 sin^2(s/2), and sin^2(s/2) = (z/4) S(z/4)^2 */
    kp_real sine = kp_sine_ratio_series(half).value;
    result.cosine.value = 1 - 2 * half * sine * sine;
    result.cosine.derivative = (kp_real)-0.5 * result.sine_ratio.value;
    return result;
  }
  kp_real s = kp_sqrt(kp_abs(z));
  result.clamped = z < 0 && s > KP_SINE_LIMIT;
  kp_real stop = kp_min(s, KP_SINE_LIMIT);
  result.sine_ratio.value = (kp_positive(z) ? kp_sin(s) : kp_sinh(stop)) / s;
  result.cosine.value = kp_positive(z) ? kp_cos(s) : kp_cosh(stop);
  kp_real growth = result.clamped ? 0 : result.cosine.value;
  result.sine_ratio.derivative = (growth - result.sine_ratio.value) / (2 * z);
  result.cosine.derivative = result.clamped ? 0 : (kp_real)-0.5 * result.sine_ratio.value;
  return result;
}
KP_HD static inline kp_slope kp_sine_ratio_both(kp_real z) {
  return kp_sine_cosine_of(z).sine_ratio;
}
KP_HD static inline kp_real kp_sine_ratio(kp_real z) {
  return kp_sine_cosine_of(z).sine_ratio.value;
}
KP_HD static inline kp_real kp_sine_ratio_derivative(kp_real z) {
  return kp_sine_cosine_of(z).sine_ratio.derivative;
}
KP_HD static inline kp_slope kp_cosine_both(kp_real z) {
  return kp_sine_cosine_of(z).cosine;
}
KP_HD static inline kp_real kp_cosine(kp_real z) {
  return kp_sine_cosine_of(z).cosine.value;
}
KP_HD static inline kp_real kp_cosine_derivative(kp_real z) {
  return kp_sine_cosine_of(z).cosine.derivative;
}

#endif
