/* The activation functions and their slopes on one number, for inner loops.
 *
 * Far from zero the slopes are constant in float; there their arguments are
 * clamped, so that no product of zero and infinity arises from a finite x. */
#ifndef KAPPA_BACKEND_CPU_ACTIVATION_FUNCTIONS_H
#define KAPPA_BACKEND_CPU_ACTIVATION_FUNCTIONS_H

#include "backend/cpu/isa/vector_math.h"
#include "backend/operators.h"

/* Inlined with a constant kind, so that each loop is compiled for one function. */
#define KP_INLINE static inline __attribute__((always_inline))

KP_INLINE float kp_logistic(float x) {
  return 1.0f / (1.0f + kp_expf(-x));
}

/* The distribution function of the standard normal distribution. */
KP_INLINE float kp_normal_cumulative(float x) {
  return 0.5f + 0.5f * kp_erff(0.707106781f * x);
}

/* x, kept within ±limit; a NaN stays one. */
KP_INLINE float kp_within(float limit, float x) {
  const float below = x > limit ? limit : x;
  return below < -limit ? -limit : below;
}

/* The tanh approximation is x σ(2u) with u = √(2/π) (x + 0.044715 x³): this is 2u. */
KP_INLINE float kp_gelu_exponent(float x) {
  return 1.59576912f * x * (1.0f + 0.044715f * x * x);
}

KP_INLINE float kp_activation_value(kp_activation_kind kind, float x) {
  if (kind == KP_GELU_ERF) return x * kp_normal_cumulative(x);
  if (kind == KP_GELU_TANH) return x * kp_logistic(kp_gelu_exponent(x));
  return x * kp_logistic(x);
}

/* With s = 1 / (1 + e), the complement 1 - s is e s: no digits are lost where s is near one. */
KP_INLINE float kp_activation_slope(kp_activation_kind kind, float x) {
  const float near = kp_within(kind == KP_SILU ? 80.0f : 8.0f, x);
  if (kind == KP_GELU_ERF)
    return kp_normal_cumulative(near) + near * (0.39894228f * kp_expf(-0.5f * near * near));
  const float e = kp_expf(kind == KP_SILU ? -near : -kp_gelu_exponent(near)), s = 1.0f / (1.0f + e);
  const float exponent_slope = kind == KP_SILU ? 1.0f : 1.59576912f + 0.214064437f * near * near;
  return s * (1.0f + near * (e * s) * exponent_slope);
}

#endif
