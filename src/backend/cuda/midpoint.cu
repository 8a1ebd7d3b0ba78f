/* Weighted gyromidpoints of each row's M points, forward and backward (formulas: geometry/midpoint.h).
 *
 * A warp takes one group of a row (backward: all groups of a row, whose weights they share): squares of the
 * points, the mean vector in shared memory, and on the way back the points' inner products with it.  Scalars
 * and sums are in double.  The points are read twice, the second time from the cache: M C elements a row from
 * memory, and C out (backward M C); about 10 operations an element, so memory and latency bound it. */
#include "backend/cuda/seam_sums.cuh"

#include "geometry/midpoint.h"

struct midpoints {
  int64_t N;
  int M, C, D, pitch, weight_pitch, gweight_pitch;
  const void *points, *g;
  kp_numbers weights;
  kp_curvatures kappa;
  void *out, *gpoints;
  kp_results gweights; /* at is NULL: not wanted */
  double *bars;        /* (N, G), or NULL */
};

static midpoints midpoints_of(const kp_call *call) {
  const kp_tensor *points = call->node->input[0], *weights = call->node->input[1];
  midpoints m = {};
  m.N = points->shape[0], m.M = (int)points->shape[1], m.C = (int)points->shape[2];
  m.pitch = (int)kp_pitch(points), m.weight_pitch = (int)kp_pitch(weights);
  m.points = call->input[0];
  m.weights = kp_input_numbers(call, 1);
  m.kappa = kp_curvatures_of(call, 2, m.N);
  m.D = m.C / m.kappa.groups;
  return m;
}

/* A warp's shared memory. */
struct midpoint_memory {
  double *mean;        /* (D) */
  double *squares;     /* (M) */
  double *factors;     /* (M): of each point in the mean */
  double *weights_bar; /* (M) */
};

__device__ static midpoint_memory memory_of(const midpoints &m, double *shared) {
  double *own = shared + (threadIdx.x / 32) * (m.D + 3 * m.M);
  return midpoint_memory{own, own + m.D, own + m.D + m.M, own + m.D + 2 * m.M};
}

/* The weight of point i of row n, whose rows are padded where the tensor is a matrix. */
__device__ static double weight_of(const midpoints &m, int64_t n, int i) {
  return (double)m.weights[n * m.weight_pitch + i];
}

template <typename T> __device__ static double square_of(const T *point, int D, int lane) {
  double sum = 0;
  for (int d = lane; d < D; d += 32) {
    const double x = kp_to_float(point[d]);
    sum += x * x;
  }
  return kp_warp_sum(sum);
}

/* What the mean of one row and group is; its vector is in memory.mean. */
struct midpoint_mean {
  double denominator, square;
};

template <typename T>
__device__ static midpoint_mean mean_of(const midpoints &m, int64_t n, int group, double kappa,
                                        const midpoint_memory &memory, int lane) {
  const T *points = (const T *)m.points + n * m.M * m.pitch + group * m.D;
  double denominator = 0;
  for (int i = 0; i < m.M; i++) {
    const double square = square_of(points + (int64_t)i * m.pitch, m.D, lane), weight = weight_of(m, n, i);
    const kp_midpoint_factor factor = kp_midpoint_factor_of(square, kappa);
    denominator += weight * factor.denominator;
    if (lane == 0) memory.squares[i] = square, memory.factors[i] = weight * factor.conformal;
  }
  __syncwarp();
  denominator = kp_midpoint_floor(denominator);
  double square = 0;
  for (int d = lane; d < m.D; d += 32) {
    double sum = 0;
    for (int i = 0; i < m.M; i++)
      sum += memory.factors[i] * (double)kp_to_float(points[(int64_t)i * m.pitch + d]);
    sum /= denominator;
    memory.mean[d] = sum;
    square += sum * sum;
  }
  return midpoint_mean{denominator, kp_warp_sum(square)};
}

/* Zeros behind a row's columns. */
template <typename T> __device__ static void clear_padding(T *row, int columns, int pitch, int lane) {
  for (int c = columns + lane; c < pitch; c += 32) row[c] = kp_from_float<T>(0.0f);
}

template <typename T> __global__ static void __launch_bounds__(128) midpoint_kernel(const midpoints m) {
  extern __shared__ double shared[];
  const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
  const midpoint_memory memory = memory_of(m, shared);
  const int64_t task = (int64_t)blockIdx.x * warps + threadIdx.x / 32;
  if (task >= m.N * m.kappa.groups) return;
  const int64_t n = task / m.kappa.groups;
  const int group = (int)(task % m.kappa.groups);
  const double kappa = m.kappa.at(n, group);
  const midpoint_mean mean = mean_of<T>(m, n, group, kappa, memory, lane);
  const double factor = kp_midpoint_close(kappa * mean.square).value;
  T *row = (T *)m.out + n * m.pitch;
  for (int d = lane; d < m.D; d += 32)
    row[group * m.D + d] = kp_from_float<T>((float)(factor * memory.mean[d]));
  if (group == m.kappa.groups - 1) clear_padding(row, m.C, m.pitch, lane);
}

/* The gradient of the mean's numerator is along_g g + along_mean mean. */
struct midpoint_numerator {
  double along_g, along_mean, denominator_bar, kappa_bar;
};

template <typename T>
__device__ static midpoint_numerator numerator_of(const T *g, int D, double kappa, midpoint_mean mean,
                                                  const double *vector, int lane) {
  const kp_slope close = kp_midpoint_close(kappa * mean.square);
  double inner = 0;
  for (int d = lane; d < D; d += 32) inner += (double)kp_to_float(g[d]) * vector[d];
  inner = kp_warp_sum(inner);
  const double z_bar = inner * close.derivative;
  midpoint_numerator bar = {close.value / mean.denominator, 2 * kappa * z_bar / mean.denominator, 0,
                            z_bar * mean.square};
  bar.denominator_bar = -(bar.along_g * inner + bar.along_mean * mean.square);
  return bar;
}

/* Gradients of point i; returns its part of κ's. */
template <typename T>
__device__ static double backward_point(const midpoints &m, int64_t n, int i, int group, double kappa,
                                        const T *g, const midpoint_memory &memory, midpoint_numerator bar,
                                        int lane) {
  const int64_t at = (n * m.M + i) * m.pitch + group * m.D;
  const T *point = (const T *)m.points + at;
  const double weight = weight_of(m, n, i), square = memory.squares[i];
  const kp_midpoint_factor factor = kp_midpoint_factor_of(square, kappa);
  double along = 0;
  for (int d = lane; d < m.D; d += 32)
    along += (bar.along_g * (double)kp_to_float(g[d]) + bar.along_mean * memory.mean[d]) *
             (double)kp_to_float(point[d]);
  along = kp_warp_sum(along);
  const double curvature_bar = weight * (along + bar.denominator_bar) * factor.by_curvature;
  const double scale = weight * factor.conformal, own = 2 * kappa * curvature_bar;
  if (lane == 0) memory.weights_bar[i] += factor.conformal * along + factor.denominator * bar.denominator_bar;
  T *gpoint = (T *)m.gpoints + at;
  for (int d = lane; d < m.D && m.gpoints != NULL; d += 32)
    gpoint[d] = kp_from_float<T>(
        (float)(scale * (bar.along_g * (double)kp_to_float(g[d]) + bar.along_mean * memory.mean[d]) +
                own * (double)kp_to_float(point[d])));
  return curvature_bar * square;
}

template <typename T>
__global__ static void __launch_bounds__(128) midpoint_backward_kernel(const midpoints m) {
  extern __shared__ double shared[];
  const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
  const midpoint_memory memory = memory_of(m, shared);
  const int64_t n = (int64_t)blockIdx.x * warps + threadIdx.x / 32;
  if (n >= m.N) return;
  for (int i = lane; i < m.M; i += 32) memory.weights_bar[i] = 0;
  __syncwarp();
  for (int group = 0; group < m.kappa.groups; group++) {
    const double kappa = m.kappa.at(n, group);
    const T *g = (const T *)m.g + n * m.pitch + group * m.D;
    const midpoint_mean mean = mean_of<T>(m, n, group, kappa, memory, lane);
    const midpoint_numerator bar = numerator_of(g, m.D, kappa, mean, memory.mean, lane);
    double kappa_bar = bar.kappa_bar;
    for (int i = 0; i < m.M; i++) kappa_bar += backward_point(m, n, i, group, kappa, g, memory, bar, lane);
    if (lane == 0 && m.bars != NULL) m.bars[n * m.kappa.groups + group] = kappa_bar;
    __syncwarp();
  }
  for (int i = 0; i < m.M && m.gpoints != NULL; i++)
    clear_padding((T *)m.gpoints + (n * m.M + i) * m.pitch, m.C, m.pitch, lane);
  if (m.gweights.at == NULL) return;
  for (int i = lane; i < m.gweight_pitch; i += 32)
    m.gweights.set(n * m.gweight_pitch + i, i < m.M ? (float)memory.weights_bar[i] : 0.0f);
}

/* ---- launching ---- */

template <typename T>
static kp_status launch(const kp_call *call, const midpoints &m, bool backward, kp_error *error) {
  const kp_cuda *cuda = kp_cuda_of(call);
  const size_t each = (size_t)(m.D + 3 * m.M) * sizeof(double);
  const int warps = each * 4 <= cuda->shared_bytes ? 4 : 1;
  const size_t bytes = each * (size_t)warps;
  void (*kernel)(const midpoints) = backward ? midpoint_backward_kernel<T> : midpoint_kernel<T>;
  if (bytes > cuda->shared_bytes)
    return kp_fail(error, KP_ERR_UNSUPPORTED, "midpoint: %d points of %d channels are too many", m.M, m.D);
  if (bytes > 48 * 1024)
    KP_TRY(
        kp_cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
                      "midpoint", error));
  const int64_t tasks = backward ? m.N : m.N * m.kappa.groups;
  kernel<<<kp_blocks(tasks, warps), 32 * warps, bytes, cuda->stream>>>(m);
  return kp_launched(call, error);
}

extern "C" kp_status kp_cuda_midpoint(const kp_call *call, kp_error *error) {
  midpoints m = midpoints_of(call);
  m.out = call->output[0];
  return kp_is_half(call) ? launch<kp_half>(call, m, false, error) : launch<float>(call, m, false, error);
}

extern "C" size_t kp_cuda_scratch_midpoint_backward(const kp_node *node, int threads) {
  (void)threads;
  const int64_t groups = node->input[2] == NULL ? 1 : kp_tensor_columns(node->input[2]);
  return (size_t)(node->input[0]->shape[0] * groups) * sizeof(double);
}

extern "C" kp_status kp_cuda_midpoint_backward(const kp_call *call, kp_error *error) {
  midpoints m = midpoints_of(call);
  m.g = call->input[3];
  m.gpoints = call->output[0];
  if (call->output[1] != NULL) {
    m.gweights = kp_output_numbers(call, 1);
    m.gweight_pitch = (int)kp_pitch(call->node->output[1]);
  }
  if (call->output[2] != NULL) m.bars = (double *)call->scratch;
  KP_TRY(kp_is_half(call) ? launch<kp_half>(call, m, true, error) : launch<float>(call, m, true, error));
  kp_add_curvatures(kp_cuda_of(call)->stream, kp_curvature_bars_of<double>(call, 2, m.kappa, m.bars));
  return kp_launched(call, error);
}
