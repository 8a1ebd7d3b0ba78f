/* The activations and their derivatives in float.
 *
 * The tanh approximation of GELU is x times the logistic function of twice tanh's argument, so that it and
 * SiLU need one exponential and one quotient.  A product of zero and infinity counts as the zero it stands
 * for, but what is not a number stays so. */
#ifndef KAPPA_BACKEND_CUDA_ACTIVATION_CUH
#define KAPPA_BACKEND_CUDA_ACTIVATION_CUH

#include "backend/cuda/chunks.cuh"

/* f(x) and f'(x). */
struct kp_activated {
  float value, slope;
};

/* 2^x and 1/x as the special function unit gives them, within two units of the last place; what is too small
 * for a normal number is 0. */
__device__ static inline float kp_unit_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ static inline float kp_unit_inverse(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

constexpr float KP_LOG2_E = 1.44269504f;

/* The smaller of Φ(x) and 1 - Φ(x), and the normal density at x times √(2π): Abramowitz and Stegun, 7.1.26,
 * within 1.5e-7. */
__device__ static inline float kp_normal_tail(float x, float *bell) {
  const float z = fabsf(x) * 0.70710678f, t = kp_unit_inverse(fmaf(0.3275911f, z, 1.0f));
  const float e = kp_unit_exp2(-KP_LOG2_E * z * z);
  float sum = fmaf(t, 0.5f * 1.061405429f, 0.5f * -1.453152027f); /* coefficients of half the sum */
  sum = fmaf(t, sum, 0.5f * 1.421413741f);
  sum = fmaf(t, sum, 0.5f * -0.284496736f);
  sum = fmaf(t, sum, 0.5f * 0.254829592f);
  *bell = e;
  return t * sum * e;
}

/* The logistic function of -power ln 2; `tail` gets what is missing to 1. */
__device__ static inline float kp_logistic(float power, float *tail) {
  const float e = kp_unit_exp2(power), s = kp_unit_inverse(1.0f + e);
  *tail = s == 0.0f ? 1.0f : e * s;
  return s;
}

template <kp_activation_kind KIND> __device__ static inline kp_activated kp_activate(float x) {
  if constexpr (KIND == KP_GELU_ERF) {
    float bell;
    const float tail = kp_normal_tail(x, &bell), share = x < 0.0f ? tail : 1.0f - tail;
    return kp_activated{fmaf(-fabsf(x), tail, fmaxf(x, 0.0f)), fmaf(x, 0.39894228f * bell, share)};
  } else if constexpr (KIND == KP_GELU_TANH) {
    constexpr float TWICE = 1.5957691216f, CUBIC = 0.044715f; /* 2 √(2/π) */
    const float square = x * x;
    float tail;
    const float s = kp_logistic(x * fmaf(-KP_LOG2_E * TWICE * CUBIC, square, -KP_LOG2_E * TWICE), &tail);
    const float bend = s * tail; /* of the logistic function */
    const float slope = fmaf(3 * CUBIC * TWICE, square, TWICE);
    return kp_activated{x * s, s + (bend > 0.0f ? x * bend * slope : 0.0f * x)};
  } else {
    float tail;
    const float s = kp_logistic(-KP_LOG2_E * x, &tail);
    return kp_activated{x * s, s == 0.0f ? 0.0f * x : s * fmaf(x, tail, 1.0f)};
  }
}

/* Calls use(kind) with the kind as an integral constant. */
template <typename F> __device__ static inline void kp_by_activation(kp_activation_kind kind, F use) {
  switch (kind) {
  case KP_GELU_ERF: use(std::integral_constant<kp_activation_kind, KP_GELU_ERF>()); break;
  case KP_GELU_TANH: use(std::integral_constant<kp_activation_kind, KP_GELU_TANH>()); break;
  default: use(std::integral_constant<kp_activation_kind, KP_SILU>()); break;
  }
}

#endif
