/* Frequencies of rotary positions: pair i of D channels turns by position · frequency.
 *
 * Su et al. 2021, section 3.2.2: base^(-2i/D).  YaRN (Peng et al. 2023, section 3.2) stretches the context
 * that a model was trained on: pairs that turn more than `beta_fast` times in it keep their frequency, those
 * that turn less than `beta_slow` times are slowed down by `factor`, and between them a ramp over the pairs
 * leads from one to the other.  Llama 3.1 (its released code, 2024) does the same with a ramp over the turns.
 */
#ifndef KAPPA_GEOMETRY_ROTARY_H
#define KAPPA_GEOMETRY_ROTARY_H

#include "geometry/real.h"

typedef struct kp_yarn {
  double factor;   /* of the context; at most 1: plain frequencies */
  double original; /* tokens of the context in training */
  double beta_fast, beta_slow;
  int by_turns; /* Llama 3.1's ramp; beta_fast is above beta_slow */
} kp_yarn;

/* The pair, as a real number, that turns `turns` times in the original context. */
static inline double kp_yarn_pair(double base, int size, double turns, double original) {
  return (double)size * log(original / (2 * 3.14159265358979323846 * turns)) / (2 * log(base));
}

static inline double kp_ramp_of(double ramp) {
  return ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
}

/* 0 where pair `pair` keeps its frequency, 1 where it is slowed down by the whole factor. */
static inline double kp_yarn_ramp(double base, int size, int pair, kp_yarn yarn) {
  const double fast = floor(kp_yarn_pair(base, size, yarn.beta_fast, yarn.original));
  const double slow = ceil(kp_yarn_pair(base, size, yarn.beta_slow, yarn.original));
  const double first = fast > 0 ? fast : 0, last = slow < size - 1 ? slow : size - 1;
  const double width = last == first ? 1e-3 : last - first; /* a step */
  return kp_ramp_of((pair - first) / width);
}

static inline double kp_turns_ramp(double frequency, kp_yarn yarn) {
  const double turns = yarn.original * frequency / (2 * 3.14159265358979323846);
  return kp_ramp_of((yarn.beta_fast - turns) / (yarn.beta_fast - yarn.beta_slow));
}

/* Radians a position of pair `pair` of `size` channels. */
static inline double kp_rotary_frequency(double base, int size, int pair, kp_yarn yarn) {
  const double frequency = pow(base, -2.0 * pair / size);
  if (!(yarn.factor > 1)) return frequency;
  const double ramp = yarn.by_turns ? kp_turns_ramp(frequency, yarn) : kp_yarn_ramp(base, size, pair, yarn);
  return frequency / yarn.factor * ramp + frequency * (1 - ramp);
}

#endif
