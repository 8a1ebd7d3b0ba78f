/* The residual step on the unit sphere, by lerp and normalisation or along great circles.
 *
 * A step takes its sums over a row when it is made, and then gives h' chunk by chunk. */
#include "backend/cuda/sphere_residual.cuh"

/* r = A + λ (B - A), h' = r/|r|.  With t = (1 - λ) h and s = λ u, r is inverse_h t + inverse_u s: all sums
 * are taken in one pass. */
template <class K> struct kp_lerp {
  float of_h, of_u;

  __device__ kp_lerp(const kp_held_row<K> &h_row, const kp_held_row<K> &u_row,
                     const kp_shared_vector<K> &rates) {
    enum { HH, UU, TT, TS, SS };
    float sum[8] = {0, 0, 0, 0, 0, 0, 0, 0};
#pragma unroll
    for (int j = 0; j < K::STEPS; j++) {
      float h[K::W], u[K::W], rate[K::W];
      h_row.get(j, h), u_row.get(j, u);
      rates.get(j, rate);
#pragma unroll
      for (int e = 0; e < K::W; e++) {
        const float t = h[e] - rate[e] * h[e], s = rate[e] * u[e];
        sum[HH] += h[e] * h[e], sum[UU] += u[e] * u[e];
        sum[TT] += t * t, sum[TS] += t * s, sum[SS] += s * s;
      }
    }
    kp_team_sums<K>(sum);
    const float a = kp_inverse_length(sum[HH]), b = kp_inverse_length(sum[UU]);
    const float inverse = kp_inverse_length(a * a * sum[TT] + 2 * a * b * sum[TS] + b * b * sum[SS]);
    of_h = inverse * a, of_u = inverse * b;
  }
  __device__ void operator()(float (&h)[K::W], const float (&u)[K::W], const float (&rate)[K::W]) const {
#pragma unroll
    for (int e = 0; e < K::W; e++) h[e] = of_h * (h[e] - rate[e] * h[e]) + of_u * (rate[e] * u[e]);
  }
};

/* h' = cos|p| A + S p, p = s - <A,s> A, s = ρ λ w */
template <class K> struct kp_slerp {
  kp_sphere_tangent tangent;
  float of_h, of_m; /* m = λ w */

  __device__ kp_slerp(const kp_held_row<K> &h_row, const kp_held_row<K> &u_row,
                      const kp_shared_vector<K> &rates)
      : tangent(kp_sphere_tangent_of(h_row, u_row)) {
    enum { WW, MA, MM };
    float sum[4] = {0, 0, 0, 0};
#pragma unroll
    for (int j = 0; j < K::STEPS; j++) {
      float h[K::W], u[K::W], rate[K::W];
      h_row.get(j, h), u_row.get(j, u);
      rates.get(j, rate);
#pragma unroll
      for (int e = 0; e < K::W; e++) {
        float a, b, w;
        tangent.get(h[e], u[e], a, b, w);
        const float m = rate[e] * w;
        sum[WW] += w * w, sum[MA] += m * a, sum[MM] += m * m;
      }
    }
    kp_team_sums<K>(sum);
    const double ratio = kp_sphere_log_of((double)sum[WW], tangent.cosine).ratio,
                 normal = ratio * (double)sum[MA];
    const kp_sine_cosine exp =
        kp_sine_cosine_of(kp_max(ratio * ratio * (double)sum[MM] - normal * normal, 0));
    of_h = (float)(exp.cosine.value - exp.sine_ratio.value * normal) * tangent.float_h;
    of_m = (float)(exp.sine_ratio.value * ratio);
  }
  __device__ void operator()(float (&h)[K::W], const float (&u)[K::W], const float (&rate)[K::W]) const {
#pragma unroll
    for (int e = 0; e < K::W; e++) {
      float a, b, w;
      tangent.get(h[e], u[e], a, b, w);
      h[e] = of_h * h[e] + of_m * (rate[e] * w);
    }
  }
};

/* Bytes: h and u read, h' written, once each: 3 · N · C · size; about 20 FLOPs a channel: bound by memory. */
template <class K, class Step>
__global__ void __launch_bounds__(K::THREADS, K::TEAM == 32 ? (K::STEPS < 3 ? 6 : 4) : 1)
    kp_sphere_kernel(const kp_row_shape shape, const kp_sphere_operands k, void *out) {
  extern __shared__ __align__(16) float shared[];
  const kp_row_team<K> team(shape);
  kp_held_row<K> h_row, u_row;
  h_row.fetch(team, k.h, team.row), u_row.fetch(team, k.u, team.row);
  const kp_shared_vector<K> rates(shape, shared, k.rate, [&](float x) { return fabsf(x * k.factor); });
  for (int64_t n = team.row; n < shape.rows; n += team.stride) {
    h_row.expect(team, k.h, n + team.stride), u_row.expect(team, k.u, n + team.stride);
    const Step step(h_row, u_row, rates);
#pragma unroll
    for (int j = 0; j < K::STEPS; j++) {
      float h[K::W], u[K::W], rate[K::W];
      h_row.get(j, h), u_row.get(j, u);
      rates.get(j, rate);
      step(h, u, rate);
      team.put(out, n, j, h);
    }
    h_row.fetch(team, k.h, n + team.stride), u_row.fetch(team, k.u, n + team.stride);
  }
}

template <class K> struct kp_sphere_forward {
  static kp_status run(const kp_call *call, const kp_row_shape &shape, kp_error *error,
                       const kp_sphere_operands &k, const bool &slerp) {
    const auto kernel = slerp ? kp_sphere_kernel<K, kp_slerp<K>> : kp_sphere_kernel<K, kp_lerp<K>>;
    const int blocks = kp_row_blocks<K>(call, (const void *)kernel, shape, (int64_t)1 << 30);
    kernel<<<blocks, K::THREADS, K::BYTES, kp_cuda_of(call)->stream>>>(shape, k, call->output[0]);
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
  return kp_with_row_kind<kp_sphere_forward>(call, plan, error, kp_sphere_operands_of(call), slerp);
}
