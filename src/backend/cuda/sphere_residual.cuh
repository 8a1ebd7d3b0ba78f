/* What the forward and the backward kernel of SPHERE_RESIDUAL share: their operands and a row's unit vectors.
 */
#ifndef KAPPA_BACKEND_CUDA_SPHERE_RESIDUAL_CUH
#define KAPPA_BACKEND_CUDA_SPHERE_RESIDUAL_CUH

#define KP_GEOMETRY_FLOAT 1
#include "backend/cuda/row_ring.cuh"
#include "geometry/sphere.h"

struct kp_sphere_operands {
  const void *h, *u; /* (N, C) */
  kp_vector rate;    /* (C), before its factor and sign */
  float factor;
};

static inline kp_sphere_operands kp_sphere_operands_of(const kp_call *call) {
  const kp_sphere_arguments *arguments = (const kp_sphere_arguments *)call->node->arguments;
  return kp_sphere_operands{call->input[0], call->input[1], kp_vector_of(call->input[2], 0),
                            (float)arguments->factor};
}

/* 1/|h|, 1/|u| and <A,B>. */
struct kp_sphere_units {
  float inverse_h, inverse_u, cosine;
};

/* The first two tensors of a ring are h and u. */
enum { KP_SPHERE_H, KP_SPHERE_U };

template <class K, int TENSORS>
__device__ static inline kp_sphere_units kp_sphere_units_of(const kp_ring<K, TENSORS> &ring, int stage) {
  float sum[4] = {0, 0, 0, 0};
#pragma unroll 2
  for (int j = 0, chunk = ring.thread; chunk < ring.shape.chunks; j++, chunk += K::TEAM) {
    float h[K::W], u[K::W];
    ring.get(stage, KP_SPHERE_H, j, h), ring.get(stage, KP_SPHERE_U, j, u);
#pragma unroll
    for (int e = 0; e < K::W; e++) sum[0] += h[e] * h[e], sum[1] += u[e] * u[e], sum[2] += h[e] * u[e];
  }
  kp_team_sums<K>(sum);
  const float inverse_h = kp_sphere_inverse_length(sum[0]), inverse_u = kp_sphere_inverse_length(sum[1]);
  return kp_sphere_units{inverse_h, inverse_u, sum[2] * inverse_h * inverse_u};
}

/* The rates λ = |α · factor| of a chunk. */
template <int W>
__device__ static inline void kp_get_rates(const kp_sphere_operands &k, int64_t first, int64_t C,
                                           float (&rate)[W]) {
  kp_get_columns<W>(k.rate, first, C, rate);
#pragma unroll
  for (int e = 0; e < W; e++) rate[e] = fabsf(rate[e] * k.factor);
}

#endif
