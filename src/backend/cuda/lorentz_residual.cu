/* The seam of a Lorentz network, forward: normalised sum of two points, RMSNorm and lift in one pass.
 *
 * A Lorentz norm is the difference of large squares: inner products are summed in float by a thread and in
 * double from there on, and the difference is taken in double. */
#include "backend/cuda/lorentz_residual.cuh"

struct kp_lorentz_results {
  void *stream, *y; /* (N, C); either may be NULL */
  kp_results stream_time, y_time, statistics;
};

/* What a row is multiplied by: z = factor a, y = inverse weight z. */
struct kp_lorentz_scalars {
  float factor, inverse;
};

enum { SUM_XX, SUM_UU, SUM_AA, SUM_WEIGHTED, SUMS };

/* From the inner products of row n to its scalars; one thread writes times and statistics. */
__device__ static kp_lorentz_scalars row_scalars(const kp_lorentz_operands &k, const kp_lorentz_results &out,
                                                 int64_t n, int64_t C, float w, const double (&sum)[SUMS],
                                                 bool writes) {
  const float c = k.radius();
  float statistics[KP_LORENTZ_STATISTICS] = {0, 0, 0, 0, 0};
  float kappa = 1;
  if (k.u != NULL) {
    const double tx = k.x_time.at != NULL ? (double)k.x_time[n] : kp_fine_sqrt(sum[SUM_XX] + (double)c);
    const double tu = k.u_time.at != NULL ? (double)k.u_time[n] : kp_fine_sqrt(sum[SUM_UU] + (double)c);
    const double time = tx + (double)w * tu, square = time * time - sum[SUM_AA];
    const bool floored = fabs(square) < k.floor;
    const float unit = sqrtf(c / (float)(floored ? k.floor : fabs(square)));
    kappa = k.factor() * unit;
    statistics[KP_LORENTZ_FACTOR] = unit;
    statistics[KP_LORENTZ_INVERSE_SQUARE] = floored ? 0 : 1 / (float)square;
    statistics[KP_LORENTZ_STREAM_TIME] = (float)tx;
    statistics[KP_LORENTZ_BRANCH_TIME] = (float)tu;
  }
  const float squares = kappa * kappa * (float)sum[SUM_AA];
  float inverse = 0;
  if (out.y != NULL) inverse = 1 / sqrtf(squares / (float)C + k.epsilon);
  statistics[KP_LORENTZ_INVERSE_DEVIATION] = inverse;
  if (writes) {
    if (out.stream_time.at != NULL) out.stream_time.set(n, sqrtf(squares + c));
    const float y_factor = inverse * kappa;
    if (out.y_time.at != NULL) out.y_time.set(n, sqrtf(y_factor * y_factor * (float)sum[SUM_WEIGHTED] + c));
    for (int i = 0; i < KP_LORENTZ_STATISTICS; i++)
      out.statistics.set(n * KP_LORENTZ_STATISTICS + i, statistics[i]);
  }
  return kp_lorentz_scalars{kappa, inverse};
}

enum { X, U, TENSORS };

/* Sums of a lane in float: a row's share of it is short; the lanes' sums in double. */
template <class K>
__device__ static void row_sums(const kp_ring<K, TENSORS> &ring, const unsigned char *place,
                                const kp_ring_vector<K> &weights, float w, double (&sum)[SUMS]) {
  float part[SUMS] = {0, 0, 0, 0};
#pragma unroll 2
  for (int j = 0; j < ring.left; j++) {
    float x[K::W], u[K::W], weight[K::W];
    ring.get(place + j * ring.STEP, X, x), ring.get(place + j * ring.STEP, U, u);
    weights.get(j, weight);
#pragma unroll
    for (int e = 0; e < K::W; e++) {
      const float a = x[e] + w * u[e], b = weight[e] * a;
      part[SUM_XX] += x[e] * x[e], part[SUM_UU] += u[e] * u[e];
      part[SUM_AA] += a * a, part[SUM_WEIGHTED] += b * b;
    }
  }
#pragma unroll
  for (int i = 0; i < SUMS; i++) sum[i] = (double)part[i];
  kp_team_sums<K>(sum);
}

/* Bytes: x and u read, x' and y written, once each, (2 + 2) · N · C · size; with the times and statistics 36
 * a row.  About 12 FLOPs a channel: bound by memory. */
template <class K>
__global__ void __launch_bounds__(K::THREADS)
    kp_lorentz_kernel(const kp_ring_shape shape, const kp_lorentz_operands k, const kp_lorentz_results out) {
  extern __shared__ __align__(16) unsigned char shared[];
  using T = typename K::T;
  const kp_ring_vector<K> weights(shape, kp_behind<K>(shape, shared), k.weight, [](float x) { return x; });
  kp_ring<K, TENSORS> ring(shape, shared);
  ring.tensor[X] = (const T *)k.x, ring.tensor[U] = (const T *)k.u;
  ring.clear_absent();
  int stage = 0;
  ring.fetch(ring.row, stage);
  for (int64_t n = ring.row; n < shape.rows; n += ring.stride) {
    const float w = k.branch_weight(n);
    double sum[SUMS];
    const unsigned char *const place = ring.advance(n, stage);
    row_sums(ring, place, weights, w, sum);
    const kp_lorentz_scalars s = row_scalars(k, out, n, shape.C, w, sum, ring.thread == 0);
    T *const stream = ring.out(out.stream, n), *const y = ring.out(out.y, n);
    const float of_u = s.factor * w;
#pragma unroll 2
    for (int j = 0; j < ring.left; j++) {
      float x[K::W], u[K::W], weight[K::W];
      ring.get(place + j * ring.STEP, X, x), ring.get(place + j * ring.STEP, U, u);
#pragma unroll
      for (int e = 0; e < K::W; e++) x[e] = s.factor * x[e] + of_u * u[e];
      ring.put(stream, j, x);
      if (y == NULL) continue;
      weights.get(j, weight);
#pragma unroll
      for (int e = 0; e < K::W; e++) x[e] *= s.inverse * weight[e];
      ring.put(y, j, x);
    }
    if (shape.stages == 2) stage = 1 - stage;
  }
}

template <class K> struct kp_lorentz_forward {
  static constexpr int TENSORS = ::TENSORS;
  static kp_status run(const kp_call *call, const kp_ring_shape &shape, size_t bytes, kp_error *error,
                       const kp_lorentz_operands &k, const kp_lorentz_results &out) {
    const int blocks =
        kp_ring_blocks<K>(call, (const void *)kp_lorentz_kernel<K>, shape, bytes, (int64_t)1 << 30);
    kp_lorentz_kernel<K><<<blocks, K::THREADS, bytes, kp_cuda_of(call)->stream>>>(shape, k, out);
    return kp_launched(call, error);
  }
};

extern "C" kp_status kp_cuda_lorentz_residual(const kp_call *call, kp_error *error) {
  const kp_row_plan plan = kp_row_plan_of(call, call->node->input[0]);
  static const int inputs[] = {2}, outputs[] = {0, 2};
  if (!kp_lorentz_fits(call, plan, inputs, 1, outputs, 2)) return kp_row_misfit(call, error);
  const kp_lorentz_results out = {call->output[0], call->output[2], kp_output_numbers(call, 1),
                                  kp_output_numbers(call, 3), kp_output_numbers(call, 4)};
  return kp_with_ring<kp_lorentz_forward>(call, plan, error, kp_lorentz_operands_of(call), out);
}
