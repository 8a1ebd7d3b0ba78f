/* Attention at any size, with any score, any kind of values and documents: the kernels that define the
 * others.
 *
 * Forward: one block a tile of queries of one head, over tiles of keys with an online softmax (Milakov and
 * Gimelshein 2018; Dao et al. 2022).  Backward: three passes that each compute the weights again, for the
 * gradients of queries, keys and values; every gradient has one owner, so nothing is added atomically.
 *
 * Forward 2 T² (D + D') multiplications a head, half of it when causal, and as many again for each of the
 * passes backward (4 products in all for queries and keys, 2 for values): 8 where 5 would do.  Plain dot
 * products of float rows are computed in float, everything else in double: the products of geodesic lines
 * cancel for close points, and so do space and time of the Lorentz and midpoint means.  On chips without fast
 * double those are slow. */
#include "backend/attention_values.h"
#include "backend/cuda/attention_plain.cuh"
#include "geometry/geodesic_score.h"

/* Work of one launch: the problem and its lines in scratch memory; absent lines are the rows themselves. */
struct kp_plain_work {
  kp_attention_problem p;
  kp_attention_gradients g;
  const kp_line *q, *k, *v, *means;
  const double *mean_kappa;
  kp_scalar_sums *sums; /* (roles, H, B, tiles) with H slowest; NULL: not wanted */
  int roles, tiles;
  bool scalars;
};

enum kp_role_of_pass { KP_PASS_QUERIES, KP_PASS_KEYS, KP_PASS_VALUES };

/* ---- Lines of a head ---- */

template <typename R>
__device__ static kp_lines<R> lines_of(const kp_attention_problem &p, const kp_head_rows &rows, int b,
                                       int row_head, const kp_line *line, int h, int size, int extra) {
  const int64_t n = (int64_t)b * p.length;
  kp_lines<R> lines = {};
  lines.row = kp_row_at<R>(rows, n, row_head);
  lines.stride = rows.stride;
  lines.line = line == NULL ? NULL : line + n * p.heads + h;
  lines.step = p.heads;
  lines.size = size;
  lines.columns = size + (line == NULL ? 0 : extra);
  return lines;
}

__device__ static inline int score_extra(int score) {
  return kp_is_geodesic(score) ? 2 : score == KP_SCORE_LORENTZ ? 1 : 0;
}

template <typename R> struct kp_head_lines { kp_lines<R> q, k, v, means; };

template <typename R> __device__ static kp_head_lines<R> head_lines(const kp_plain_work &work, int b, int h) {
  const kp_attention_problem &p = work.p;
  const int kv = h / (p.heads / p.kv_heads), extra = score_extra(p.score);
  const int value_extra = p.values == KP_VALUES_MEAN ? 0 : 1;
  kp_head_lines<R> lines;
  lines.q = lines_of<R>(p, p.q, b, h, work.q, h, p.size, extra);
  lines.k = lines_of<R>(p, p.k, b, kv, work.k, h, p.size, extra);
  lines.v = lines_of<R>(p, p.v, b, kv, work.v, h, p.value_size, value_extra);
  lines.means = lines_of<R>(p, work.g.o, b, h, work.means, h, p.value_size, value_extra);
  lines.means.second = kp_row_at<R>(p.o, (int64_t)b * p.length, h);
  lines.means.second_stride = p.o.stride;
  return lines;
}

/* ---- Forward ---- */

/* The running maximum and sum of a thread's rows. */
template <typename A, int M> struct kp_softmax { A most[M], sum[M]; };

/* Scores become weights relative to the new maximum; what was summed before is scaled down to it. */
template <typename A, int M, int N>
__device__ static void softmax_step(kp_softmax<A, M> &softmax, A (&tile)[M][M], A (&mean)[M][N]) {
#pragma unroll
  for (int r = 0; r < M; r++) {
    A most = softmax.most[r];
#pragma unroll
    for (int c = 0; c < M; c++) most = tile[r][c] > most || tile[r][c] != tile[r][c] ? tile[r][c] : most;
    most = kp_row_max(most);
    const A from = most == -A(INFINITY) ? A(0) : most, factor = exponential(softmax.most[r] - from);
    A sum = 0;
#pragma unroll
    for (int c = 0; c < M; c++) sum += tile[r][c] = exponential(tile[r][c] - from);
    softmax.sum[r] = softmax.sum[r] * factor + kp_row_sum(sum);
    softmax.most[r] = most;
#pragma unroll
    for (int c = 0; c < N; c++) mean[r][c] *= factor;
  }
}

/* One row of the output from its weighted sums. */
template <typename R, typename A, int N>
__device__ static void finish_row(const kp_attention_problem &p, const kp_lines<R> &v, int b, int h, int i,
                                  const A (&mean)[N], A most, A sum, double kappa) {
  double square = 0, extra = 0;
#pragma unroll
  for (int c = 0; c < N; c++) {
    const int column = threadIdx.x + KP_GRID * c;
    if (column < v.size) square += (double)mean[c] * (double)mean[c];
    if (column == v.size && column < v.columns) extra = (double)mean[c];
  }
  if (p.values != KP_VALUES_MEAN) square = kp_row_sum(square), extra = kp_row_sum(extra);
  if (i >= p.length) return;
  const kp_value_mean result = kp_value_mean_of((kp_values)p.values, square, extra, (double)sum, kappa);
  const int64_t n = (int64_t)b * p.length + i, number = n * p.heads + h;
  R *o = kp_row_at<R>(p.o, n, h);
#pragma unroll
  for (int c = 0; c < N; c++) {
    const int column = threadIdx.x + KP_GRID * c;
    if (column < v.size) o[column] = kp_from_float<R>((float)((double)mean[c] * result.scale));
  }
  if (threadIdx.x != 0) return;
  p.logsumexp[((int64_t)b * p.heads + h) * p.length + i] = (float)((double)most + log((double)sum));
  if (p.time != NULL) p.time[number] = (float)result.time;
  if (p.norms != NULL) p.norms[number] = (float)result.norm;
}

/* Tiles with much work first: when causal these are the last. */
__device__ static int tile_of_block(const kp_plain_work &work) {
  const int tile = blockIdx.x % work.tiles;
  return work.p.causal ? work.tiles - 1 - tile : tile;
}

template <typename R, typename A, int M, int N>
__global__ static void __launch_bounds__(KP_TILE_THREADS) forward_kernel(kp_plain_work work) {
  __shared__ kp_tile_memory<A, M> memory;
  constexpr int side = KP_GRID * M;
  const kp_attention_problem &p = work.p;
  const int item = blockIdx.x / work.tiles, b = item / p.heads, h = item % p.heads;
  const int begin = tile_of_block(work) * side, end = p.causal ? min(p.length, begin + side) : p.length;
  const kp_head_scalars s = scalars_of(p, h);
  const kp_head_lines<R> lines = head_lines<R>(work, b, h);
  kp_softmax<A, M> softmax;
  A mean[M][N], tile[M][M];
#pragma unroll
  for (int r = 0; r < M; r++) {
    softmax.most[r] = -A(INFINITY), softmax.sum[r] = 0;
#pragma unroll
    for (int c = 0; c < N; c++) mean[r][c] = 0;
  }
  for (int first = 0; first < end; first += side) {
    kp_tile_product(memory, lines.q, begin, lines.k, first, p.length, tile);
#pragma unroll
    for (int r = 0; r < M; r++)
#pragma unroll
      for (int c = 0; c < M; c++) {
        const int i = begin + threadIdx.y + KP_GRID * r, j = first + threadIdx.x + KP_GRID * c;
        tile[r][c] = sees(p, b, i, j) ? A(s.beta) * score_of(p.score, tile[r][c], s) : -A(INFINITY);
      }
    softmax_step(softmax, tile, mean);
    kp_tile_accumulate(memory, tile, lines.v, first, p.length, mean);
  }
#pragma unroll
  for (int r = 0; r < M; r++)
    finish_row<R>(p, lines.v, b, h, begin + threadIdx.y + KP_GRID * r, mean[r], softmax.most[r],
                  softmax.sum[r], s.kappa);
}

/* ---- Backward ---- */

/* From the gradient of a score line (query or key), the gradient of its row: total += …; returns κ's part. */
template <typename R, typename A, int N>
__device__ static double carry_score_row(int score, const kp_lines<R> &lines, int position, bool inside,
                                         const A (&bar)[N], const kp_head_scalars &s, bool query,
                                         A (&total)[N]) {
  if (score == KP_SCORE_DOT) {
#pragma unroll
    for (int c = 0; c < N; c++) total[c] += bar[c];
    return 0;
  }
  double inner = 0, square = 0, x = 0, y = 0, kappa = 0;
  double row[N];
#pragma unroll
  for (int c = 0; c < N; c++) {
    const int column = threadIdx.x + KP_GRID * c;
    row[c] = inside && column < lines.size ? (double)kp_to_float(lines.row[position * lines.stride + column])
                                           : 0.0;
    inner += (double)bar[c] * row[c], square += row[c] * row[c];
    if (column == lines.size) x = bar[c];
    if (column == lines.size + 1) y = bar[c];
  }
  inner = kp_row_sum(inner) * s.scale, square = kp_row_sum(square) * s.scale * s.scale;
  x = kp_row_sum(x), y = kp_row_sum(y);
  double across = s.scale, along;
  if (score == KP_SCORE_LORENTZ) {
    along = (query ? x : -x) * s.scale * s.scale / kp_lorentz_time(square, kp_lorentz_radius(s.kappa));
  } else {
    const kp_geodesic_row at = kp_geodesic_row_of(square, s.kappa);
    const double factor = query ? -2 : 1, alpha_bar = query ? x : y, cosine_bar = query ? y : x;
    const double square_bar = 2 * alpha_bar * at.scale;
    const double m_bar_u = factor * at.cosine * inner + square_bar * square;
    const double z_bar = kp_geodesic_row_backward(
        square, s.kappa, m_bar_u, factor * at.scale * inner + 2 * at.cosine * cosine_bar, &kappa);
    across = s.scale * at.scale * factor * at.cosine;
    along = s.scale * s.scale * (at.scale * square_bar + 2 * s.kappa * z_bar);
  }
#pragma unroll
  for (int c = 0; c < N; c++) total[c] += (A)(across * (double)bar[c] + along * row[c]);
  return kappa;
}

/* The same of a value's line. */
template <typename R, typename A, int N>
__device__ static double carry_value_row(int values, const kp_lines<R> &lines, int position, bool inside,
                                         const A (&bar)[N], double kappa, A (&total)[N]) {
  if (values == KP_VALUES_MEAN) {
#pragma unroll
    for (int c = 0; c < N; c++) total[c] += bar[c];
    return 0;
  }
  double inner = 0, square = 0, extra = 0, kappa_bar = 0, row[N];
#pragma unroll
  for (int c = 0; c < N; c++) {
    const int column = threadIdx.x + KP_GRID * c;
    row[c] = inside && column < lines.size ? (double)kp_to_float(lines.row[position * lines.stride + column])
                                           : 0.0;
    inner += (double)bar[c] * row[c], square += row[c] * row[c];
    if (column == lines.size) extra = bar[c];
  }
  inner = kp_row_sum(inner), square = kp_row_sum(square), extra = kp_row_sum(extra);
  const kp_value_row at = kp_value_row_of((kp_values)values, square, kappa);
  const double along = kp_value_row_backward((kp_values)values, square, kappa, inner, extra, &kappa_bar);
#pragma unroll
  for (int c = 0; c < N; c++) total[c] += (A)(at.scale * (double)bar[c] + along * row[c]);
  return kappa_bar;
}

template <typename R, typename A, int N>
__device__ static void store_row(const kp_head_rows &rows, int64_t n, int h, int size, const A (&total)[N]) {
  R *to = kp_row_at<R>(rows, n, h);
#pragma unroll
  for (int c = 0; c < N; c++) {
    const int column = threadIdx.x + KP_GRID * c;
    if (to != NULL && column < size) to[column] = kp_from_float<R>((float)total[c]);
  }
}

/* One pair of tiles: the gradients of the pass's own lines.  `own` and `other` are where the tiles begin. */
template <int PASS, typename R, typename A, int M, int N>
__device__ static kp_scalar_sums backward_tile(kp_tile_memory<A, M> &memory, const kp_plain_work &work,
                                               const kp_head_lines<R> &lines, const kp_head_scalars &s, int b,
                                               int h, int own, int other, A (&bars)[M][N]) {
  constexpr bool query = PASS == KP_PASS_QUERIES;
  const kp_attention_problem &p = work.p;
  const float *logsumexp = p.logsumexp + ((int64_t)b * p.heads + h) * p.length;
  const kp_lines<R> &score_own = query ? lines.q : lines.k, &score_other = query ? lines.k : lines.q;
  kp_scalar_sums sums = {0, 0};
  A product[M][M], bar[M][M];
  kp_tile_product(memory, score_own, own, score_other, other, p.length, product);
  if (PASS != KP_PASS_VALUES)
    kp_tile_product(memory, query ? lines.means : lines.v, own, query ? lines.v : lines.means, other,
                    p.length, bar);
#pragma unroll
  for (int r = 0; r < M; r++)
#pragma unroll
    for (int c = 0; c < M; c++) {
      const int row = own + threadIdx.y + KP_GRID * r, column = other + threadIdx.x + KP_GRID * c;
      const int i = query ? row : column, j = query ? column : row;
      if (!sees(p, b, i, j)) {
        bar[r][c] = 0;
        continue;
      }
      const A score = score_of(p.score, product[r][c], s);
      const A weight = exponential(A(s.beta) * score - A(logsumexp[i]));
      if (PASS == KP_PASS_VALUES) {
        bar[r][c] = weight;
        continue;
      }
      const A score_bar = weight * (bar[r][c] - A(lines.means.line[(int64_t)i * lines.means.step].y));
      double query_time = 1, key_time = 1;
      if (p.score == KP_SCORE_LORENTZ) {
        query_time = lines.q.line[(int64_t)i * lines.q.step].x;
        key_time = -lines.k.line[(int64_t)j * lines.k.step].x;
      }
      sums.beta += (double)score_bar * (double)score;
      bar[r][c] = product_bar_of(p.score, product[r][c], s, score_bar, query_time, key_time, &sums.kappa);
    }
  kp_tile_accumulate(memory, bar, PASS == KP_PASS_VALUES ? lines.means : score_other, other, p.length, bars);
  return sums;
}

/* The gradients of one row of the pass from those of its line. */
template <int PASS, typename R, typename A, int N>
__device__ static double carry_row(const kp_plain_work &work, const kp_head_lines<R> &lines,
                                   const kp_head_scalars &s, int position, const A (&bar)[N], A (&total)[N]) {
  const bool inside = position < work.p.length;
  if (PASS == KP_PASS_VALUES)
    return carry_value_row(work.p.values, lines.v, position, inside, bar, s.kappa, total);
  return carry_score_row(work.p.score, PASS == KP_PASS_QUERIES ? lines.q : lines.k, position, inside, bar, s,
                         PASS == KP_PASS_QUERIES, total);
}

/* One block: a tile of queries of a head, or a tile of keys (values) of a key head with all query heads that
 * share it. */
template <int PASS, typename R, typename A, int M, int N>
__global__ static void __launch_bounds__(KP_TILE_THREADS) backward_kernel(kp_plain_work work) {
  __shared__ kp_tile_memory<A, M> memory;
  __shared__ double shared[32];
  constexpr int side = KP_GRID * M;
  constexpr bool query = PASS == KP_PASS_QUERIES;
  const kp_attention_problem &p = work.p;
  const int group = query ? 1 : p.heads / p.kv_heads, owners = query ? p.heads : p.kv_heads;
  const int item = blockIdx.x / work.tiles, b = item / owners, owner = item % owners;
  const int tile = blockIdx.x % work.tiles, own = tile * side;
  A total[M][N], bars[M][N];
#pragma unroll
  for (int r = 0; r < M; r++)
#pragma unroll
    for (int c = 0; c < N; c++) total[r][c] = 0;
  for (int h = owner * group; h < owner * group + group; h++) {
    const kp_head_scalars s = scalars_of(p, h);
    const kp_head_lines<R> lines = head_lines<R>(work, b, h);
    kp_scalar_sums sums = {0, 0};
#pragma unroll
    for (int r = 0; r < M; r++)
#pragma unroll
      for (int c = 0; c < N; c++) bars[r][c] = 0;
    const int from = !query && p.causal ? own : 0, to = query && p.causal ? own + side : p.length;
    for (int other = from; other < min(to, p.length); other += side) {
      const kp_scalar_sums part = backward_tile<PASS, R>(memory, work, lines, s, b, h, own, other, bars);
      if (query) sums.kappa += part.kappa, sums.beta += part.beta;
    }
#pragma unroll
    for (int r = 0; r < M; r++) {
      const int position = own + threadIdx.y + KP_GRID * r;
      const double kappa = carry_row<PASS, R>(work, lines, s, position, bars[r], total[r]);
      if (threadIdx.x == 0 && position < p.length) {
        sums.kappa += kappa;
        if (query && work.mean_kappa != NULL)
          sums.kappa += work.mean_kappa[((int64_t)b * p.length + position) * p.heads + h];
      }
    }
    if (!work.scalars) continue;
    sums.kappa = kp_tile_sum(sums.kappa, shared), sums.beta = kp_tile_sum(sums.beta, shared);
    if (threadIdx.x == 0 && threadIdx.y == 0)
      work.sums[(((int64_t)h * 3 + PASS) * p.batch + b) * work.tiles + tile] = sums;
  }
#pragma unroll
  for (int r = 0; r < M; r++) {
    const int position = own + threadIdx.y + KP_GRID * r;
    if (position < p.length)
      store_row<R>(query                  ? work.g.q
                   : PASS == KP_PASS_KEYS ? work.g.k
                                          : work.g.v,
                   (int64_t)b * p.length + position, owner, PASS == KP_PASS_VALUES ? p.value_size : p.size,
                   total[r]);
  }
}

/* ---- Launching ---- */

enum { FLOAT_M = 4, DOUBLE_M = 2, NARROW = 6, BROAD = 18 };

static bool curved(int score, int values) {
  return score != KP_SCORE_DOT || values != KP_VALUES_MEAN;
}

/* Whether float is enough for the arithmetic. */
static bool in_float(int score, int values) {
  return !curved(score, values);
}

static int tiles_of(int length, bool in_float) {
  const int side = KP_GRID * (in_float ? FLOAT_M : DOUBLE_M);
  return (length + side - 1) / side;
}

struct kp_plain_scratch {
  size_t q, k, v, means, mean_kappa, sums, bytes;
};

static kp_plain_scratch scratch_of(int batch, int64_t length, int heads, int score, int values,
                                   bool backward) {
  const size_t rows = (size_t)batch * (size_t)length * (size_t)heads;
  const size_t tiles = (size_t)tiles_of((int)length, in_float(score, values));
  kp_plain_scratch at = {};
  const auto take = [&](bool wanted, size_t size) {
    const size_t place = at.bytes;
    if (wanted) at.bytes += (size + 63) / 64 * 64;
    return place;
  };
  at.q = take(score != KP_SCORE_DOT, rows * sizeof(kp_line));
  at.k = take(score != KP_SCORE_DOT, rows * sizeof(kp_line));
  at.v = take(values != KP_VALUES_MEAN, rows * sizeof(kp_line));
  at.means = take(backward, rows * sizeof(kp_line));
  at.mean_kappa = take(backward && values != KP_VALUES_MEAN, rows * sizeof(double));
  at.sums = take(backward, 3 * (size_t)heads * (size_t)batch * tiles * sizeof(kp_scalar_sums));
  return at;
}

size_t kp_attention_plain_scratch(const kp_attention_arguments *a, bool backward) {
  return scratch_of((int)a->batch, a->length, a->heads, a->score, a->values, backward).bytes;
}

static kp_plain_work work_of(const kp_call *call, const kp_attention_problem &p, bool backward) {
  const kp_plain_scratch at = scratch_of(p.batch, p.length, p.heads, p.score, p.values, backward);
  char *scratch = (char *)call->scratch;
  kp_plain_work work = {};
  work.p = p;
  if (p.score != KP_SCORE_DOT) work.q = (kp_line *)(scratch + at.q), work.k = (kp_line *)(scratch + at.k);
  if (p.values != KP_VALUES_MEAN) {
    work.v = (kp_line *)(scratch + at.v);
    if (backward) work.mean_kappa = (double *)(scratch + at.mean_kappa);
  }
  if (backward) {
    work.means = (kp_line *)(scratch + at.means);
    work.sums = (kp_scalar_sums *)(scratch + at.sums);
  }
  work.tiles = tiles_of(p.length, in_float(p.score, p.values));
  if (curved(p.score, p.values))
    kp_attention_lines(p, (kp_line *)work.q, (kp_line *)work.k, (kp_line *)work.v, kp_cuda_of(call)->stream);
  return work;
}

template <typename R, typename A, int M, int N>
static void launch_forward(const kp_plain_work &work, cudaStream_t stream) {
  const dim3 block(KP_GRID, KP_GRID);
  const int blocks = work.tiles * work.p.batch * work.p.heads;
  forward_kernel<R, A, M, N><<<blocks, block, 0, stream>>>(work);
}

template <typename R, typename A, int M, int N>
static void launch_backward(const kp_plain_work &work, cudaStream_t stream) {
  const dim3 block(KP_GRID, KP_GRID);
  const int blocks = work.tiles * work.p.batch;
  const bool scalars = work.scalars;
  if (scalars || work.g.q.base != NULL)
    backward_kernel<KP_PASS_QUERIES, R, A, M, N><<<blocks * work.p.heads, block, 0, stream>>>(work);
  if (scalars || work.g.k.base != NULL)
    backward_kernel<KP_PASS_KEYS, R, A, M, N><<<blocks * work.p.kv_heads, block, 0, stream>>>(work);
  if (scalars || work.g.v.base != NULL)
    backward_kernel<KP_PASS_VALUES, R, A, M, N><<<blocks * work.p.kv_heads, block, 0, stream>>>(work);
}

/* Calls f with the instance for rows of R: arithmetic and columns a thread. */
template <bool BACKWARD, typename R> static void launch_rows(const kp_plain_work &work, cudaStream_t stream) {
  const int columns = (work.p.size > work.p.value_size ? work.p.size : work.p.value_size) + 2;
  const bool narrow = columns <= NARROW * KP_GRID, single = in_float(work.p.score, work.p.values);
  if (single && narrow)
    BACKWARD ? launch_backward<R, float, FLOAT_M, NARROW>(work, stream)
             : launch_forward<R, float, FLOAT_M, NARROW>(work, stream);
  else if (single)
    BACKWARD ? launch_backward<R, float, FLOAT_M, BROAD>(work, stream)
             : launch_forward<R, float, FLOAT_M, BROAD>(work, stream);
  else if (narrow)
    BACKWARD ? launch_backward<R, double, DOUBLE_M, NARROW>(work, stream)
             : launch_forward<R, double, DOUBLE_M, NARROW>(work, stream);
  else
    BACKWARD ? launch_backward<R, double, DOUBLE_M, BROAD>(work, stream)
             : launch_forward<R, double, DOUBLE_M, BROAD>(work, stream);
}

kp_status kp_attention_plain(const kp_call *call, const kp_attention_problem &p, kp_error *error) {
  const cudaStream_t stream = kp_cuda_of(call)->stream;
  const kp_plain_work work = work_of(call, p, false);
  p.half ? launch_rows<false, kp_half>(work, stream) : launch_rows<false, float>(work, stream);
  return kp_launched(call, error);
}

kp_status kp_attention_plain_backward(const kp_call *call, const kp_attention_problem &p,
                                      const kp_attention_gradients &g, kp_error *error) {
  const cudaStream_t stream = kp_cuda_of(call)->stream;
  kp_plain_work work = work_of(call, p, true);
  work.g = g;
  work.scalars = call->output[3] != NULL || call->output[4] != NULL;
  kp_attention_mean_lines(p, g, (kp_line *)work.means, (double *)work.mean_kappa, stream);
  p.half ? launch_rows<true, kp_half>(work, stream) : launch_rows<true, float>(work, stream);
  kp_attention_add_scalars(work.sums, p.heads, (int64_t)3 * p.batch * work.tiles, kp_output_numbers(call, 3),
                           p.kappa_step == 0, kp_output_numbers(call, 4), p.beta_step == 0, stream);
  return kp_launched(call, error);
}
