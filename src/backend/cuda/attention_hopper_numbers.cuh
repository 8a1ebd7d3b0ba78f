/* The numbers of a row that come of its square alone (kp_row_number), for queries and keys alike. */
#ifndef KAPPA_BACKEND_CUDA_ATTENTION_HOPPER_NUMBERS_CUH
#define KAPPA_BACKEND_CUDA_ATTENTION_HOPPER_NUMBERS_CUH

#define KP_GEOMETRY_FLOAT
#include "backend/cuda/attention_hopper.cuh"
#include "geometry/geodesic_score.h"

/* Everything that a distance needs of a row of squared length `square`: the formulas of geodesic_score.h for
 * raw rows.  Rows longer than `limit` / √|κ| stop growing, so that z(1 + z) stays in the range of float. */
__device__ static inline void kp_geodesic_numbers(const kp_hopper_problem &p, const kp_hopper_head &head,
                                                  float square, float (&to)[KP_ROW_ALL]) {
  const float limit = 10.5f, root2 = 1.4142135623730951f, s = p.scale;
  const float kappa = head.sign == 0 ? 0.0f : head.kappa;
  const float norm = s * s * square;
  float z = kappa * norm, shrink = 1;
  const bool clamped = z < -limit * limit;
  if (clamped) {
    shrink = limit * rsqrtf(-z);
    z = -limit * limit;
  }
  kp_sine_cosine both = kp_sine_cosine_of(z);
  if (clamped) { /* S falls as 1/|u|, C stays */
    both.sine_ratio.value *= shrink;
    both.cosine.derivative = 0;
    z = kappa * norm;
    both.sine_ratio.derivative = -both.sine_ratio.value / (2 * z);
  }
  const float S = both.sine_ratio.value, C = both.cosine.value, dS = both.sine_ratio.derivative;
  const float alpha = S * S * norm, level = head.level;
  const float slope = root2 * s * (both.cosine.derivative * S + C * dS);
  float E = root2 * s * C * S;
  if (fabsf(E) < 1e-18f) E = 1e-18f;
  to[KP_ROW_LEVEL] = level * alpha;
  to[KP_ROW_FACTOR] = E;
  to[KP_ROW_RATIO] = (1 - 2 * kappa * alpha) / E;
  to[KP_ROW_LEVEL_SLOPE] = level * s * s * S * (S + 2 * z * dS);
  to[KP_ROW_FACTOR_SLOPE] = level * kappa * s * s * slope;
  to[KP_ROW_LEVEL_KAPPA] = level * 2 * norm * norm * S * dS;
  to[KP_ROW_FACTOR_KAPPA] = level * norm * slope;
}

/* All numbers that come of a row's square alone. */
__device__ static inline void kp_hopper_numbers(const kp_hopper_problem &p, const kp_hopper_head &head,
                                                float square, float (&to)[KP_ROW_ALL]) {
  if (p.score == KP_SCORE_LORENTZ) {
    const float time = sqrtf(square + head.c / (p.scale * p.scale));
    to[KP_ROW_LEVEL] = time;
    to[KP_ROW_FACTOR] = 1 / time;
  } else if (p.score != KP_SCORE_DOT) {
    kp_geodesic_numbers(p, head, square, to);
  }
}

#endif
