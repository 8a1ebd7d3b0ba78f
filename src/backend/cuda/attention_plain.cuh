/* Tiles of the plain attention kernels: products of lines, in float or double.
 *
 * A line is a row with what geometry adds to it (attention.cuh): the scores are functions of inner products
 * of query and key lines, the means are weighted sums of value lines, and gradients go back along the same
 * products.  A block of 16 × 16 threads holds a square tile, M × M numbers a thread, and walks through lines
 * in short pieces, so that its shared memory does not depend on D.
 *
 * A product reads 2M numbers of shared memory for M² multiplications a thread; that bounds it. */
#ifndef KAPPA_BACKEND_CUDA_ATTENTION_PLAIN_CUH
#define KAPPA_BACKEND_CUDA_ATTENTION_PLAIN_CUH

#include "backend/cuda/attention.cuh"
#include "geometry/geodesic_score.h"
#include "geometry/lorentz.h"

enum { KP_GRID = 16, KP_DEPTH = 16, KP_WIDTH = 32, KP_TILE_THREADS = KP_GRID * KP_GRID };

/* The lines of one head of one sequence. */
template <typename R> struct kp_lines {
  const R *row, *second; /* position 0; NULL: zeros */
  int64_t stride, second_stride;
  const kp_line *line; /* of position 0, `step` apart; NULL: the lines are the rows */
  int step, size, columns;
};

template <typename A, typename R>
__device__ static A kp_line_number(const kp_lines<R> &lines, int position, int column) {
  if (column < lines.size) {
    const A x = lines.row == NULL ? A(0) : A(kp_to_float(lines.row[position * lines.stride + column]));
    if (lines.line == NULL) return x;
    const kp_line &line = lines.line[(int64_t)position * lines.step];
    const A value = A(line.a) * x;
    if (line.b == 0) return value;
    return value + A(line.b) * A(kp_to_float(lines.second[position * lines.second_stride + column]));
  }
  if (column >= lines.columns) return A(0);
  const kp_line &line = lines.line[(int64_t)position * lines.step];
  return column == lines.size ? A(line.x) : A(line.y);
}

template <typename A, int M> struct kp_tile_memory {
  static constexpr int side = KP_GRID * M;
  A left[side][KP_DEPTH + 1], right[side][KP_DEPTH + 1];
  A weights[side][side + 1];
  A wide[side][KP_WIDTH + 1];
};

/* columns first … first+WIDTH-1 of lines begin … begin+side-1 to shared memory; zeros from `end` on. */
template <int WIDTH, typename A, int SIDE, typename R>
__device__ static void kp_load_lines(A (*to)[WIDTH + 1], const kp_lines<R> &lines, int begin, int end,
                                     int first) {
  for (int i = threadIdx.y * KP_GRID + threadIdx.x; i < SIDE * WIDTH; i += KP_TILE_THREADS) {
    const int row = i / WIDTH, column = i % WIDTH;
    to[row][column] = begin + row < end ? kp_line_number<A>(lines, begin + row, first + column) : A(0);
  }
}

/* tile[r][c] = <left line of row y + 16 r, right line of row x + 16 c>, of thread (x, y). */
template <typename A, int M, typename R>
__device__ static void kp_tile_product(kp_tile_memory<A, M> &memory, const kp_lines<R> &left, int left_begin,
                                       const kp_lines<R> &right, int right_begin, int end, A (&tile)[M][M]) {
  constexpr int side = KP_GRID * M;
#pragma unroll
  for (int r = 0; r < M; r++)
#pragma unroll
    for (int c = 0; c < M; c++) tile[r][c] = A(0);
  for (int first = 0; first < left.columns; first += KP_DEPTH) {
    __syncthreads();
    kp_load_lines<KP_DEPTH, A, side>(memory.left, left, left_begin, end, first);
    kp_load_lines<KP_DEPTH, A, side>(memory.right, right, right_begin, end, first);
    __syncthreads();
#pragma unroll
    for (int d = 0; d < KP_DEPTH; d++) {
      A a[M], b[M];
#pragma unroll
      for (int r = 0; r < M; r++) a[r] = memory.left[threadIdx.y + KP_GRID * r][d];
#pragma unroll
      for (int c = 0; c < M; c++) b[c] = memory.right[threadIdx.x + KP_GRID * c][d];
#pragma unroll
      for (int r = 0; r < M; r++)
#pragma unroll
        for (int c = 0; c < M; c++) tile[r][c] += a[r] * b[c];
    }
  }
}

/* sum[r][c] += Σ_j weight of rows y + 16 r and j · column x + 16 c of line j. */
template <typename A, int M, int N, typename R>
__device__ static void kp_tile_accumulate(kp_tile_memory<A, M> &memory, const A (&weights)[M][M],
                                          const kp_lines<R> &lines, int begin, int end, A (&sum)[M][N]) {
  constexpr int side = KP_GRID * M;
  static_assert(N % 2 == 0, "a piece is two columns a thread");
  __syncthreads();
#pragma unroll
  for (int r = 0; r < M; r++)
#pragma unroll
    for (int c = 0; c < M; c++)
      memory.weights[threadIdx.y + KP_GRID * r][threadIdx.x + KP_GRID * c] = weights[r][c];
#pragma unroll
  for (int piece = 0; piece < N / 2; piece++) {
    if (piece * KP_WIDTH >= lines.columns) break;
    __syncthreads();
    kp_load_lines<KP_WIDTH, A, side>(memory.wide, lines, begin, end, piece * KP_WIDTH);
    __syncthreads();
#pragma unroll 4
    for (int j = 0; j < side; j++) {
      A a[M], b[2];
#pragma unroll
      for (int r = 0; r < M; r++) a[r] = memory.weights[threadIdx.y + KP_GRID * r][j];
#pragma unroll
      for (int c = 0; c < 2; c++) b[c] = memory.wide[j][threadIdx.x + KP_GRID * c];
#pragma unroll
      for (int r = 0; r < M; r++)
#pragma unroll
        for (int c = 0; c < 2; c++) sum[r][2 * piece + c] += a[r] * b[c];
    }
  }
}

/* ---- Scalars and scores ---- */

struct kp_head_scalars {
  double kappa, beta, scale;
};

__device__ static kp_head_scalars scalars_of(const kp_attention_problem &p, int h) {
  return kp_head_scalars{(double)kp_head_kappa(p, h), (double)kp_head_beta(p, h), (double)p.scale};
}

__device__ static bool sees(const kp_attention_problem &p, int b, int i, int j) {
  if (i >= p.length || j >= p.length || (p.causal && j > i)) return false;
  if (p.documents == NULL) return true;
  const int32_t *documents = p.documents + (int64_t)b * p.length;
  return documents[i] == documents[j];
}

/* The score divided by β, from the product of lines. */
__device__ static float score_of(int, float product, const kp_head_scalars &s) {
  return (float)s.scale * product;
}

__device__ static double score_of(int score, double product, const kp_head_scalars &s) {
  if (score == KP_SCORE_DOT) return s.scale * product;
  if (score == KP_SCORE_LORENTZ) return 2 * (kp_lorentz_radius(s.kappa) + product);
  return -kp_geodesic_pair_at(product, s.kappa, score == KP_SCORE_DISTANCE ? 1 : 2).distance;
}

/* The gradient of the product of lines, given that of the score; adds κ's.  `times` is for Lorentz scores:
 * the product of what depends on c. */
__device__ static float product_bar_of(int, float, const kp_head_scalars &s, float bar, double, double,
                                       double *) {
  return (float)(s.scale * s.beta) * bar;
}

__device__ static double product_bar_of(int score, double product, const kp_head_scalars &s, double bar,
                                        double query_time, double key_time, double *kappa) {
  bar *= s.beta;
  if (score == KP_SCORE_DOT) return s.scale * bar;
  if (score == KP_SCORE_LORENTZ) {
    const double c = kp_lorentz_radius(s.kappa);
    *kappa += bar * c * c * kp_lorentz_score_by_radius(query_time, key_time);
    return 2 * bar;
  }
  const kp_geodesic_pair pair = kp_geodesic_pair_at(product, s.kappa, score == KP_SCORE_DISTANCE ? 1 : 2);
  *kappa -= bar * pair.by_kappa;
  return -bar * pair.by_sine_square;
}

__device__ static float exponential(float x) {
  return expf(x);
}
__device__ static double exponential(double x) {
  return exp(x);
}

/* ---- Reductions ---- */

/* Sums and maxima over the 16 threads that share a row. */
template <typename A> __device__ static A kp_row_sum(A x) {
  for (int offset = KP_GRID / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}

template <typename A> __device__ static A kp_row_max(A x) {
  for (int offset = KP_GRID / 2; offset > 0; offset /= 2) {
    const A other = __shfl_xor_sync(0xffffffffu, x, offset);
    x = other > x || other != other ? other : x;
  }
  return x;
}

/* The sum over all threads, in double; `shared` holds 32. */
__device__ static inline double kp_tile_sum(double x, double *shared) {
  const int thread = threadIdx.y * KP_GRID + threadIdx.x;
  x = kp_warp_sum(x);
  __syncthreads();
  if (thread % 32 == 0) shared[thread / 32] = x;
  __syncthreads();
  x = 0;
  for (int warp = 0; warp < KP_TILE_THREADS / 32; warp++) x += shared[warp];
  return x;
}

#endif
