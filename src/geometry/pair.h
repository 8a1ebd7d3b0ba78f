/* What two points of the kappa-stereographic model do to each other, as scalars.
 *
 * For points x, y everything is a function of their inner products, of kappa, and of the
 * complements A = 1 + kappa|x|^2 and B = 1 + kappa|y|^2.  Complements are arguments, because a caller may
 * know them better than 1 + kappa|x|^2 does near the boundary of the ball.  Each primitive has a _backward
 * which adds to a kp_pair_bar; kp_pair_backward comes last and carries that to the inputs.
 *
 * Ungar 2008, chapter 3; Bachmann et al. 2020, section 2.  For kappa <= 0 every quotient is
 * written as sums of positive terms in A, B and |x+y|^2, so nothing cancels at the boundary. */
#ifndef KAPPA_GEOMETRY_PAIR_H
#define KAPPA_GEOMETRY_PAIR_H

#include "geometry/functions.h"

/* The pair (x, y) of the sum x (+) y. */
typedef struct kp_pair {
  kp_real xx, xy, yy;                 /* inner products */
  kp_real x_complement, y_complement; /* A, B */
  kp_real sum;                        /* |x + y|^2 */
  kp_real denominator;                /* D = 1 - 2 kappa xy + kappa^2 xx yy = A B - kappa |x + y|^2 */
  /* y is -x (kappa < 0) or the antipode of -x (kappa > 0) up to the rounding of the inner products: D is a
   * floor. */
  int floored;
} kp_pair;

typedef struct kp_pair_bar {
  kp_real xx, xy, yy, x_complement, y_complement, sum, denominator, kappa;
} kp_pair_bar;

KP_HD static inline kp_pair kp_pair_of(kp_real xx, kp_real xy, kp_real yy, kp_real x_complement,
                                       kp_real y_complement, kp_real kappa) {
  kp_pair pair;
  pair.xx = xx;
  pair.xy = xy;
  pair.yy = yy;
  pair.x_complement = x_complement;
  pair.y_complement = y_complement;
  pair.sum = kp_max(xx + 2 * xy + yy, 0);
  kp_real floor = KP_REAL_EPSILON * KP_REAL_EPSILON;
  if (kp_positive(kappa)) {
    kp_real product = kappa * kappa * xx * yy;
    floor = KP_REAL_EPSILON * (1 + product);
    pair.denominator = 1 - 2 * kappa * xy + product;
  } else {
    pair.denominator = x_complement * y_complement - kappa * pair.sum;
  }
  pair.floored = pair.denominator < floor;
  if (pair.floored) pair.denominator = floor;
  return pair;
}

/* Carries bar->sum and bar->denominator on to the inputs of kp_pair_of. */
KP_HD static inline void kp_pair_backward(const kp_pair *pair, kp_real kappa, kp_pair_bar *bar) {
  kp_real d = pair->floored ? 0 : bar->denominator;
  if (kp_positive(kappa)) {
    bar->xx += kappa * kappa * pair->yy * d;
    bar->yy += kappa * kappa * pair->xx * d;
    bar->xy -= 2 * kappa * d;
    bar->kappa += 2 * (kappa * pair->xx * pair->yy - pair->xy) * d;
  } else {
    bar->x_complement += pair->y_complement * d;
    bar->y_complement += pair->x_complement * d;
    bar->sum -= kappa * d;
    bar->kappa -= pair->sum * d;
  }
  bar->xx += bar->sum;
  bar->yy += bar->sum;
  bar->xy += 2 * bar->sum;
}

/* Mobius addition x (+) y = first x + second y (Ungar; Bachmann et al., equation 2), with
 *   first = (A - kappa|x+y|^2) / D,  second = A / D,  1 + kappa|x (+) y|^2 = A B / D. */
typedef struct kp_mobius {
  kp_real first, second;
  kp_real complement;
  kp_real square; /* |x (+) y|^2 */
} kp_mobius;

typedef struct kp_mobius_bar {
  kp_real first, second, complement, square;
} kp_mobius_bar;

KP_HD static inline kp_mobius kp_mobius_of(const kp_pair *pair, kp_real kappa) {
  kp_mobius sum;
  kp_real numerator = kp_positive(kappa) ? 1 - 2 * kappa * pair->xy - kappa * pair->yy
                                         : pair->x_complement - kappa * pair->sum;
  sum.first = numerator / pair->denominator;
  sum.second = pair->x_complement / pair->denominator;
  sum.complement = kp_max(sum.second * pair->y_complement, KP_REAL_TINY);
  sum.square = sum.first * sum.first * pair->xx + 2 * sum.first * sum.second * pair->xy +
               sum.second * sum.second * pair->yy;
  sum.square = kp_max(sum.square, 0);
  return sum;
}

KP_HD static inline void kp_mobius_backward(const kp_pair *pair, const kp_mobius *sum, kp_real kappa,
                                            const kp_mobius_bar *out, kp_pair_bar *bar) {
  kp_real first_bar = out->first + 2 * out->square * (sum->first * pair->xx + sum->second * pair->xy);
  kp_real second_bar = out->second + 2 * out->square * (sum->first * pair->xy + sum->second * pair->yy);
  bar->xx += out->square * sum->first * sum->first;
  bar->xy += out->square * 2 * sum->first * sum->second;
  bar->yy += out->square * sum->second * sum->second;
  second_bar += out->complement * pair->y_complement;
  bar->y_complement += out->complement * sum->second;
  kp_real numerator_bar = first_bar / pair->denominator;
  bar->x_complement += second_bar / pair->denominator;
  bar->denominator -= (first_bar * sum->first + second_bar * sum->second) / pair->denominator;
  if (kp_positive(kappa)) {
    bar->xy -= 2 * kappa * numerator_bar;
    bar->yy -= kappa * numerator_bar;
    bar->kappa -= (2 * pair->xy + pair->yy) * numerator_bar;
  } else {
    bar->x_complement += numerator_bar;
    bar->sum -= kappa * numerator_bar;
    bar->kappa -= pair->sum * numerator_bar;
  }
}

/* Gyration gyr[x, y] w = w + x_part x + y_part y (Ungar), from xw = <x,w> and yw = <y,w>.  With s = x + y:
 *   gyr[x, y] w = w + 2 kappa [ (sw - A yw) s - (B sw - kappa |s|^2 yw) x ] / D,
 * which stays exact where x and -y are close and near the boundary. */
typedef struct kp_turn {
  kp_real x_part, y_part;
  kp_real along_sum, along_x; /* the two brackets */
} kp_turn;

KP_HD static inline kp_turn kp_turn_of(const kp_pair *pair, kp_real xw, kp_real yw, kp_real kappa) {
  kp_turn gyration;
  kp_real sw = xw + yw, scale = 2 * kappa / pair->denominator;
  gyration.along_sum = sw - pair->x_complement * yw;
  gyration.along_x = pair->y_complement * sw - kappa * pair->sum * yw;
  gyration.x_part = scale * (gyration.along_sum - gyration.along_x);
  gyration.y_part = scale * gyration.along_sum;
  return gyration;
}

KP_HD static inline void kp_turn_backward(const kp_pair *pair, const kp_turn *gyration, kp_real xw,
                                          kp_real yw, kp_real kappa, kp_real x_part_bar, kp_real y_part_bar,
                                          kp_pair_bar *bar, kp_real *xw_bar, kp_real *yw_bar) {
  kp_real sw = xw + yw, scale = 2 * kappa / pair->denominator;
  kp_real along_sum_bar = scale * (x_part_bar + y_part_bar), along_x_bar = -scale * x_part_bar;
  bar->denominator -= (x_part_bar * gyration->x_part + y_part_bar * gyration->y_part) / pair->denominator;
  bar->kappa += 2 / pair->denominator *
                (x_part_bar * (gyration->along_sum - gyration->along_x) + y_part_bar * gyration->along_sum);
  kp_real sw_bar = along_sum_bar + pair->y_complement * along_x_bar;
  bar->x_complement -= yw * along_sum_bar;
  bar->y_complement += sw * along_x_bar;
  bar->sum -= kappa * yw * along_x_bar;
  bar->kappa -= pair->sum * yw * along_x_bar;
  *xw_bar += sw_bar;
  *yw_bar += sw_bar - pair->x_complement * along_sum_bar - kappa * pair->sum * along_x_bar;
}

/* The logarithm between two near points, from their difference e = x - p with E = |e|^2:
 *   log_0((-p) (+) x) = scale (A e + kappa E p),   scale = phi(kappa W) / sqrt(A B D),   W = E / (A B),
 * and its squared norm is phi^2 W = (d(p, x) / 2)^2.  log_p(x) is A times that vector.
 * sin_kappa^2(d/2) = W: an asinh for kappa < 0, where nothing has to be clamped; for kappa > 0 the
 * atan2 of sqrt(kappa E) and sqrt(D), which survives the cut locus. */
typedef struct kp_difference_log {
  kp_real scale, square;
  kp_real sine_square; /* W */
  kp_real denominator; /* D = A B - kappa E */
  kp_slope phi;
  int floored; /* at the cut locus up to rounding */
} kp_difference_log;

typedef struct kp_difference_log_bar {
  kp_real p_complement, x_complement, difference, kappa; /* A, B, E */
} kp_difference_log_bar;

KP_HD static inline kp_difference_log kp_difference_log_of(kp_real p_complement, kp_real x_complement,
                                                           kp_real difference, kp_real kappa) {
  kp_difference_log log;
  kp_real product = p_complement * x_complement;
  log.denominator = product - kappa * difference;
  log.floored = log.denominator < KP_REAL_EPSILON * product;
  if (log.floored) log.denominator = KP_REAL_EPSILON * product;
  log.sine_square = difference / product;
  log.phi = kp_asin_ratio_complement(kappa * log.sine_square, log.denominator / product);
  log.scale = log.phi.value / (kp_sqrt(product) * kp_sqrt(log.denominator));
  log.square = log.phi.value * log.phi.value * log.sine_square;
  return log;
}

/* Adds the gradient of (scale, square) to bar. */
KP_HD static inline void kp_difference_log_backward(const kp_difference_log *log, kp_real p_complement,
                                                    kp_real x_complement, kp_real kappa, kp_real scale_bar,
                                                    kp_real square_bar, kp_difference_log_bar *bar) {
  kp_real product = p_complement * x_complement;
  kp_real root = kp_sqrt(product) * kp_sqrt(log->denominator);
  kp_real phi_bar = scale_bar / root + square_bar * 2 * log->phi.value * log->sine_square;
  kp_real z_bar = phi_bar * log->phi.derivative;
  kp_real sine_square_bar = square_bar * log->phi.value * log->phi.value + kappa * z_bar;
  bar->kappa += log->sine_square * z_bar;
  bar->difference += sine_square_bar / product;
  kp_real product_bar = -sine_square_bar * log->sine_square / product;
  kp_real half = (kp_real)-0.5 * scale_bar * log->scale;
  product_bar += half / product;
  if (log->floored) {
    product_bar += half / product;
  } else {
    kp_real denominator_bar = half / log->denominator;
    product_bar += denominator_bar;
    bar->difference -= kappa * denominator_bar;
    bar->kappa -= log->sine_square * product * denominator_bar;
  }
  bar->p_complement += product_bar * x_complement;
  bar->x_complement += product_bar * p_complement;
}

/* The factor t of exp_p(u) = p (+) t u:  t = tau(kappa |u|^2 / A^2) / A, with lambda_p / 2 = 1 / A. */
typedef struct kp_exp_factor {
  kp_real factor;
  kp_real square; /* |t u|^2 */
  kp_radial radial;
} kp_exp_factor;

KP_HD static inline kp_exp_factor kp_exp_factor_of(kp_real uu, kp_real p_complement, kp_real kappa) {
  kp_exp_factor exp_factor;
  kp_real scaled = uu / p_complement / p_complement;
  exp_factor.radial = kp_radial_of(kappa * scaled);
  exp_factor.factor = exp_factor.radial.ratio / p_complement;
  exp_factor.square = exp_factor.factor * exp_factor.factor * uu;
  return exp_factor;
}

/* Gradient of (factor, square, complement of t u): adds to uu_bar, p_complement_bar, kappa_bar. */
KP_HD static inline void kp_exp_factor_backward(const kp_exp_factor *exp_factor, kp_real uu,
                                                kp_real p_complement, kp_real kappa, kp_real factor_bar,
                                                kp_real square_bar, kp_real complement_bar, kp_real *uu_bar,
                                                kp_real *p_complement_bar, kp_real *kappa_bar) {
  kp_real scaled = uu / p_complement / p_complement;
  factor_bar += 2 * exp_factor->factor * uu * square_bar;
  kp_real z_bar = factor_bar / p_complement * exp_factor->radial.ratio_derivative +
                  complement_bar * exp_factor->radial.complement_derivative;
  *uu_bar += square_bar * exp_factor->factor * exp_factor->factor;
  *uu_bar += z_bar * kappa / p_complement / p_complement;
  *kappa_bar += z_bar * scaled;
  *p_complement_bar -= (factor_bar * exp_factor->factor + 2 * z_bar * kappa * scaled) / p_complement;
}

/* The complement 1 + kappa|x|^2 of a chart point, floored: points on or beyond the boundary of the ball count
 * as points just inside.  slope is the derivative with respect to kappa|x|^2, 0 at the floor. */
typedef struct kp_complement {
  kp_real value;
  kp_real slope;
} kp_complement;

KP_HD static inline kp_complement kp_complement_of(kp_real square, kp_real kappa) {
  kp_complement complement = {1 + kappa * square, 1};
  if (complement.value <= KP_COMPLEMENT_FLOOR) {
    complement.value = KP_COMPLEMENT_FLOOR;
    complement.slope = 0;
  }
  return complement;
}

KP_HD static inline void kp_complement_backward(const kp_complement *complement, kp_real square,
                                                kp_real kappa, kp_real complement_bar, kp_real *square_bar,
                                                kp_real *kappa_bar) {
  *square_bar += kappa * complement->slope * complement_bar;
  *kappa_bar += square * complement->slope * complement_bar;
}

#endif
