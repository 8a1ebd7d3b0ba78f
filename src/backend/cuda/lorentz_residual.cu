/* The seam of a Lorentz network, forward: normalised sum of two points, RMSNorm and lift in one pass.
 *
 * A Lorentz norm is the difference of large squares: inner products are summed in float by a thread and in
 * double from there on, and the difference is taken in double. */
#include "backend/cuda/lorentz_residual.cuh"

struct kp_lorentz_results {
  void *stream, *y;                         /* (N, C); either may be NULL */
  float *stream_time, *y_time, *statistics; /* the times with their points */
};

/* What a row is multiplied by: z = factor a, y = inverse weight z. */
struct kp_lorentz_scalars {
  float factor, inverse;
};

/* Of a row: w, and the times that were given. */
struct kp_lorentz_row {
  float w, x_time, u_time;
  __device__ kp_lorentz_row(const kp_lorentz_operands &k, const kp_lorentz_constants &constants, int64_t n)
      : w(constants.branch_weight(k, n)), x_time(k.x_time.at == NULL ? 0 : k.x_time[n]),
        u_time(k.u_time.at == NULL ? 0 : k.u_time[n]) {}
};

enum { SUM_XX, SUM_UU, SUM_AA, SUM_WEIGHTED, SUMS };

/* From the inner products of row n to its scalars; one thread writes times and statistics. */
__device__ static kp_lorentz_scalars row_scalars(const kp_lorentz_operands &k,
                                                 const kp_lorentz_constants &all, const kp_lorentz_row &row,
                                                 const kp_lorentz_results &out, int64_t n, float inverse_C,
                                                 const double (&sum)[SUMS], bool writes) {
  const double c = (double)all.c;
  float kappa = 1, unit = 0, inverse_square = 0, inverse = 0;
  double tx = 0, tu = 0;
  if (k.u != NULL) {
    tx = k.x_time.at != NULL ? (double)row.x_time : kp_fine_sqrt(sum[SUM_XX] + c);
    tu = k.u_time.at != NULL ? (double)row.u_time : kp_fine_sqrt(sum[SUM_UU] + c);
    const double time = tx + (double)row.w * tu, square = time * time - sum[SUM_AA];
    const bool floored = fabs(square) < k.floor;
    unit = sqrtf(all.c / (float)(floored ? k.floor : fabs(square)));
    inverse_square = floored ? 0 : 1 / (float)square;
    kappa = all.s * unit;
  }
  const float squares = kappa * kappa * (float)sum[SUM_AA];
  if (out.y != NULL) inverse = rsqrtf(squares * inverse_C + k.epsilon);
  if (writes) {
    const float y_factor = inverse * kappa;
    if (out.stream != NULL) out.stream_time[n] = sqrtf(squares + all.c);
    if (out.y != NULL) out.y_time[n] = sqrtf(y_factor * y_factor * (float)sum[SUM_WEIGHTED] + all.c);
    float *const statistics = out.statistics + n * KP_LORENTZ_STATISTICS;
    statistics[KP_LORENTZ_FACTOR] = unit;
    statistics[KP_LORENTZ_INVERSE_SQUARE] = inverse_square;
    statistics[KP_LORENTZ_INVERSE_DEVIATION] = inverse;
    statistics[KP_LORENTZ_STREAM_TIME] = (float)tx;
    statistics[KP_LORENTZ_BRANCH_TIME] = (float)tu;
  }
  return kp_lorentz_scalars{kappa, inverse};
}

/* The sums of row n, and a in place of x.  A lane's in float: a row's share of it is short; the lanes' sums
 * in double. */
template <class K>
__device__ static void row_sums(const kp_held_row<K> &x, const kp_held_row<K> &u,
                                const kp_shared_vector<K> &weights, float w, float (&a)[K::STEPS][K::W],
                                double (&sum)[SUMS]) {
  float part[SUMS] = {0, 0, 0, 0};
#pragma unroll
  for (int j = 0; j < K::STEPS; j++) {
    float branch[K::W], weight[K::W];
    x.get(j, a[j]), u.get(j, branch);
    weights.get(j, weight);
#pragma unroll
    for (int e = 0; e < K::W; e++) {
      part[SUM_XX] += a[j][e] * a[j][e], part[SUM_UU] += branch[e] * branch[e];
      a[j][e] += w * branch[e];
      const float weighted = weight[e] * a[j][e];
      part[SUM_AA] += a[j][e] * a[j][e], part[SUM_WEIGHTED] += weighted * weighted;
    }
  }
#pragma unroll
  for (int i = 0; i < SUMS; i++) sum[i] = (double)part[i];
  kp_team_sums<K>(sum);
}

/* Bytes: x and u read, x' and y written, once each, (2 + 2) · N · C · size; with the times and statistics 36
 * a row.  About 12 FLOPs a channel and as many instructions: bound by memory. */
template <class K>
__global__ void __launch_bounds__(K::THREADS, K::TEAM == 32 ? (K::STEPS < 3 ? 6 : 4) : 1)
    kp_lorentz_kernel(const kp_row_shape shape, const kp_lorentz_operands k, const kp_lorentz_results out) {
  extern __shared__ __align__(16) float shared[];
  const kp_row_team<K> team(shape);
  kp_held_row<K> x, u;
  x.fetch(team, k.x, team.row), u.fetch(team, k.u, team.row);
  const kp_shared_vector<K> weights(shape, shared, k.weight, [](float number) { return number; });
  const kp_lorentz_constants all(k);
  const float inverse_C = 1 / (float)shape.C;
  for (int64_t n = team.row; n < shape.rows; n += team.stride) {
    const kp_lorentz_row row(k, all, n); /* on its way while the sums are taken */
    float a[K::STEPS][K::W];
    double sum[SUMS];
    row_sums(x, u, weights, row.w, a, sum);
    x.fetch(team, k.x, n + team.stride), u.fetch(team, k.u, n + team.stride);
    const kp_lorentz_scalars s = row_scalars(k, all, row, out, n, inverse_C, sum, team.thread == 0);
#pragma unroll
    for (int j = 0; j < K::STEPS; j++) {
      float weight[K::W];
#pragma unroll
      for (int e = 0; e < K::W; e++) a[j][e] *= s.factor;
      team.put(out.stream, n, j, a[j]);
      if (out.y == NULL) continue;
      weights.get(j, weight);
#pragma unroll
      for (int e = 0; e < K::W; e++) a[j][e] *= s.inverse * weight[e];
      team.put(out.y, n, j, a[j]);
    }
  }
}

template <class K> struct kp_lorentz_forward {
  static kp_status run(const kp_call *call, const kp_row_shape &shape, kp_error *error,
                       const kp_lorentz_operands &k, const kp_lorentz_results &out) {
    const int blocks = kp_row_blocks<K>(call, (const void *)kp_lorentz_kernel<K>, shape, (int64_t)1 << 30);
    kp_lorentz_kernel<K><<<blocks, K::THREADS, K::BYTES, kp_cuda_of(call)->stream>>>(shape, k, out);
    return kp_launched(call, error);
  }
};

extern "C" kp_status kp_cuda_lorentz_residual(const kp_call *call, kp_error *error) {
  const kp_row_plan plan = kp_row_plan_of(call, call->node->input[0]);
  static const int inputs[] = {2}, outputs[] = {0, 2};
  if (!kp_lorentz_fits(call, plan, inputs, 1, outputs, 2)) return kp_row_misfit(call, error);
  float *const *to = (float *const *)call->output;
  const kp_lorentz_results out = {to[0], to[2], to[1], to[3], to[4]};
  return kp_with_row_kind<kp_lorentz_forward>(call, plan, error, kp_lorentz_operands_of(call), out);
}
