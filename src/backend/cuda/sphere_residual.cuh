/* What the forward and the backward kernel of SPHERE_RESIDUAL share: their operands and a row's unit vectors.
 */
#ifndef KAPPA_BACKEND_CUDA_SPHERE_RESIDUAL_CUH
#define KAPPA_BACKEND_CUDA_SPHERE_RESIDUAL_CUH

#include "backend/cuda/row_chunks.cuh"
#include "geometry/sphere.h"

struct kp_sphere_operands {
  int64_t rows, pitch, C;
  int chunks;
  const void *h, *u; /* (N, C) */
  kp_vector rate;    /* (C), before its factor and sign */
  float factor;
};

static inline kp_sphere_operands kp_sphere_operands_of(const kp_call *call, const kp_row_plan &plan) {
  const kp_sphere_arguments *arguments = (const kp_sphere_arguments *)call->node->arguments;
  return kp_sphere_operands{plan.rows,
                            plan.pitch,
                            plan.C,
                            plan.chunks,
                            call->input[0],
                            call->input[1],
                            kp_vector_of(call->input[2], 0),
                            (float)arguments->factor};
}

/* 1/|h|, 1/|u| and <A,B>. */
struct kp_sphere_units {
  float inverse_h, inverse_u;
  double cosine;
};

template <typename T, int W, int CHUNKS>
__device__ static inline kp_sphere_units kp_sphere_units_of(const kp_row<T, W, CHUNKS> &h,
                                                            const kp_row<T, W, CHUNKS> &u,
                                                            const kp_row_shape<W, CHUNKS> &shape) {
  double sum[4] = {0, 0, 0, 0};
#pragma unroll
  for (int j = 0; j < shape.steps(); j++) {
    float hs[W], us[W], part[3] = {0, 0, 0};
    h.get(j, hs), u.get(j, us);
#pragma unroll
    for (int e = 0; e < W; e++) part[0] += hs[e] * hs[e], part[1] += us[e] * us[e], part[2] += hs[e] * us[e];
#pragma unroll
    for (int i = 0; i < 3; i++) sum[i] += (double)part[i];
  }
  kp_team_sums<CHUNKS>(sum);
  const double inverse_h = kp_sphere_inverse_length(sum[0]), inverse_u = kp_sphere_inverse_length(sum[1]);
  return kp_sphere_units{(float)inverse_h, (float)inverse_u, sum[2] * inverse_h * inverse_u};
}

/* The rates λ = |α · factor| of a chunk. */
template <int W>
__device__ static inline void kp_get_rates(const kp_sphere_operands &k, int64_t first, float (&rate)[W]) {
  kp_get_columns<W>(k.rate, first, k.C, rate);
#pragma unroll
  for (int e = 0; e < W; e++) rate[e] = fabsf(rate[e] * k.factor);
}

#endif
