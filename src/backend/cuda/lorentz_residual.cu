/* The seam of a Lorentz network, forward: normalised sum of two points, RMSNorm and lift in one pass.
 *
 * A Lorentz norm is the difference of large squares: inner products are summed in float over a chunk and in
 * double from there on, and the scalars of a row that cancel are in double. */
#include "backend/cuda/lorentz_residual.cuh"

struct kp_lorentz_results {
  void *stream, *y; /* (N, C); either may be NULL */
  kp_results stream_time, y_time, statistics;
};

/* What a row's rows of channels are multiplied by: z = factor a, y = inverse weight z. */
struct kp_lorentz_scalars {
  float w, factor, inverse;
};

enum { SUM_XX, SUM_UU, SUM_AA, SUM_WEIGHTED, SUMS };

/* From the inner products of row n to its scalars; one thread writes times and statistics. */
__device__ static kp_lorentz_scalars row_scalars(const kp_lorentz_operands &k, const kp_lorentz_results &out,
                                                 int64_t n, float w, const double (&sum)[SUMS], bool writes) {
  const double c = k.radius();
  float statistics[KP_LORENTZ_STATISTICS] = {0, 0, 0, 0, 0};
  double kappa = 1;
  if (k.u != NULL) {
    const double tx = k.x_time.at != NULL ? (double)k.x_time[n] : sqrt(sum[SUM_XX] + c);
    const double tu = k.u_time.at != NULL ? (double)k.u_time[n] : sqrt(sum[SUM_UU] + c);
    const double time = tx + (double)w * tu, square = time * time - sum[SUM_AA];
    const bool floored = fabs(square) < k.floor;
    const float unit = (float)sqrt(c / (floored ? k.floor : fabs(square)));
    kappa = k.factor() * (double)unit;
    statistics[KP_LORENTZ_FACTOR] = unit;
    statistics[KP_LORENTZ_INVERSE_SQUARE] = floored ? 0 : (float)(1 / square);
    statistics[KP_LORENTZ_STREAM_TIME] = (float)tx;
    statistics[KP_LORENTZ_BRANCH_TIME] = (float)tu;
  }
  const double squares = kappa * kappa * sum[SUM_AA];
  float inverse = 0;
  if (out.y != NULL) inverse = 1 / sqrtf((float)(squares / (double)k.C + k.epsilon));
  statistics[KP_LORENTZ_INVERSE_DEVIATION] = inverse;
  if (writes) {
    if (out.stream_time.at != NULL) out.stream_time.set(n, sqrtf((float)(squares + c)));
    const float y_squares = inverse * inverse * (float)(kappa * kappa * sum[SUM_WEIGHTED]);
    if (out.y_time.at != NULL) out.y_time.set(n, sqrtf(y_squares + (float)c));
    for (int i = 0; i < KP_LORENTZ_STATISTICS; i++)
      out.statistics.set(n * KP_LORENTZ_STATISTICS + i, statistics[i]);
  }
  return kp_lorentz_scalars{w, (float)kappa, inverse};
}

/* Bytes: x and u read, x' and y written, once each, (2 + 2) · N · C · size; with the times and statistics 36
 * a row.  About 12 FLOPs a channel: bound by memory. */
template <typename T, int W, int CHUNKS>
__global__ void __launch_bounds__(KP_ROW_THREADS)
    kp_lorentz_kernel(const kp_lorentz_operands k, const kp_lorentz_results out) {
  const kp_team<CHUNKS> team;
  const kp_row_shape<W, CHUNKS> shape = {k.C, k.chunks};
  const int64_t n = team.index, at = n * k.pitch;
  if (n >= k.rows) return;
  kp_row<T, W, CHUNKS> x((const T *)k.x + at, shape, team.thread);
  kp_row<T, W, CHUNKS> u(k.u == NULL ? NULL : (const T *)k.u + at, shape, team.thread);
  const float w = k.branch_weight(n);
  double sum[SUMS] = {0, 0, 0, 0};
#pragma unroll
  for (int j = 0; j < shape.steps(); j++) {
    float xs[W], us[W], weight[W], part[SUMS] = {0, 0, 0, 0};
    x.get(j, xs), u.get(j, us);
    kp_get_columns<W>(k.weight, (int64_t)shape.chunk(j, team.thread) * W, k.C, weight);
#pragma unroll
    for (int e = 0; e < W; e++) {
      const float a = xs[e] + w * us[e], b = weight[e] * a;
      part[SUM_XX] += xs[e] * xs[e], part[SUM_UU] += us[e] * us[e];
      part[SUM_AA] += a * a, part[SUM_WEIGHTED] += b * b;
    }
#pragma unroll
    for (int i = 0; i < SUMS; i++) sum[i] += (double)part[i];
  }
  kp_team_sums<CHUNKS>(sum);
  const kp_lorentz_scalars s = row_scalars(k, out, n, w, sum, team.thread == 0);
  x.keep(), u.keep();
  const kp_vector again = kp_again(k.weight);
  T *const stream = out.stream == NULL ? NULL : (T *)out.stream + at, *const y = (T *)out.y + at;
#pragma unroll
  for (int j = 0; j < shape.steps(); j++) {
    float xs[W], us[W], weight[W];
    x.get(j, xs), u.get(j, us);
#pragma unroll
    for (int e = 0; e < W; e++) xs[e] = s.factor * (xs[e] + s.w * us[e]);
    kp_put(stream, shape, j, team.thread, xs);
    if (out.y == NULL) continue;
    kp_get_columns<W>(again, (int64_t)shape.chunk(j, team.thread) * W, k.C, weight);
#pragma unroll
    for (int e = 0; e < W; e++) xs[e] = s.inverse * weight[e] * xs[e];
    kp_put(y, shape, j, team.thread, xs);
  }
}

template <typename T, int W, int CHUNKS> struct kp_lorentz_forward {
  static kp_status run(const kp_row_plan &plan, const kp_call *call, const kp_lorentz_operands &k,
                       const kp_lorentz_results &out, kp_error *error) {
    const int blocks = kp_blocks(plan.rows, kp_team<CHUNKS>::per_block);
    kp_lorentz_kernel<T, W, CHUNKS><<<blocks, KP_ROW_THREADS, 0, kp_cuda_of(call)->stream>>>(k, out);
    return kp_launched(call, error);
  }
};

extern "C" kp_status kp_cuda_lorentz_residual(const kp_call *call, kp_error *error) {
  const kp_row_plan plan = kp_row_plan_of(call, call->node->input[0]);
  static const int inputs[] = {2}, outputs[] = {0, 2};
  if (!kp_lorentz_fits(call, plan, inputs, 1, outputs, 2)) return kp_row_misfit(call, error);
  const kp_lorentz_operands k = kp_lorentz_operands_of(call, plan);
  const kp_lorentz_results out = {call->output[0], call->output[2], kp_output_numbers(call, 1),
                                  kp_output_numbers(call, 3), kp_output_numbers(call, 4)};
  return kp_with_rows<kp_lorentz_forward>(plan, call, k, out, error);
}
