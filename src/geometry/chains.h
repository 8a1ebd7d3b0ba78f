/* Chains of two maps, on the level of scalars: the exponential map at a point, and the two residual
 * steps that are built on it.  Chart programs and log-coordinate programs share them: both give inner
 * products of points and complements, and differ in where those come from.
 *
 * Inner products of a triple (x, p, u) are packed as xx, xp, xu, pp, pu, uu. */
#ifndef KAPPA_GEOMETRY_CHAINS_H
#define KAPPA_GEOMETRY_CHAINS_H

#include "geometry/pair.h"

/* exp_p(u) = p (+) t u (Bachmann et al. 2020, section 2): coefficient first of p, along of u. */
typedef struct kp_exp_chain {
  kp_exp_factor factor;
  kp_pair pair;
  kp_mobius sum;
  kp_real along;
} kp_exp_chain;

typedef struct kp_exp_chain_bar {
  kp_real pp, pu, uu, p_complement, kappa;
} kp_exp_chain_bar;

KP_HD static inline kp_exp_chain kp_exp_chain_of(kp_real pp, kp_real pu, kp_real uu, kp_real p_complement,
                                                 kp_real kappa) {
  kp_exp_chain chain;
  chain.factor = kp_exp_factor_of(uu, p_complement, kappa);
  chain.pair = kp_pair_of(pp, chain.factor.factor * pu, chain.factor.square, p_complement,
                          chain.factor.radial.complement, kappa);
  chain.sum = kp_mobius_of(&chain.pair, kappa);
  chain.along = chain.sum.second * chain.factor.factor;
  return chain;
}

/* out holds the gradient of (sum.first, along, sum.complement, sum.square); out->second is that of along. */
KP_HD static inline void kp_exp_chain_backward(const kp_exp_chain *chain, kp_real pu, kp_real uu,
                                               kp_real p_complement, kp_real kappa, const kp_mobius_bar *out,
                                               kp_exp_chain_bar *bar) {
  kp_real factor_bar = out->second * chain->sum.second;
  kp_mobius_bar sum_bar = *out;
  sum_bar.second = out->second * chain->factor.factor;
  kp_pair_bar pair_bar = {0, 0, 0, 0, 0, 0, 0, 0};
  kp_mobius_backward(&chain->pair, &chain->sum, kappa, &sum_bar, &pair_bar);
  kp_pair_backward(&chain->pair, kappa, &pair_bar);
  bar->pp += pair_bar.xx;
  bar->pu += chain->factor.factor * pair_bar.xy;
  factor_bar += pu * pair_bar.xy;
  bar->p_complement += pair_bar.x_complement;
  bar->kappa += pair_bar.kappa;
  kp_exp_factor_backward(&chain->factor, uu, p_complement, kappa, factor_bar, pair_bar.yy,
                         pair_bar.y_complement, &bar->uu, &bar->p_complement, &bar->kappa);
}

KP_HD static inline int kp_exp_chain_event(const kp_exp_chain *chain) {
  return chain->factor.radial.clamped || chain->pair.floored;
}

/* A residual step over (x, p, u): coefficients of x, p, u, and the point's complement and squared norm. */
typedef struct kp_step {
  kp_real coefficients[3];
  kp_real complement, square;
  int event;
} kp_step;

typedef struct kp_step_bar {
  kp_real coefficients[3];
  kp_real complement, square;
} kp_step_bar;

typedef struct kp_triple_bar {
  kp_real gram[6];
  kp_real x_complement, p_complement, kappa;
} kp_triple_bar;

/* x (+) exp_p(u). */
typedef struct kp_add_exp_chain {
  kp_exp_chain exp;
  kp_pair pair;
  kp_mobius sum;
  kp_step step;
} kp_add_exp_chain;

KP_HD static inline kp_add_exp_chain kp_add_exp_chain_of(const kp_real *gram, kp_real x_complement,
                                                         kp_real p_complement, kp_real kappa) {
  kp_add_exp_chain chain;
  chain.exp = kp_exp_chain_of(gram[3], gram[4], gram[5], p_complement, kappa);
  kp_real xy = chain.exp.sum.first * gram[1] + chain.exp.along * gram[2];
  chain.pair = kp_pair_of(gram[0], xy, chain.exp.sum.square, x_complement, chain.exp.sum.complement, kappa);
  chain.sum = kp_mobius_of(&chain.pair, kappa);
  chain.step.coefficients[0] = chain.sum.first;
  chain.step.coefficients[1] = chain.sum.second * chain.exp.sum.first;
  chain.step.coefficients[2] = chain.sum.second * chain.exp.along;
  chain.step.complement = chain.sum.complement;
  chain.step.square = chain.sum.square;
  chain.step.event = kp_exp_chain_event(&chain.exp) || chain.pair.floored;
  return chain;
}

KP_HD static inline void kp_add_exp_chain_backward(const kp_add_exp_chain *chain, const kp_real *gram,
                                                   kp_real p_complement, kp_real kappa,
                                                   const kp_step_bar *out, kp_triple_bar *bar) {
  kp_mobius_bar sum_bar = {out->coefficients[0],
                           out->coefficients[1] * chain->exp.sum.first +
                               out->coefficients[2] * chain->exp.along,
                           out->complement, out->square};
  kp_pair_bar pair_bar = {0, 0, 0, 0, 0, 0, 0, 0};
  kp_mobius_backward(&chain->pair, &chain->sum, kappa, &sum_bar, &pair_bar);
  kp_pair_backward(&chain->pair, kappa, &pair_bar);
  bar->gram[0] += pair_bar.xx;
  bar->gram[1] += pair_bar.xy * chain->exp.sum.first;
  bar->gram[2] += pair_bar.xy * chain->exp.along;
  bar->x_complement += pair_bar.x_complement;
  kp_mobius_bar exp_out = {out->coefficients[1] * chain->sum.second + pair_bar.xy * gram[1],
                           out->coefficients[2] * chain->sum.second + pair_bar.xy * gram[2],
                           pair_bar.y_complement, pair_bar.yy};
  kp_exp_chain_bar exp_bar = {0, 0, 0, 0, 0};
  kp_exp_chain_backward(&chain->exp, gram[4], gram[5], p_complement, kappa, &exp_out, &exp_bar);
  bar->gram[3] += exp_bar.pp;
  bar->gram[4] += exp_bar.pu;
  bar->gram[5] += exp_bar.uu;
  bar->p_complement += exp_bar.p_complement;
  bar->kappa += pair_bar.kappa + exp_bar.kappa;
}

/* exp_x(PT_{p->x} u) = x (+) t gyr[x, -p] u: the conformal factors of transport and of exp_x cancel, so t is
 * that of exp_p (Ungar; Bachmann et al. 2020, section 2). */
typedef struct kp_transported_chain {
  kp_exp_factor factor;
  kp_pair turn; /* (x, -p) */
  kp_turn gyration;
  kp_real inner; /* <x, gyr[x, -p] u> */
  kp_pair pair;
  kp_mobius sum;
  kp_step step;
} kp_transported_chain;

KP_HD static inline kp_transported_chain kp_transported_chain_of(const kp_real *gram, kp_real x_complement,
                                                                 kp_real p_complement, kp_real kappa) {
  kp_transported_chain chain;
  chain.factor = kp_exp_factor_of(gram[5], p_complement, kappa);
  chain.turn = kp_pair_of(gram[0], -gram[1], gram[3], x_complement, p_complement, kappa);
  chain.gyration = kp_turn_of(&chain.turn, gram[2], -gram[4], kappa);
  chain.inner = gram[2] + chain.gyration.x_part * gram[0] - chain.gyration.y_part * gram[1];
  chain.pair = kp_pair_of(gram[0], chain.factor.factor * chain.inner, chain.factor.square, x_complement,
                          chain.factor.radial.complement, kappa);
  chain.sum = kp_mobius_of(&chain.pair, kappa);
  kp_real along = chain.sum.second * chain.factor.factor;
  chain.step.coefficients[0] = chain.sum.first + along * chain.gyration.x_part;
  chain.step.coefficients[1] = -along * chain.gyration.y_part;
  chain.step.coefficients[2] = along;
  chain.step.complement = chain.sum.complement;
  chain.step.square = chain.sum.square;
  chain.step.event = chain.factor.radial.clamped || chain.turn.floored || chain.pair.floored;
  return chain;
}

KP_HD static inline void kp_transported_chain_backward(const kp_transported_chain *chain, const kp_real *gram,
                                                       kp_real p_complement, kp_real kappa,
                                                       const kp_step_bar *out, kp_triple_bar *bar) {
  const kp_turn *gyration = &chain->gyration;
  kp_real along = chain->sum.second * chain->factor.factor;
  kp_real along_bar = out->coefficients[0] * gyration->x_part - out->coefficients[1] * gyration->y_part +
                      out->coefficients[2];
  kp_real x_part_bar = out->coefficients[0] * along, y_part_bar = -out->coefficients[1] * along;
  kp_mobius_bar sum_bar = {out->coefficients[0], along_bar * chain->factor.factor, out->complement,
                           out->square};
  kp_pair_bar pair_bar = {0, 0, 0, 0, 0, 0, 0, 0};
  kp_mobius_backward(&chain->pair, &chain->sum, kappa, &sum_bar, &pair_bar);
  kp_pair_backward(&chain->pair, kappa, &pair_bar);
  kp_real factor_bar = along_bar * chain->sum.second + pair_bar.xy * chain->inner;
  kp_real inner_bar = pair_bar.xy * chain->factor.factor;
  bar->gram[0] += pair_bar.xx + inner_bar * gyration->x_part;
  bar->gram[1] -= inner_bar * gyration->y_part;
  bar->gram[2] += inner_bar;
  x_part_bar += inner_bar * gram[0];
  y_part_bar -= inner_bar * gram[1];
  kp_pair_bar turn_bar = {0, 0, 0, 0, 0, 0, 0, 0};
  kp_real minus_pu_bar = 0;
  kp_turn_backward(&chain->turn, gyration, gram[2], -gram[4], kappa, x_part_bar, y_part_bar, &turn_bar,
                   &bar->gram[2], &minus_pu_bar);
  kp_pair_backward(&chain->turn, kappa, &turn_bar);
  bar->gram[0] += turn_bar.xx;
  bar->gram[1] -= turn_bar.xy;
  bar->gram[3] += turn_bar.yy;
  bar->gram[4] -= minus_pu_bar;
  bar->x_complement += pair_bar.x_complement + turn_bar.x_complement;
  bar->p_complement += turn_bar.y_complement;
  bar->kappa += pair_bar.kappa + turn_bar.kappa;
  kp_exp_factor_backward(&chain->factor, gram[5], p_complement, kappa, factor_bar, pair_bar.yy,
                         pair_bar.y_complement, &bar->gram[5], &bar->p_complement, &bar->kappa);
}

#endif
