/* The gyromidpoint of the last W rows as reference point, forward and backward.
 *
 * In log coordinates exp_0(h) = τ h, so the midpoint of a window is a combination of its stored rows: with λ
 * and the denominator of geometry/midpoint.h,
 *     M = Σ λ_i τ_i h_i / Σ (λ_i - 1),   result = ψ(κ |c M|²) c M,   c = 1 / (1 + sqrt(1 + κ|M|²)).
 * A warp takes one group of a row; rows of a window come from the cache, W C elements a row, 4 operations an
 * element.  Backward in two passes: each row's window as a whole (M, the gradient of its numerator, and that
 * of κ), then each row's gradient from the W windows that it is in, so that no two warps add to one place. */
#include "backend/cuda/reference.cuh"

#include "geometry/midpoint.h"

enum { WARPS = 4, MOST_WINDOW = 64 };

/* What a row of a window contributes. */
struct window_point {
  double square;
  kp_radial radial;
  kp_midpoint_factor factor;
};

template <typename T> __device__ static double square_of(const T *h, int D, int lane) {
  double sum = 0;
  for (int d = lane; d < D; d += 32) sum += (double)kp_to_float(h[d]) * (double)kp_to_float(h[d]);
  return kp_warp_sum(sum);
}

__device__ static window_point window_point_of(double square, double kappa) {
  window_point point;
  point.square = square;
  point.radial = kp_radial_of(kappa * square);
  point.factor = kp_midpoint_factor_of(point.radial.ratio * point.radial.ratio * square, kappa);
  return point;
}

/* M of one group of row (b, t) and what follows from |M|². */
struct middle {
  double kappa, denominator, square;
  kp_slope close, logarithm; /* c by κ|M|², ψ by κ|c M|² */
};

/* `factors` (window) and `mean` (D) are the warp's shared memory. */
template <typename T>
__device__ static middle middle_of(const kp_walk &w, int64_t b, int64_t t, int group, double *factors,
                                   double *mean, int lane) {
  const int count = w.window_of(b, t);
  middle m = {};
  m.kappa = w.kappa.at(b * w.T + t, group);
  for (int i = 0; i < count; i++) {
    const T *h = w.template row<T>(b, t - count + i) + group * w.D;
    const window_point point = window_point_of(square_of(h, w.D, lane), m.kappa);
    m.denominator += point.factor.denominator;
    if (lane == 0) factors[i] = point.factor.conformal * point.radial.ratio;
  }
  __syncwarp();
  m.denominator = kp_midpoint_floor(m.denominator);
  double square = 0;
  for (int d = lane; d < w.D; d += 32) {
    double sum = 0;
    for (int i = 0; i < count; i++)
      sum += factors[i] * (double)kp_to_float(w.template row<T>(b, t - count + i)[group * w.D + d]);
    mean[d] = sum / m.denominator;
    square += mean[d] * mean[d];
  }
  m.square = kp_warp_sum(square);
  m.close = kp_midpoint_close(m.kappa * m.square);
  m.logarithm = kp_atan_ratio_both(m.kappa * m.close.value * m.close.value * m.square);
  return m;
}

template <typename T> __device__ static void clear_padding(const kp_walk &w, int64_t n, int group, int lane) {
  if (group != w.kappa.groups - 1) return;
  for (int c = w.C + lane; c < w.pitch; c += 32) ((T *)w.out)[n * w.pitch + c] = kp_from_float<T>(0.0f);
}

/* The row and group of this warp. */
struct task {
  int64_t n, b, t;
  int group, lane;
  bool there;
  double *factors, *mean;
};

__device__ static task task_of(const kp_walk &w, double *shared) {
  const int warp = threadIdx.x / 32;
  const int64_t i = (int64_t)blockIdx.x * WARPS + warp, n = i / w.kappa.groups;
  double *own = shared + warp * (w.D + MOST_WINDOW);
  return task{n,          n / w.T, n % w.T,          (int)(i % w.kappa.groups), (int)threadIdx.x % 32,
              n < w.rows, own,     own + MOST_WINDOW};
}

template <typename T> __global__ static void __launch_bounds__(32 * WARPS) window_kernel(const kp_walk w) {
  extern __shared__ double shared[];
  const task a = task_of(w, shared);
  if (!a.there) return;
  T *out = (T *)w.out + a.n * w.pitch + a.group * w.D;
  if (w.window_of(a.b, a.t) == 0) {
    for (int d = a.lane; d < w.D; d += 32) out[d] = kp_from_float<T>(0.0f);
  } else {
    const middle m = middle_of<T>(w, a.b, a.t, a.group, a.factors, a.mean, a.lane);
    const double factor = m.logarithm.value * m.close.value;
    for (int d = a.lane; d < w.D; d += 32) out[d] = kp_from_float<T>((float)(factor * a.mean[d]));
  }
  clear_padding<T>(w, a.n, a.group, a.lane);
}

/* ---- backward ---- */

/* The gradient of M's numerator is along_g g + along_mean M. */
struct numerator {
  double along_g, along_mean, denominator_bar;
};

/* Scratch memory of the backward pass. */
struct passed {
  numerator *numerators; /* (N, G) */
  float *means;          /* (N, C): M */
};

__device__ static passed passed_of(const kp_walk &w) {
  passed p;
  p.numerators = (numerator *)((double *)w.scratch + w.rows * w.kappa.groups);
  p.means = (float *)(p.numerators + w.rows * w.kappa.groups);
  return p;
}

template <typename T>
__device__ static numerator numerator_of(const middle &m, const T *g, const double *mean, int D, int lane,
                                         double *kappa_bar) {
  const double close = m.close.value, psi = m.logarithm.value;
  double inner = 0;
  for (int d = lane; d < D; d += 32) inner += (double)kp_to_float(g[d]) * mean[d];
  inner = kp_warp_sum(inner);
  const double end_bar = inner * close * m.logarithm.derivative; /* of κ|c M|² */
  const double end_square_bar = m.kappa * end_bar;
  const double close_bar = psi * inner + 2 * end_square_bar * close * m.square;
  const double z_bar = close_bar * m.close.derivative; /* of κ|M|² */
  *kappa_bar += end_bar * close * close * m.square + z_bar * m.square;
  numerator bar = {close * psi / m.denominator,
                   (2 * end_square_bar * close * close + 2 * m.kappa * z_bar) / m.denominator, 0};
  bar.denominator_bar = -(bar.along_g * inner + bar.along_mean * m.square);
  return bar;
}

/* What one row h of a window gets: gh += scale (numerator's gradient) + own h. */
struct window_share {
  double scale, own, kappa_bar;
};

__device__ static window_share share_of(const window_point &point, double kappa, double inner,
                                        double denominator_bar) {
  const double ratio = point.radial.ratio, lambda = point.factor.conformal;
  const double curvature_bar = (ratio * inner + denominator_bar) * point.factor.by_curvature;
  const double ratio_bar = lambda * inner + 2 * kappa * curvature_bar * ratio * point.square;
  const double z_bar = ratio_bar * point.radial.ratio_derivative;
  return window_share{ratio * lambda, 2 * kappa * (curvature_bar * ratio * ratio + z_bar),
                      curvature_bar * ratio * ratio * point.square + z_bar * point.square};
}

/* Pass 1: row (b, t)'s window. */
template <typename T>
__global__ static void __launch_bounds__(32 * WARPS) window_backward_kernel(const kp_walk w) {
  extern __shared__ double shared[];
  const task a = task_of(w, shared);
  if (!a.there) return;
  const passed p = passed_of(w);
  const int64_t at = a.n * w.kappa.groups + a.group;
  double kappa_bar = 0;
  const int count = w.window_of(a.b, a.t);
  if (count > 0) {
    const T *g = (const T *)w.g + a.n * w.pitch + a.group * w.D;
    const middle m = middle_of<T>(w, a.b, a.t, a.group, a.factors, a.mean, a.lane);
    const numerator bar = numerator_of(m, g, a.mean, w.D, a.lane, &kappa_bar);
    for (int d = a.lane; d < w.D; d += 32) p.means[a.n * w.C + a.group * w.D + d] = (float)a.mean[d];
    if (a.lane == 0) p.numerators[at] = bar;
    for (int i = 0; i < count && w.bars != NULL; i++) {
      const T *h = w.template row<T>(a.b, a.t - count + i) + a.group * w.D;
      double inner = 0;
      for (int d = a.lane; d < w.D; d += 32)
        inner += (bar.along_g * (double)kp_to_float(g[d]) + bar.along_mean * a.mean[d]) *
                 (double)kp_to_float(h[d]);
      const window_point point = window_point_of(square_of(h, w.D, a.lane), m.kappa);
      kappa_bar += share_of(point, m.kappa, kp_warp_sum(inner), bar.denominator_bar).kappa_bar;
    }
  }
  if (a.lane == 0 && w.bars != NULL) w.bars[at] = kappa_bar;
}

/* Pass 2: row n's gradient from the windows behind it. */
template <typename T>
__global__ static void __launch_bounds__(32 * WARPS) window_rows_kernel(const kp_walk w) {
  extern __shared__ double shared[];
  const task a = task_of(w, shared);
  if (!a.there) return;
  const passed p = passed_of(w);
  const T *h = (const T *)w.stream + a.n * w.pitch + a.group * w.D;
  const double square = square_of(h, w.D, a.lane);
  double *sum = a.mean;
  for (int d = a.lane; d < w.D; d += 32) sum[d] = 0;
  for (int64_t t = a.t + 1; t <= a.t + w.window && t < w.T && !w.border(a.b, t); t++) {
    const int64_t n = a.b * w.T + t;
    const numerator bar = p.numerators[n * w.kappa.groups + a.group];
    const T *g = (const T *)w.g + n * w.pitch + a.group * w.D;
    const float *mean = p.means + n * w.C + a.group * w.D;
    const double kappa = w.kappa.at(n, a.group);
    double inner = 0;
    for (int d = a.lane; d < w.D; d += 32)
      inner += (bar.along_g * (double)kp_to_float(g[d]) + bar.along_mean * (double)mean[d]) *
               (double)kp_to_float(h[d]);
    const window_share share =
        share_of(window_point_of(square, kappa), kappa, kp_warp_sum(inner), bar.denominator_bar);
    for (int d = a.lane; d < w.D; d += 32)
      sum[d] += share.scale * (bar.along_g * (double)kp_to_float(g[d]) + bar.along_mean * (double)mean[d]) +
                share.own * (double)kp_to_float(h[d]);
  }
  T *out = (T *)w.out + a.n * w.pitch + a.group * w.D;
  for (int d = a.lane; d < w.D; d += 32) out[d] = kp_from_float<T>((float)sum[d]);
  clear_padding<T>(w, a.n, a.group, a.lane);
}

/* ---- launching ---- */

static kp_status launch(const kp_call *call, const kp_walk &w, void (*kernel)(const kp_walk),
                        kp_error *error) {
  const size_t bytes = (size_t)WARPS * (size_t)(w.D + MOST_WINDOW) * sizeof(double);
  if (bytes > 48 * 1024)
    KP_TRY(
        kp_cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
                      "reference", error));
  kernel<<<kp_blocks(w.rows * w.kappa.groups, WARPS), 32 * WARPS, bytes, kp_cuda_of(call)->stream>>>(w);
  return kp_launched(call, error);
}

kp_status kp_reference_midpoint(const kp_call *call, const kp_walk &w, kp_error *error) {
  return launch(call, w, kp_is_half(call) ? window_kernel<kp_half> : window_kernel<float>, error);
}

kp_status kp_reference_midpoint_backward(const kp_call *call, const kp_walk &walk, kp_error *error) {
  kp_walk w = walk;
  const bool half = kp_is_half(call);
  if (call->output[1] != NULL) w.bars = (double *)w.scratch;
  KP_TRY(launch(call, w, half ? window_backward_kernel<kp_half> : window_backward_kernel<float>, error));
  KP_TRY(launch(call, w, half ? window_rows_kernel<kp_half> : window_rows_kernel<float>, error));
  kp_add_curvatures(kp_cuda_of(call)->stream, kp_curvature_bars_of<double>(call, 1, w.kappa, w.bars));
  return kp_launched(call, error);
}
