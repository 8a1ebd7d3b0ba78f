/* The residual step on the unit sphere, by lerp and normalisation or along great circles. */
#include "backend/cuda/sphere_residual.cuh"

template <typename T, int W, int CHUNKS> struct kp_sphere_row {
  kp_row<T, W, CHUNKS> h, u;
  kp_row_shape<W, CHUNKS> shape;
  kp_sphere_units units;
  T *out;
  int thread;
};

/* r = A + λ (B - A), h' = r/|r| */
template <typename T, int W, int CHUNKS>
__device__ static void lerp(kp_sphere_operands k, kp_sphere_row<T, W, CHUNKS> &row) {
  double sum[1] = {0};
  float inverse = 1;
  for (int pass = 0; pass < 2; pass++) {
#pragma unroll
    for (int j = 0; j < row.shape.steps(); j++) {
      float h[W], u[W], rate[W], part = 0;
      row.h.get(j, h), row.u.get(j, u);
      kp_get_rates<W>(k, (int64_t)row.shape.chunk(j, row.thread) * W, rate);
#pragma unroll
      for (int e = 0; e < W; e++) {
        const float a = row.units.inverse_h * h[e], b = row.units.inverse_u * u[e];
        const float r = a + rate[e] * (b - a);
        part += r * r;
        h[e] = inverse * r;
      }
      sum[0] += (double)part;
      if (pass == 1) kp_put(row.out, row.shape, j, row.thread, h);
    }
    if (pass == 1) return;
    row.h.keep(), row.u.keep(), k.rate = kp_again(k.rate);
    kp_team_sums<CHUNKS>(sum);
    inverse = (float)kp_sphere_inverse_length(sum[0]);
  }
}

/* h' = cos|p| A + S p, p = s - <A,s> A, s = ρ λ w, w = B - <A,B> A */
template <typename T, int W, int CHUNKS>
__device__ static void slerp(kp_sphere_operands k, kp_sphere_row<T, W, CHUNKS> &row) {
  enum { WW, MA, MM };
  const float cosine = (float)row.units.cosine;
  double sum[4] = {0, 0, 0, 0};
  float of_a = 0, of_m = 0;
  for (int pass = 0; pass < 2; pass++) {
#pragma unroll
    for (int j = 0; j < row.shape.steps(); j++) {
      float h[W], u[W], rate[W], part[3] = {0, 0, 0};
      row.h.get(j, h), row.u.get(j, u);
      kp_get_rates<W>(k, (int64_t)row.shape.chunk(j, row.thread) * W, rate);
#pragma unroll
      for (int e = 0; e < W; e++) {
        const float a = row.units.inverse_h * h[e], w = row.units.inverse_u * u[e] - cosine * a;
        const float m = rate[e] * w;
        part[WW] += w * w, part[MA] += m * a, part[MM] += m * m;
        h[e] = of_a * a + of_m * m;
      }
#pragma unroll
      for (int i = 0; i < 3; i++) sum[i] += (double)part[i];
      if (pass == 1) kp_put(row.out, row.shape, j, row.thread, h);
    }
    if (pass == 1) return;
    row.h.keep(), row.u.keep(), k.rate = kp_again(k.rate);
    kp_team_sums<CHUNKS>(sum);
    const double ratio = kp_sphere_log_of(sum[WW], row.units.cosine).ratio, normal = ratio * sum[MA];
    const kp_sine_cosine exp = kp_sine_cosine_of(kp_max(ratio * ratio * sum[MM] - normal * normal, 0));
    of_a = (float)(exp.cosine.value - exp.sine_ratio.value * normal);
    of_m = (float)(exp.sine_ratio.value * ratio);
  }
}

/* Bytes: h and u read, h' written, once each: 3 · N · C · size; about 20 FLOPs a channel: bound by memory. */
template <typename T, int W, int CHUNKS, bool SLERP>
__global__ void __launch_bounds__(KP_ROW_THREADS) kp_sphere_kernel(const kp_sphere_operands k, void *out) {
  const kp_team<CHUNKS> team;
  const kp_row_shape<W, CHUNKS> shape = {k.C, k.chunks};
  const int64_t at = team.index * k.pitch;
  if (team.index >= k.rows) return;
  kp_sphere_row<T, W, CHUNKS> row = {{(const T *)k.h + at, shape, team.thread},
                                     {(const T *)k.u + at, shape, team.thread},
                                     shape,
                                     {},
                                     (T *)out + at,
                                     team.thread};
  row.units = kp_sphere_units_of(row.h, row.u, shape);
  row.h.keep(), row.u.keep();
  if (SLERP)
    slerp(k, row);
  else
    lerp(k, row);
}

template <typename T, int W, int CHUNKS> struct kp_sphere_forward {
  static kp_status run(const kp_row_plan &plan, const kp_call *call, const kp_sphere_operands &k,
                       bool is_slerp, kp_error *error) {
    const int blocks = kp_blocks(plan.rows, kp_team<CHUNKS>::per_block);
    cudaStream_t stream = kp_cuda_of(call)->stream;
    if (is_slerp)
      kp_sphere_kernel<T, W, CHUNKS, true><<<blocks, KP_ROW_THREADS, 0, stream>>>(k, call->output[0]);
    else
      kp_sphere_kernel<T, W, CHUNKS, false><<<blocks, KP_ROW_THREADS, 0, stream>>>(k, call->output[0]);
    return kp_launched(call, error);
  }
};

extern "C" kp_status kp_cuda_sphere_residual(const kp_call *call, kp_error *error) {
  const kp_sphere_arguments *arguments = (const kp_sphere_arguments *)call->node->arguments;
  const kp_row_plan plan = kp_row_plan_of(call, call->node->input[0]);
  if (!kp_row_fits(call, plan, call->node->input[1]) || !kp_row_fits(call, plan, call->node->output[0]) ||
      kp_tensor_is_half(call, call->node->input[2]))
    return kp_row_misfit(call, error);
  return kp_with_rows<kp_sphere_forward>(plan, call, kp_sphere_operands_of(call, plan),
                                         arguments->step == KP_SPHERE_SLERP, error);
}
