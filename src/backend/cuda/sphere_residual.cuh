/* What the forward and the backward kernel of SPHERE_RESIDUAL share: their operands, and how A, B and the
 * tangent vector between them come from a row.
 *
 * lerp needs float alone.  The great circle near an antipode does not: the tangent vector w = B - <A,B> A is
 * a small difference there, and what it is multiplied by is large.  So slerp's scalars are in double, w is
 * made of h and u before they are rounded, and gradients of rows near an antipode are in double altogether.
 */
#ifndef KAPPA_BACKEND_CUDA_SPHERE_RESIDUAL_CUH
#define KAPPA_BACKEND_CUDA_SPHERE_RESIDUAL_CUH

#include "backend/cuda/row_held.cuh"
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

/* 1/|x| from |x|², as kp_sphere_inverse_length has it for float. */
__device__ static inline float kp_inverse_length(float square) {
  const float length = sqrtf(square);
  return length <= 1e-18f ? 0 : 1 / length;
}

/* A = inverse_h h, B = inverse_u u, w = B - cosine A. */
struct kp_sphere_tangent {
  double inverse_h, inverse_u, cosine;
  double share;           /* <h,u>/|h|² */
  float rest;             /* of it, as a float */
  float float_h, float_u; /* the inverse lengths */

  /* Near the antipode gradients are differences of numbers that are larger by 1/sin². */
  __device__ bool delicate() const { return cosine < -0.5; }
  __device__ void get(float h, float u, float &a, float &b, float &w) const {
    const float part = (float)share, product = part * h, error = fmaf(part, h, -product);
    a = float_h * h, b = float_u * u;
    w = float_u * fmaf(-rest, h, (u - product) - error); /* the rounding of the product is put back */
  }
  __device__ void get(float h, float u, double &a, double &b, double &w) const {
    a = inverse_h * (double)h, b = inverse_u * (double)u;
    w = inverse_u * ((double)u - share * (double)h);
  }
};

/* |h|², |u|² and <h,u>: products of a chunk in R, sums of chunks in double. */
template <typename R, class K>
__device__ static inline kp_sphere_tangent kp_sphere_tangent_in(const kp_held_row<K> &h_row,
                                                                const kp_held_row<K> &u_row) {
  double sum[4] = {0, 0, 0, 0};
#pragma unroll
  for (int j = 0; j < K::STEPS; j++) {
    float h[K::W], u[K::W];
    R part[3] = {0, 0, 0};
    h_row.get(j, h), u_row.get(j, u);
#pragma unroll
    for (int e = 0; e < K::W; e++) {
      part[0] += (R)h[e] * (R)h[e], part[1] += (R)u[e] * (R)u[e];
      part[2] += (R)h[e] * (R)u[e];
    }
#pragma unroll
    for (int i = 0; i < 3; i++) sum[i] += (double)part[i];
  }
  kp_team_sums<K>(sum);
  const double inverse_h = kp_sphere_inverse_length(sum[0]), inverse_u = kp_sphere_inverse_length(sum[1]);
  const double share = sum[2] * inverse_h * inverse_h;
  return kp_sphere_tangent{inverse_h,
                           inverse_u,
                           sum[2] * inverse_h * inverse_u,
                           share,
                           (float)(share - (double)(float)share),
                           (float)inverse_h,
                           (float)inverse_u};
}

template <class K>
__device__ static inline kp_sphere_tangent kp_sphere_tangent_of(const kp_held_row<K> &h,
                                                                const kp_held_row<K> &u) {
  const kp_sphere_tangent tangent = kp_sphere_tangent_in<float>(h, u);
  return tangent.delicate() ? kp_sphere_tangent_in<double>(h, u) : tangent;
}

#endif
