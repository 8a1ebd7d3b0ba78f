/* What attention makes of single rows, before and after its tiles.  All of it is in double: a row costs a few
 * hundred operations where a tile costs it T · D, and the geometry near a boundary needs the digits.
 *
 * Every kernel here reads each row once: one warp a row and head, a few bytes written.  Memory bounds them.
 */
#include "backend/attention_values.h"
#include "backend/cuda/attention.cuh"
#include "geometry/geodesic_score.h"

enum { WARPS = 4 };

/* <x, y> over a warp. */
template <typename R> __device__ static double inner_product(const R *x, const R *y, int size) {
  double sum = 0;
  for (int d = threadIdx.x; d < size; d += 32) sum += (double)kp_to_float(x[d]) * (double)kp_to_float(y[d]);
  return kp_warp_sum(sum);
}

/* ---- Queries, keys and values ---- */

/* A query's line and a key's, whose inner product is the score's own: of a Lorentz score <Q, K>, with the
 * time as x; of a geodesic one w, with (|m|², c²) behind c m. */
__device__ static kp_line score_line(int score, double square, double scale, double kappa, bool query) {
  kp_line line = {scale, 0, 0, 0};
  square *= scale * scale;
  if (score == KP_SCORE_LORENTZ) {
    const double time = kp_lorentz_time(square, kp_lorentz_radius(kappa));
    line.x = query ? time : -time;
  } else if (kp_is_geodesic(score)) {
    const kp_geodesic_row row = kp_geodesic_row_of(square, kappa);
    const double cosine = row.cosine * row.cosine;
    line.a = (query ? -2 : 1) * row.cosine * row.scale * scale;
    line.x = query ? row.alpha : cosine;
    line.y = query ? cosine : row.alpha;
  }
  return line;
}

template <typename R>
__global__ static void lines_kernel(kp_attention_problem p, kp_line *q, kp_line *k, kp_line *v) {
  const int64_t item = (int64_t)blockIdx.x * WARPS + threadIdx.y;
  if (item >= (int64_t)p.batch * p.length * p.heads) return;
  const int64_t n = item / p.heads;
  const int h = (int)(item % p.heads), kv = h / (p.heads / p.kv_heads);
  const double kappa = kp_head_kappa(p, h);
  const R *rows[] = {kp_row_at<R>(p.q, n, h), kp_row_at<R>(p.k, n, kv), kp_row_at<R>(p.v, n, kv)};
  for (int side = 0; side < 2; side++) {
    kp_line *to = side == 0 ? q : k;
    if (to == NULL) continue;
    const kp_line line =
        score_line(p.score, inner_product(rows[side], rows[side], p.size), p.scale, kappa, side == 0);
    if (threadIdx.x == 0) to[item] = line;
  }
  if (v == NULL) return;
  const double square = inner_product(rows[2], rows[2], p.value_size);
  const kp_value_row row = kp_value_row_of((kp_values)p.values, square, kappa);
  if (threadIdx.x == 0) v[item] = kp_line{row.scale, 0, row.extra, 0};
}

static int row_blocks(const kp_attention_problem &p) {
  return kp_blocks((int64_t)p.batch * p.length * p.heads, WARPS);
}

void kp_attention_lines(const kp_attention_problem &p, kp_line *q, kp_line *k, kp_line *v,
                        cudaStream_t stream) {
  const dim3 block(32, WARPS);
  if (p.half)
    lines_kernel<kp_half><<<row_blocks(p), block, 0, stream>>>(p, q, k, v);
  else
    lines_kernel<float><<<row_blocks(p), block, 0, stream>>>(p, q, k, v);
}

/* ---- Means ---- */

template <typename R>
__global__ static void mean_lines_kernel(kp_attention_problem p, kp_attention_gradients g, kp_line *means,
                                         double *kappa_bar) {
  const int64_t item = (int64_t)blockIdx.x * WARPS + threadIdx.y;
  if (item >= (int64_t)p.batch * p.length * p.heads) return;
  const int64_t n = item / p.heads;
  const int h = (int)(item % p.heads);
  const R *o = kp_row_at<R>(p.o, n, h), *bar = kp_row_at<R>(g.o, n, h);
  const double product = bar == NULL ? 0 : inner_product(o, bar, p.value_size);
  const double square = p.values == KP_VALUES_MEAN ? 0 : inner_product(o, o, p.value_size);
  const double norm = p.norms == NULL ? 0 : p.norms[item], time = g.time == NULL ? 0 : g.time[item];
  const kp_value_mean_slopes slopes =
      kp_value_mean_backward((kp_values)p.values, square, norm, product, time, kp_head_kappa(p, h));
  if (threadIdx.x != 0) return;
  means[item] =
      kp_line{slopes.gradient, slopes.along, slopes.extra, p.values == KP_VALUES_MEAN ? product : 0};
  if (kappa_bar != NULL) kappa_bar[item] = slopes.kappa;
}

void kp_attention_mean_lines(const kp_attention_problem &p, const kp_attention_gradients &g, kp_line *means,
                             double *kappa, cudaStream_t stream) {
  const dim3 block(32, WARPS);
  if (p.half)
    mean_lines_kernel<kp_half><<<row_blocks(p), block, 0, stream>>>(p, g, means, kappa);
  else
    mean_lines_kernel<float><<<row_blocks(p), block, 0, stream>>>(p, g, means, kappa);
}

/* ---- Scalars ---- */

enum { SUM_THREADS = 256 };

/* One block, so that heads that share a scalar are added in order. */
__global__ static void add_scalars_kernel(const kp_scalar_sums *sums, int heads, int64_t parts,
                                          kp_results kappa, bool one_kappa, kp_results beta, bool one_beta) {
  __shared__ double shared[32];
  double kappas = 0, betas = 0;
  for (int h = 0; h < heads; h++) {
    kp_scalar_sums own = {0, 0};
    for (int64_t i = threadIdx.x; i < parts; i += SUM_THREADS) {
      own.kappa += sums[h * parts + i].kappa;
      own.beta += sums[h * parts + i].beta;
    }
    const double of_kappa = kp_block_sum(own.kappa, shared);
    __syncthreads();
    const double of_beta = kp_block_sum(own.beta, shared);
    __syncthreads();
    kappas = one_kappa ? kappas + of_kappa : of_kappa;
    betas = one_beta ? betas + of_beta : of_beta;
    const bool last = h == heads - 1;
    if (threadIdx.x == 0 && kappa.at != NULL && (last || !one_kappa))
      kappa.add(one_kappa ? 0 : h, (float)kappas);
    if (threadIdx.x == 0 && beta.at != NULL && (last || !one_beta)) beta.add(one_beta ? 0 : h, (float)betas);
  }
}

void kp_attention_add_scalars(const kp_scalar_sums *sums, int heads, int64_t parts, kp_results kappa,
                              bool one_kappa, kp_results beta, bool one_beta, cudaStream_t stream) {
  if (kappa.at == NULL && beta.at == NULL) return;
  add_scalars_kernel<<<1, SUM_THREADS, 0, stream>>>(sums, heads, parts, kappa, one_kappa, beta, one_beta);
}

/* ---- Padding ---- */

template <typename R> __global__ static void zero_pads_kernel(R *base, int64_t rows, int columns, int pitch) {
  const int pad = pitch - columns;
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < rows * pad) base[i / pad * pitch + columns + i % pad] = kp_from_float<R>(0.0f);
}

void kp_attention_zero_pads(void *base, bool half, int64_t rows, int64_t columns, int64_t pitch,
                            cudaStream_t stream) {
  if (pitch == columns || rows == 0) return;
  const int blocks = kp_blocks(rows * (pitch - columns), 256);
  if (half)
    zero_pads_kernel<<<blocks, 256, 0, stream>>>((kp_half *)base, rows, (int)columns, (int)pitch);
  else
    zero_pads_kernel<<<blocks, 256, 0, stream>>>((float *)base, rows, (int)columns, (int)pitch);
}
