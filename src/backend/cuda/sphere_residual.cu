/* The residual step on the unit sphere, by lerp and normalisation or along great circles. */
#include "backend/cuda/sphere_residual.cuh"

enum { TENSORS = 2 };

/* h' = of_a A + of_m λ w, with w = B - cosine A: both steps are of this form. */
struct kp_sphere_step_scalars {
  float cosine, of_a, of_m;
};

/* lerp: r = A + λ (B - A), h' = r/|r|, with w = B - A. */
__device__ static kp_sphere_step_scalars lerp_scalars(float square) {
  const float inverse = kp_sphere_inverse_length(square);
  return kp_sphere_step_scalars{1, inverse, inverse};
}

/* slerp: h' = cos|p| A + S p, p = s - <A,s> A, s = ρ λ w */
__device__ static kp_sphere_step_scalars slerp_scalars(float cosine, float ww, float ma, float mm) {
  const float ratio = kp_sphere_log_of(ww, cosine).ratio, normal = ratio * ma;
  const kp_sine_cosine exp = kp_sine_cosine_of(kp_max(ratio * ratio * mm - normal * normal, 0));
  return kp_sphere_step_scalars{cosine, exp.cosine.value - exp.sine_ratio.value * normal,
                                exp.sine_ratio.value * ratio};
}

template <class K, bool SLERP>
__device__ static kp_sphere_step_scalars step_scalars(const kp_sphere_operands &k,
                                                      const kp_ring<K, TENSORS> &ring, int stage,
                                                      const kp_sphere_units &units) {
  enum { WW, MA, MM, RR };
  float sum[4] = {0, 0, 0, 0};
  const float cosine = SLERP ? units.cosine : 1;
#pragma unroll 2
  for (int j = 0, chunk = ring.thread; chunk < ring.shape.chunks; j++, chunk += K::TEAM) {
    float h[K::W], u[K::W], rate[K::W];
    ring.get(stage, KP_SPHERE_H, j, h), ring.get(stage, KP_SPHERE_U, j, u);
    kp_get_rates<K::W>(k, (int64_t)chunk * K::W, ring.shape.C, rate);
#pragma unroll
    for (int e = 0; e < K::W; e++) {
      const float a = units.inverse_h * h[e], w = units.inverse_u * u[e] - cosine * a, m = rate[e] * w;
      if (SLERP)
        sum[WW] += w * w, sum[MA] += m * a, sum[MM] += m * m;
      else
        sum[RR] += (a + m) * (a + m);
    }
  }
  kp_team_sums<K>(sum);
  return SLERP ? slerp_scalars(cosine, sum[WW], sum[MA], sum[MM]) : lerp_scalars(sum[RR]);
}

/* Bytes: h and u read, h' written, once each: 3 · N · C · size; about 20 FLOPs a channel: bound by memory. */
template <class K, bool SLERP>
__global__ void __launch_bounds__(K::THREADS)
    kp_sphere_kernel(const kp_ring_shape shape, const kp_sphere_operands k, void *out) {
  extern __shared__ __align__(16) unsigned char shared[];
  using T = typename K::T;
  kp_ring<K, TENSORS> ring(shape, shared);
  ring.tensor[KP_SPHERE_H] = (const T *)k.h, ring.tensor[KP_SPHERE_U] = (const T *)k.u;
  int stage = 0;
  ring.fetch(ring.row, stage);
  for (int64_t n = ring.row; n < shape.rows; n += ring.stride) {
    ring.advance(n, stage);
    const kp_sphere_units units = kp_sphere_units_of(ring, stage);
    const kp_sphere_step_scalars s = step_scalars<K, SLERP>(k, ring, stage, units);
#pragma unroll 2
    for (int j = 0, chunk = ring.thread; chunk < shape.chunks; j++, chunk += K::TEAM) {
      float h[K::W], u[K::W], rate[K::W];
      ring.get(stage, KP_SPHERE_H, j, h), ring.get(stage, KP_SPHERE_U, j, u);
      kp_get_rates<K::W>(k, (int64_t)chunk * K::W, shape.C, rate);
#pragma unroll
      for (int e = 0; e < K::W; e++) {
        const float a = units.inverse_h * h[e], w = units.inverse_u * u[e] - s.cosine * a;
        h[e] = s.of_a * a + s.of_m * (rate[e] * w);
      }
      ring.put((T *)out, n, chunk, h);
    }
    if (shape.stages == 2) stage = 1 - stage;
  }
}

template <class K> struct kp_sphere_forward {
  static constexpr int TENSORS = ::TENSORS;
  static kp_status run(const kp_call *call, const kp_ring_shape &shape, size_t bytes, kp_error *error,
                       const kp_sphere_operands &k, const bool &slerp) {
    const auto kernel = slerp ? kp_sphere_kernel<K, true> : kp_sphere_kernel<K, false>;
    const int blocks = kp_ring_blocks<K>(call, (const void *)kernel, shape, bytes, (int64_t)1 << 30);
    kernel<<<blocks, K::THREADS, bytes, kp_cuda_of(call)->stream>>>(shape, k, call->output[0]);
    return kp_launched(call, error);
  }
};

extern "C" kp_status kp_cuda_sphere_residual(const kp_call *call, kp_error *error) {
  const kp_sphere_arguments *arguments = (const kp_sphere_arguments *)call->node->arguments;
  const kp_row_plan plan = kp_row_plan_of(call, call->node->input[0]);
  if (!kp_row_fits(call, plan, call->node->input[1]) || !kp_row_fits(call, plan, call->node->output[0]) ||
      kp_tensor_is_half(call, call->node->input[2]))
    return kp_row_misfit(call, error);
  const bool slerp = arguments->step == KP_SPHERE_SLERP;
  return kp_with_ring<kp_sphere_forward>(call, plan, error, kp_sphere_operands_of(call), slerp);
}
