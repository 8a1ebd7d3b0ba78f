/* Attention on the tensor cores, backward: passes each of which computes the weights again (Dao et al.
 * 2022, appendix B).  A block owns a tile of rows and meets the other side tile by tile:
 *
 *   means     own q, M̄;  others k, v:   the row sums of P ∘ P̄
 *   queries   own q, M̄;  others k, v:   q̄ += Ḡ k
 *   keys      own k, v;  others q, M̄:   v̄ += Pᵀ M̄,  k̄ += Ḡᵀ q     (split in two where both do not fit)
 *
 * with M̄ the gradient of the means (of plain means it is ō), P̄ = <M̄, v>, S̄ = P (P̄ - row sum of P ∘ P̄) and
 * Ḡ the gradient of the product G = <q, k>.  All of them stay in registers: P and Ḡ have the layout in which
 * the next product wants its left operand, so that no tile goes through shared memory and nothing but the
 * results is written.  Every gradient has one owner; nothing is atomic.  The price is seven products of
 * T² D/2 where one pass with shared sums would need five, and the weights twice.
 *
 * The row sum of P ∘ P̄ is <ō, o> for plain means and 0 for others, but of an o that was rounded to bfloat16
 * it is wrong by 2^-9 of its terms, and what the S̄ of a row then sum to multiplies the mean of whatever is
 * summed next: mean scores in the gradients of κ and β, mean keys in q̄.  Plain dot products bear that
 * (FlashAttention does); the others sum it anew first, two products more.
 *
 * What scores and values have besides products (attention_scores.cuh) leads to own rows times a number, which
 * the sums of two more numbers a row determine: they are applied when a row is finished. */
#ifndef KAPPA_BACKEND_CUDA_ATTENTION_BACKWARD_CUH
#define KAPPA_BACKEND_CUDA_ATTENTION_BACKWARD_CUH

#include "backend/attention_values.h"
#include "backend/cuda/attention_tensor.cuh"
#include "geometry/geodesic_score.h"

enum kp_tensor_pass { KP_TENSOR_MEANS, KP_TENSOR_QUERIES, KP_TENSOR_BOTH, KP_TENSOR_KEYS, KP_TENSOR_VALUES };

template <int D, int DV, kp_tensor_pass PASS> struct kp_backward_shape {
  static constexpr bool query = PASS <= KP_TENSOR_QUERIES,
                        keys = PASS != KP_TENSOR_VALUES && PASS != KP_TENSOR_MEANS,
                        values = PASS == KP_TENSOR_BOTH || PASS == KP_TENSOR_VALUES;
  static constexpr int warps = 4, threads = 128;
  static constexpr int blocks = D <= 64 ? 2 : 1, own = 16 * blocks * warps;
  static constexpr int others = D > 64 && D <= 128 ? 64 : 32;
  static constexpr int stride = D + KP_LINE_PAD, value_stride = DV + KP_LINE_PAD;
};

template <int D, int DV, kp_tensor_pass PASS> struct kp_backward_stage {
  using shape = kp_backward_shape<D, DV, PASS>;
  alignas(16) kp_half score[shape::others * shape::stride];
  kp_half value[shape::others * shape::value_stride];
  kp_row_numbers numbers[shape::others];
  kp_query_bars bars[shape::others];
  kp_value_numbers values[shape::others];
  int documents[shape::others];
};

/* What the query heads that share a key have made of its row so far: what multiplies the rows of key and
 * value, and the products of their sums with these rows. */
struct kp_row_carry {
  float score, value, score_product, value_product;
};

template <int D, int DV, kp_tensor_pass PASS> struct kp_backward_memory {
  using shape = kp_backward_shape<D, DV, PASS>;
  alignas(16) kp_half score[shape::own * shape::stride];
  kp_half value[shape::own * shape::value_stride];
  kp_backward_stage<D, DV, PASS> stage[2];
  float sums[2 * shape::warps];
  kp_row_carry carry[shape::own];
};

/* What a thread knows of its own rows, and sums over the other side: of z̄ or S̄ with the other's numbers (x,
 * y), and of P with M̄'s extra coordinate. */
template <int BLOCKS> struct kp_own_rows {
  kp_row_numbers numbers[BLOCKS][2];
  float level[BLOCKS][2], mean[BLOCKS][2], mean_extra[BLOCKS][2]; /* of a query (kp_query_bars) */
  kp_value_numbers values[BLOCKS][2];                             /* of a value */
  float x[BLOCKS][2], y[BLOCKS][2], extra[BLOCKS][2];
  float bar[BLOCKS][2], weight[BLOCKS][2]; /* of the means: the sums of P ∘ P̄ and of P */
};

/* A head's constants. */
struct kp_backward_head {
  kp_score_head score; /* with β = 1 */
  float beta, by_product;
  bool kappa, curved; /* κ's gradient is wanted; the values are curved */
};

/* Sums of a thread over its pairs. */
struct kp_pair_sums {
  float kappa, beta;
};

/* Rows of M̄ of a head. */
__device__ static inline kp_half_rows kp_mean_rows(const kp_tensor_work &work, int b, int h) {
  const kp_attention_problem &p = work.p;
  if (work.mean_bars == NULL) return kp_half_rows_of(work.g.o, (int64_t)b * p.length, h, p.value_size);
  const int64_t first = ((int64_t)b * p.heads + h) * p.length;
  return kp_half_rows{work.mean_bars + first * work.mean_pitch, work.mean_pitch, (int)work.mean_pitch, true};
}

template <int D, int DV, kp_tensor_pass PASS>
__device__ static void kp_backward_load(const kp_tensor_work &work, kp_backward_stage<D, DV, PASS> &stage,
                                        const kp_half_rows &score, const kp_half_rows &value, int b, int h,
                                        int first) {
  using shape = kp_backward_shape<D, DV, PASS>;
  const kp_attention_problem &p = work.p;
  kp_load_tile<shape::others, D, shape::threads>(stage.score, score, first, p.length);
  kp_load_tile<shape::others, DV, shape::threads>(stage.value, value, first, p.length);
  if (threadIdx.x < shape::others) {
    const int i = threadIdx.x, j = first + i;
    const bool inside = j < p.length;
    const int64_t row = ((int64_t)b * p.heads + h) * p.length + (inside ? j : 0);
    if (work.k != NULL) kp_copy_async<16>(&stage.numbers[i], (shape::query ? work.k : work.q) + row, inside);
    if (!shape::query) kp_copy_async<16>(&stage.bars[i], work.bars + row, inside);
    if (shape::query && work.v != NULL) kp_copy_async<8>(&stage.values[i], work.v + row, inside);
    if (p.documents != NULL)
      kp_copy_async<4>(&stage.documents[i], p.documents + (int64_t)b * p.length + (inside ? j : 0), inside);
  }
  kp_copy_commit();
}

/* sum = <own row, other row> of a warp's own rows. */
template <int COLUMNS, int BLOCKS, int N>
__device__ static void kp_backward_products(float (&sum)[BLOCKS][N][4], const kp_half *own,
                                            const kp_half *other) {
  constexpr int stride = COLUMNS + KP_LINE_PAD;
#pragma unroll
  for (int m = 0; m < BLOCKS; m++)
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) sum[m][n][i] = 0;
#pragma unroll
  for (int d = 0; d < COLUMNS; d += 16) {
    uint32_t a[BLOCKS][4];
#pragma unroll
    for (int m = 0; m < BLOCKS; m++) kp_load_matrices(a[m], kp_left_at<stride>(own, 16 * m, d));
#pragma unroll
    for (int n = 0; n < N / 2; n++) {
      uint32_t right[4];
      kp_load_matrices(right, kp_right_at<stride>(other, 16 * n, d));
#pragma unroll
      for (int m = 0; m < BLOCKS; m++) {
        kp_multiply(sum[m][2 * n], a[m], right[0], right[1]);
        kp_multiply(sum[m][2 * n + 1], a[m], right[2], right[3]);
      }
    }
  }
}

/* sum += weights · other rows */
template <int STRIDE, int BLOCKS, int N, int M>
__device__ static void kp_backward_accumulate(float (&sum)[BLOCKS][M][4],
                                              const float (&weights)[BLOCKS][N][4], const kp_half *other) {
#pragma unroll
  for (int k = 0; k < N / 2; k++) {
    uint32_t a[BLOCKS][4];
#pragma unroll
    for (int m = 0; m < BLOCKS; m++)
#pragma unroll
      for (int i = 0; i < 4; i++)
        a[m][i] =
            kp_pack_pair(weights[m][2 * k + i / 2][i % 2 * 2], weights[m][2 * k + i / 2][i % 2 * 2 + 1]);
#pragma unroll
    for (int n = 0; n < M / 2; n++) {
      uint32_t right[4];
      kp_load_transposed(right, kp_right_turned_at<STRIDE>(other, 16 * k, 16 * n));
#pragma unroll
      for (int m = 0; m < BLOCKS; m++) {
        kp_multiply(sum[m][2 * n], a[m], right[0], right[1]);
        kp_multiply(sum[m][2 * n + 1], a[m], right[2], right[3]);
      }
    }
  }
}

/* Where a tile has hidden pairs. */
struct kp_backward_mask {
  bool any, causal;
  const int *documents;   /* of the sequence; NULL: the tile is of one document */
  int length, own, first; /* position of the thread's first own row, of the first other row */
};

/* One pair: s and bar hold G (z of geodesic scores) and <M̄, v>; leaves Ḡ in bar and, for values, the weight
 * of M̄ in s. */
template <kp_tensor_pass PASS, kp_score_family FAMILY, kp_reach REACH, bool SQUARED, int BLOCKS>
__device__ static inline void
kp_backward_pair(float &s, float &bar, const kp_backward_head &head, kp_own_rows<BLOCKS> &own, int m, int r,
                 const kp_row_numbers &other, const kp_query_bars &other_bars,
                 const kp_value_numbers &other_value, bool hidden, kp_pair_sums &sums) {
  constexpr bool query = PASS <= KP_TENSOR_QUERIES,
                 values = PASS == KP_TENSOR_BOTH || PASS == KP_TENSOR_VALUES;
  const kp_row_numbers &mine = own.numbers[m][r];
  const float level = query ? own.level[m][r] : other_bars.level;
  const float mean = query ? own.mean[m][r] : other_bars.mean;
  const float mean_extra = query ? own.mean_extra[m][r] : other_bars.extra;
  const kp_value_numbers &value = query ? other_value : own.values[m][r];
  const float G = s;
  float unit, by_z = 0, by_kappa = 0; /* the score with β = 1: log 2 for distances */
  float scale = head.beta;
  if (FAMILY == KP_FAMILY_GEODESIC) {
    const kp_geodesic_slope slope = kp_geodesic_backward<REACH, SQUARED>(s, head.score, query && head.kappa);
    unit = slope.score, by_z = slope.by_z, by_kappa = slope.by_kappa;
  } else {
    unit = FAMILY == KP_FAMILY_LORENTZ ? fmaf(-mine.x, other.x, G) : G;
    scale = head.score.factor * head.beta;
  }
  float p = kp_fast_exp2(fmaf(unit, scale, -level));
  if (hidden) p = 0;
  float score_bar = 0;
  if (PASS != KP_TENSOR_VALUES) {
    if (head.curved) bar = value.a * fmaf(value.x, mean_extra, bar);
    if (PASS == KP_TENSOR_MEANS) {
      own.bar[m][r] = fmaf(p, bar, own.bar[m][r]);
      own.weight[m][r] += p;
      return;
    }
    score_bar = p * (bar - mean);
  }
  if (values) {
    if (head.curved) own.extra[m][r] = fmaf(p, mean_extra, own.extra[m][r]), p *= value.a;
    s = p;
  }
  if (PASS == KP_TENSOR_VALUES) return;
  if (query) sums.beta = fmaf(score_bar, unit, sums.beta);
  if (FAMILY == KP_FAMILY_GEODESIC) {
    if (hidden) by_z = by_kappa = 0; /* of rows that are not there */
    const float bar_z = score_bar * head.beta * by_z;
    if (query && head.kappa) sums.kappa = fmaf(score_bar, by_kappa, sums.kappa);
    own.x[m][r] = fmaf(bar_z, other.x, own.x[m][r]);
    own.y[m][r] = fmaf(bar_z, other.y, own.y[m][r]);
    bar = -bar_z * (mine.z * other.z);
  } else {
    if (FAMILY == KP_FAMILY_LORENTZ) {
      own.x[m][r] = fmaf(score_bar, other.y, own.x[m][r]);
      if (query && head.kappa && !hidden) {
        const float difference = mine.own - other.own;
        sums.kappa = fmaf(score_bar * difference, difference * (mine.z * other.z), sums.kappa);
      }
    }
    bar = score_bar * head.by_product;
  }
}

/* Which pairs of a thread are not hidden: bit 4 n + i of block m. */
template <bool QUERY, int N, int BLOCKS>
__device__ static void kp_backward_visible(uint32_t (&visible)[BLOCKS], const kp_backward_mask &mask,
                                           const int *documents) {
#pragma unroll
  for (int m = 0; m < BLOCKS; m++) visible[m] = mask.any ? 0 : 0xffffffffu;
  if (!mask.any) return;
  const int column = threadIdx.x % 4 * 2;
#pragma unroll
  for (int m = 0; m < BLOCKS; m++)
#pragma unroll
    for (int r = 0; r < 2; r++) {
      /* The first position on the other side that the row meets, and the one behind the last. */
      const int row = mask.own + 16 * m + 8 * r, end = row < mask.length ? mask.length : 0;
      const int own = mask.documents == NULL ? 0 : mask.documents[min(row, mask.length - 1)];
      const int from = !QUERY && mask.causal ? row : 0, to = QUERY && mask.causal ? min(end, row + 1) : end;
#pragma unroll
      for (int n = 0; n < N; n++)
#pragma unroll
        for (int c = 0; c < 2; c++) {
          const int at = 8 * n + column + c, position = mask.first + at;
          bool sees = (position >= from) & (position < to);
          if (mask.documents != NULL) sees &= documents[at] == own;
          visible[m] |= (uint32_t)sees << (4 * n + 2 * r + c);
        }
    }
}

template <kp_tensor_pass PASS, kp_score_family FAMILY, kp_reach REACH, bool SQUARED, int BLOCKS, int N,
          typename STAGE>
__device__ static void kp_backward_pairs(float (&s)[BLOCKS][N][4], float (&bar)[BLOCKS][N][4],
                                         const kp_backward_head &head, kp_own_rows<BLOCKS> &own,
                                         const STAGE &stage, const uint32_t (&visible)[BLOCKS],
                                         kp_pair_sums &sums) {
  constexpr bool query = PASS <= KP_TENSOR_QUERIES;
  const int column = threadIdx.x % 4 * 2;
#pragma unroll
  for (int n = 0; n < N; n++)
#pragma unroll
    for (int c = 0; c < 2; c++) {
      const int at = 8 * n + column + c;
      kp_row_numbers other = {0, 0, 0, 0};
      kp_query_bars bars = {0, 0, 0, 0};
      kp_value_numbers value = {1, 0};
      if (FAMILY != KP_FAMILY_DOT) other = stage.numbers[at];
      if (!query) bars = stage.bars[at];
      if (query && head.curved) value = stage.values[at];
#pragma unroll
      for (int m = 0; m < BLOCKS; m++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
          const bool hidden = !(visible[m] >> (4 * n + 2 * r + c) & 1);
          kp_backward_pair<PASS, FAMILY, REACH, SQUARED>(s[m][n][2 * r + c], bar[m][n][2 * r + c], head, own,
                                                         m, r, other, bars, value, hidden, sums);
        }
    }
}

/* Products become z; returns whether all |z| of a warp's part are at most 1/2. */
template <int BLOCKS, int N>
__device__ static bool kp_backward_near(float (&s)[BLOCKS][N][4], const kp_own_rows<BLOCKS> &own,
                                        const kp_row_numbers *others) {
  const int column = threadIdx.x % 4 * 2;
  bool far = false;
#pragma unroll
  for (int n = 0; n < N; n++)
#pragma unroll
    for (int c = 0; c < 2; c++) {
      const kp_row_numbers other = others[8 * n + column + c];
#pragma unroll
      for (int m = 0; m < BLOCKS; m++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
          const kp_row_numbers &mine = own.numbers[m][r];
          float &z = s[m][n][2 * r + c];
          z = fmaf(-mine.z * other.z, z, fmaf(mine.x, other.x, mine.y * other.y));
          far |= !(fabsf(z) <= 0.5f);
        }
    }
  return !__any_sync(0xffffffffu, far);
}

template <kp_tensor_pass PASS, kp_score_family FAMILY, int BLOCKS, int N, typename STAGE>
__device__ static void kp_backward_tile(float (&s)[BLOCKS][N][4], float (&bar)[BLOCKS][N][4],
                                        const kp_backward_head &head, kp_own_rows<BLOCKS> &own,
                                        const STAGE &stage, const uint32_t (&visible)[BLOCKS],
                                        kp_pair_sums &sums) {
  if (FAMILY != KP_FAMILY_GEODESIC) {
    kp_backward_pairs<PASS, FAMILY, KP_REACH_NEAR, false>(s, bar, head, own, stage, visible, sums);
    return;
  }
  const bool near = kp_backward_near(s, own, stage.numbers), squared = head.score.squared;
  if (near && squared)
    kp_backward_pairs<PASS, FAMILY, KP_REACH_NEAR, true>(s, bar, head, own, stage, visible, sums);
  else if (near)
    kp_backward_pairs<PASS, FAMILY, KP_REACH_NEAR, false>(s, bar, head, own, stage, visible, sums);
  else if (head.score.kappa < 0)
    kp_backward_pairs<PASS, FAMILY, KP_REACH_HYPERBOLIC, false>(s, bar, head, own, stage, visible, sums);
  else
    kp_backward_pairs<PASS, FAMILY, KP_REACH_SPHERICAL, false>(s, bar, head, own, stage, visible, sums);
}

/* ---- Own rows ---- */

/* <sum, row> and |row|² of one row, over the four lanes that hold it. */
template <int M>
__device__ static void kp_row_products(const float (&sum)[M][4], int r, const kp_half *row, float *product,
                                       float *square) {
  float with = 0, own = 0;
#pragma unroll
  for (int n = 0; n < M; n++) {
    const uint32_t pair = *(const uint32_t *)(row + 8 * n + threadIdx.x % 4 * 2);
    const float low = kp_pair_low(pair), high = kp_pair_high(pair);
    with = fmaf(sum[n][2 * r], low, fmaf(sum[n][2 * r + 1], high, with));
    own = fmaf(low, low, fmaf(high, high, own));
  }
  *product = kp_quad_sum(with), *square = kp_quad_sum(own);
}

/* What multiplies a query or key in its own gradient, from the sums x and y and <Ḡ's sum, row>; adds to κ's.
 */
template <kp_score_family FAMILY>
__device__ __noinline__ static float
kp_score_row_factor(const kp_tensor_work &work, const kp_backward_head &head, float product, float square,
                    float x, float y, const kp_row_numbers &numbers, bool query, float *kappa_bar) {
  const float scale = work.p.scale, kappa = head.score.kappa;
  if (FAMILY == KP_FAMILY_LORENTZ) return -2 * head.beta * scale * scale * x * numbers.z;
  square *= scale * scale;
  const kp_geodesic_row row = kp_geodesic_row_of(square, kappa);
  /* The other's numbers are (c², κ|m|²) for a query, (κ|m|², c²) for a key. */
  const float alpha_bar = kappa * (query ? x : y), cosine_square_bar = query ? y : x;
  const float ratio = kp_abs(row.scale) < 1e-12f ? 1e-12f : row.scale;
  const float cosine = kp_abs(row.cosine) < 1e-12f ? 1e-12f : row.cosine;
  const float z_bar =
      kp_geodesic_row_backward(square, kappa, product / ratio + 2 * alpha_bar * row.scale * square,
                               2 * row.cosine * cosine_square_bar + product / cosine, kappa_bar);
  return scale * scale * 2 * (alpha_bar * row.scale * row.scale + kappa * z_bar);
}

/* sum + factor · row to the tile that the row lies in. */
template <int M>
__device__ static void kp_finish_row(const float (&sum)[M][4], int r, float factor, kp_half *row) {
#pragma unroll
  for (int n = 0; n < M; n++) {
    uint32_t *at = (uint32_t *)(row + 8 * n + threadIdx.x % 4 * 2);
    const uint32_t pair = *at;
    *at = kp_pack_pair(fmaf(factor, kp_pair_low(pair), sum[n][2 * r]),
                       fmaf(factor, kp_pair_high(pair), sum[n][2 * r + 1]));
  }
}

/* The same of a value; <v̄'s sum, v> is divided by what multiplied it. */
__device__ __noinline__ static float kp_value_row_factor(int values, float square, float kappa, float product,
                                                         float extra, float *kappa_bar) {
  return kp_value_row_backward((kp_values)values, square, kappa, product, extra, kappa_bar);
}

template <int BLOCKS, bool QUERY>
__device__ static void kp_backward_rows(const kp_tensor_work &work, kp_own_rows<BLOCKS> &own, int b, int h,
                                        int row) {
  const kp_attention_problem &p = work.p;
  const kp_row_numbers *numbers = QUERY ? work.q : work.k;
#pragma unroll
  for (int m = 0; m < BLOCKS; m++)
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const int i = min(row + 16 * m + 8 * r, p.length - 1);
      const int64_t at = ((int64_t)b * p.heads + h) * p.length + i;
      own.numbers[m][r] = numbers == NULL ? kp_row_numbers{0, 0, 0, 0} : numbers[at];
      const kp_query_bars bars = QUERY ? work.bars[at] : kp_query_bars{0, 0, 0, 0};
      own.level[m][r] = bars.level, own.mean[m][r] = bars.mean, own.mean_extra[m][r] = bars.extra;
      own.values[m][r] = QUERY || work.v == NULL ? kp_value_numbers{1, 0} : work.v[at];
      own.x[m][r] = own.y[m][r] = own.extra[m][r] = own.bar[m][r] = own.weight[m][r] = 0;
    }
}

/* The sums of a block's threads, in a fixed order, to the scratch memory. */
__device__ static inline void kp_backward_sums(const kp_tensor_work &work, kp_scalar_sums *to, float *shared,
                                               float kappa, float beta) {
  if (work.sums == NULL) return;
  kappa = kp_warp_sum(kappa), beta = kp_warp_sum(beta);
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32 * 2] = kappa, shared[threadIdx.x / 32 * 2 + 1] = beta;
  __syncthreads();
  if (threadIdx.x != 0) return;
  kp_scalar_sums sums = {0, 0};
  for (int warp = 0; warp < (int)blockDim.x / 32; warp++)
    sums.kappa += (double)shared[2 * warp], sums.beta += (double)shared[2 * warp + 1];
  *to = sums;
}

template <kp_score_family FAMILY>
__device__ static inline kp_backward_head kp_backward_head_of(const kp_tensor_work &work, int h) {
  const kp_attention_problem &p = work.p;
  kp_backward_head head;
  head.score = kp_score_head_of(p, h, 1);
  if (head.score.negated) head.score.factor = -head.score.factor;
  head.beta = kp_head_beta(p, h);
  head.by_product = head.beta * head.score.factor * KP_LN_2;
  head.kappa = work.sums != NULL && p.kappa.at != NULL;
  head.curved = FAMILY != KP_FAMILY_DOT && work.v != NULL;
  return head;
}

/* The gradient of β from S̄ · score with β = 1, and of κ from a thread's sums. */
__device__ static inline kp_pair_sums kp_natural_sums(const kp_tensor_work &work,
                                                      const kp_backward_head &head, kp_pair_sums sums) {
  const int score = work.p.score;
  const float c = -1 / head.score.kappa;
  kp_pair_sums natural;
  natural.beta = sums.beta * (kp_is_geodesic(score) ? KP_LN_2 : head.score.factor * KP_LN_2);
  natural.kappa = score == KP_SCORE_DOT       ? 0
                  : score == KP_SCORE_LORENTZ ? -head.beta * c * sums.kappa
                                              : head.beta * sums.kappa / head.score.kappa;
  return natural;
}

/* The row sums of P ∘ P̄. */
template <int BLOCKS>
__device__ static void kp_finish_means(const kp_tensor_work &work, const kp_own_rows<BLOCKS> &own, int b,
                                       int h, int row) {
#pragma unroll
  for (int m = 0; m < BLOCKS; m++)
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const float bar = kp_quad_sum(own.bar[m][r]), weight = kp_quad_sum(own.weight[m][r]);
      const int i = row + 16 * m + 8 * r;
      if (threadIdx.x % 4 == 0 && i < work.p.length)
        work.bars[((int64_t)b * work.p.heads + h) * work.p.length + i].mean = bar / weight;
    }
}

/* ---- A block ---- */

template <int D, int DV, kp_tensor_pass PASS, kp_score_family FAMILY>
__global__ static void __launch_bounds__(128, 2)
    kp_backward_kernel(const __grid_constant__ kp_tensor_work work) {
  using shape = kp_backward_shape<D, DV, PASS>;
  constexpr int blocks = shape::blocks, others = shape::others;
  extern __shared__ __align__(16) char shared[];
  kp_backward_memory<D, DV, PASS> &memory = *(kp_backward_memory<D, DV, PASS> *)shared;
  const kp_attention_problem &p = work.p;
  const int owners = shape::query ? p.heads : p.kv_heads, group = p.heads / owners;
  const int item = blockIdx.x % (p.batch * owners), b = item / owners, owner = item % owners;
  const int turn = blockIdx.x / (p.batch * owners), tile = shape::query ? work.tiles - 1 - turn : turn;
  const int begin = tile * shape::own, warp_row = (int)threadIdx.x / 32 * 16 * blocks;
  const int line = warp_row + (int)threadIdx.x % 32 / 4, row = begin + line;
  const int64_t n = (int64_t)b * p.length;
  const int from = !shape::query && p.causal ? begin : 0;
  const int end = shape::query && p.causal ? min(p.length, begin + shape::own) : p.length;
  kp_document_span span = {0, 0};
  if (work.spans != NULL) span = kp_span_of(work, b, begin, shape::own);
  float score_sum[blocks][shape::keys ? D / 8 : 1][4] = {},
                                                value_sum[blocks][shape::values ? DV / 8 : 1][4] = {};
  for (int i = threadIdx.x; i < shape::own; i += shape::threads) memory.carry[i] = kp_row_carry{0, 0, 0, 0};

  for (int h = owner * group; h < owner * group + group; h++) {
    const int kv = shape::query ? h / (p.heads / p.kv_heads) : owner;
    const kp_backward_head head = kp_backward_head_of<FAMILY>(work, h);
    const kp_half_rows q = kp_half_rows_of(p.q, n, h, p.size), k = kp_half_rows_of(p.k, n, kv, p.size);
    const kp_half_rows v = kp_half_rows_of(p.v, n, kv, p.value_size), means = kp_mean_rows(work, b, h);
    const kp_half_rows &other_score = shape::query ? k : q, &other_value = shape::query ? v : means;
    int first = kp_next_tile<others>(work, span, b, from, end), stage = 0;
    __syncthreads();
    if (h == owner * group) {
      kp_load_tile<shape::own, D, shape::threads>(memory.score, shape::query ? q : k, begin, p.length);
      kp_load_tile<shape::own, DV, shape::threads>(memory.value, shape::query ? means : v, begin, p.length);
    }
    kp_backward_load(work, memory.stage[0], other_score, other_value, b, h, first);
    kp_own_rows<blocks> own;
    kp_backward_rows<blocks, shape::query>(work, own, b, h, row);
    kp_pair_sums sums = {0, 0};
    while (first < end) {
      const int next = kp_next_tile<others>(work, span, b, first + others, end);
      kp_copy_wait<0>();
      __syncthreads(); /* this tile has come, and all are done with the one before */
      if (next < end) kp_backward_load(work, memory.stage[stage ^ 1], other_score, other_value, b, h, next);
      const kp_backward_stage<D, DV, PASS> &at = memory.stage[stage];
      /* A warp whose pairs are all hidden has nothing to do. */
      const bool sees =
          shape::query ? first < begin + warp_row + 16 * blocks : first + others > begin + warp_row;
      if (!p.causal || sees) {
        float s[blocks][others / 8][4], bar[blocks][others / 8][4];
        kp_backward_products<D>(s, memory.score + warp_row * shape::stride, at.score);
        if (PASS != KP_TENSOR_VALUES)
          kp_backward_products<DV>(bar, memory.value + warp_row * shape::value_stride, at.value);
        kp_backward_mask mask = {false, false, NULL, p.length, row, first};
        mask.causal = p.causal && (shape::query ? first + others > begin + warp_row
                                                : begin + warp_row + 16 * blocks > first);
        if (work.spans != NULL && kp_spans_mixed(span, kp_span_of(work, b, first, others)))
          mask.documents = p.documents + n;
        mask.any = mask.causal || mask.documents != NULL || first + others > p.length ||
                   begin + shape::own > p.length;
        uint32_t visible[blocks];
        kp_backward_visible<shape::query, others / 8>(visible, mask, at.documents);
        kp_backward_tile<PASS, FAMILY>(s, bar, head, own, at, visible, sums);
        if constexpr (shape::values) kp_backward_accumulate<shape::value_stride>(value_sum, s, at.value);
        if constexpr (shape::keys) kp_backward_accumulate<shape::stride>(score_sum, bar, at.score);
      }
      first = next, stage ^= 1;
    }
    if constexpr (PASS == KP_TENSOR_MEANS) {
      kp_finish_means(work, own, b, h, row);
      return;
    }
    /* What this head's numbers make of the rows. */
    kp_pair_sums total = kp_natural_sums(work, head, sums);
#pragma unroll
    for (int m = 0; m < blocks; m++)
#pragma unroll
      for (int r = 0; r < 2; r++) {
        const int place = line + 16 * m + 8 * r;
        kp_row_carry carry = memory.carry[place];
        float kappa = 0, product, square;
        if constexpr (shape::keys && FAMILY != KP_FAMILY_DOT) {
          const float x = kp_quad_sum(own.x[m][r]), y = kp_quad_sum(own.y[m][r]);
          kp_row_products(score_sum[m], r, memory.score + place * shape::stride, &product, &square);
          carry.score += kp_score_row_factor<FAMILY>(work, head, product - carry.score_product, square, x, y,
                                                     own.numbers[m][r], shape::query, &kappa);
          carry.score_product = product;
        }
        if constexpr (shape::values) {
          if (head.curved) {
            const float extra = kp_quad_sum(own.extra[m][r]);
            kp_row_products(value_sum[m], r, memory.value + place * shape::value_stride, &product, &square);
            carry.value +=
                kp_value_row_factor(p.values, square, kp_head_kappa(p, h),
                                    (product - carry.value_product) / own.values[m][r].a, extra, &kappa);
            carry.value_product = product;
          }
        }
        __syncwarp();
        if (threadIdx.x % 4 == 0) memory.carry[place] = carry;
        __syncwarp();
        if (shape::query && begin + place < p.length)
          kappa += work.bars[((int64_t)b * p.heads + h) * p.length + begin + place].kappa;
        if (threadIdx.x % 4 == 0 && begin + place < p.length) total.kappa += kappa;
      }
    kp_backward_sums(work, work.sums + ((int64_t)h * p.batch + b) * work.parts + work.first_part + tile,
                     memory.sums, total.kappa, total.beta);
  }
#pragma unroll
  for (int m = 0; m < blocks; m++)
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const int place = line + 16 * m + 8 * r;
      if constexpr (shape::keys)
        kp_finish_row(score_sum[m], r, memory.carry[place].score, memory.score + place * shape::stride);
      if constexpr (shape::values)
        kp_finish_row(value_sum[m], r, memory.carry[place].value, memory.value + place * shape::value_stride);
    }
  __syncthreads();
  if (shape::keys && (shape::query ? work.g.q : work.g.k).base != NULL)
    kp_store_tile<shape::own, D, shape::threads>(
        memory.score, kp_half_rows_of(shape::query ? work.g.q : work.g.k, n, owner, p.size), begin, p.length);
  if (shape::values && work.g.v.base != NULL)
    kp_store_tile<shape::own, DV, shape::threads>(
        memory.value, kp_half_rows_of(work.g.v, n, owner, p.value_size), begin, p.length);
}

/* ---- Launching ---- */

template <int D, int DV, kp_tensor_pass PASS, kp_score_family FAMILY>
static kp_status kp_backward_pass(kp_tensor_work &work, int first_part, cudaStream_t stream,
                                  kp_error *error) {
  using shape = kp_backward_shape<D, DV, PASS>;
  const int bytes = (int)sizeof(kp_backward_memory<D, DV, PASS>);
  const auto kernel = kp_backward_kernel<D, DV, PASS, FAMILY>;
  KP_TRY(kp_cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
                       "attention_backward", error));
  work.tiles = (work.p.length + shape::own - 1) / shape::own;
  work.first_part = first_part;
  const int owners = shape::query ? work.p.heads : work.p.kv_heads;
  kernel<<<work.tiles * work.p.batch * owners, shape::threads, bytes, stream>>>(work);
  return KP_OK;
}

template <int D, int DV, kp_score_family FAMILY>
static kp_status kp_backward_launch(kp_tensor_work &work, cudaStream_t stream, kp_error *error) {
  constexpr int own = kp_backward_shape<D, DV, KP_TENSOR_QUERIES>::own;
  const int tiles = (work.p.length + own - 1) / own;
  work.parts = (D <= 128 ? 2 : 3) * tiles;
  if constexpr (FAMILY != KP_FAMILY_DOT)
    KP_TRY((kp_backward_pass<D, DV, KP_TENSOR_MEANS, FAMILY>(work, 0, stream, error)));
  KP_TRY((kp_backward_pass<D, DV, KP_TENSOR_QUERIES, FAMILY>(work, 0, stream, error)));
  if constexpr (D <= 128) {
    return kp_backward_pass<D, DV, KP_TENSOR_BOTH, FAMILY>(work, tiles, stream, error);
  } else {
    KP_TRY((kp_backward_pass<D, DV, KP_TENSOR_KEYS, FAMILY>(work, tiles, stream, error)));
    return kp_backward_pass<D, DV, KP_TENSOR_VALUES, FAMILY>(work, 2 * tiles, stream, error);
  }
}

/* Geodesic scores, whose kernels are long, have fewer sizes. */
template <kp_score_family FAMILY>
static kp_status kp_backward_of_family(kp_tensor_work &work, cudaStream_t stream, kp_error *error) {
  const int D = work.p.size, DV = work.p.value_size;
  if (D <= 32 && DV <= 32) return kp_backward_launch<32, 32, FAMILY>(work, stream, error);
  if (D <= 64 && DV <= 64) return kp_backward_launch<64, 64, FAMILY>(work, stream, error);
  if constexpr (FAMILY != KP_FAMILY_GEODESIC) {
    if (D <= 96 && DV <= 64) return kp_backward_launch<96, 64, FAMILY>(work, stream, error);
    if (D <= 96 && DV <= 96) return kp_backward_launch<96, 96, FAMILY>(work, stream, error);
  }
  if (D <= 128 && DV <= 128) return kp_backward_launch<128, 128, FAMILY>(work, stream, error);
  if constexpr (FAMILY != KP_FAMILY_GEODESIC)
    if (D <= 192 && DV <= 128) return kp_backward_launch<192, 128, FAMILY>(work, stream, error);
  return kp_backward_launch<256, 256, FAMILY>(work, stream, error);
}

#endif
