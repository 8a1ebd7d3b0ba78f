/* A tile of the backward pass on the tensor cores (attention_backward.cuh): its memory, its products, and
 * what becomes of its pairs. */
#ifndef KAPPA_BACKEND_CUDA_ATTENTION_BACKWARD_TILE_CUH
#define KAPPA_BACKEND_CUDA_ATTENTION_BACKWARD_TILE_CUH

#include "backend/cuda/attention_tensor.cuh"

enum kp_tensor_pass { KP_TENSOR_MEANS, KP_TENSOR_QUERIES, KP_TENSOR_BOTH, KP_TENSOR_KEYS, KP_TENSOR_VALUES };

template <int D, int DV, kp_tensor_pass PASS, kp_score_family FAMILY> struct kp_backward_shape {
  static constexpr bool query = PASS <= KP_TENSOR_QUERIES,
                        keys = PASS != KP_TENSOR_VALUES && PASS != KP_TENSOR_MEANS,
                        values = PASS == KP_TENSOR_BOTH || PASS == KP_TENSOR_VALUES;
  static constexpr bool low = FAMILY != KP_FAMILY_DOT; /* M̄ may come in two parts */
  static constexpr int warps = 4, threads = 128, own = 16 * warps;
  static constexpr int others = FAMILY == KP_FAMILY_DOT && D <= 128 && !values ? 64 : 32;
  static constexpr int stride = D + KP_LINE_PAD, value_stride = DV + KP_LINE_PAD;
};

template <int D, int DV, kp_tensor_pass PASS, kp_score_family FAMILY> struct kp_backward_stage {
  using shape = kp_backward_shape<D, DV, PASS, FAMILY>;
  alignas(16) kp_half score[shape::others * shape::stride];
  kp_half value[shape::others * shape::value_stride];
  kp_half low[shape::low && !shape::query ? shape::others * shape::value_stride : 8];
  kp_row_numbers numbers[shape::others];
  kp_query_bars bars[shape::others];
  kp_value_numbers values[shape::others];
  int documents[shape::others];
};

/* What the query heads that share a key have made of its row so far: what multiplies the rows of key and
 * value, and the product of the value's sum with its row. */
struct kp_row_carry {
  float score, value, value_product;
};

template <int D, int DV, kp_tensor_pass PASS, kp_score_family FAMILY> struct kp_backward_memory {
  using shape = kp_backward_shape<D, DV, PASS, FAMILY>;
  alignas(16) kp_half score[shape::own * shape::stride];
  kp_half value[shape::own * shape::value_stride];
  kp_half low[shape::low && shape::query ? shape::own * shape::value_stride : 8];
  kp_backward_stage<D, DV, PASS, FAMILY> stage[2];
  float sums[2 * shape::warps];
  kp_row_carry carry[shape::own];
};

/* What a thread knows of its own rows, and sums over the other side. */
template <int BLOCKS> struct kp_own_rows {
  kp_row_numbers numbers[BLOCKS][2];
  float level[BLOCKS][2], mean[BLOCKS][2], mean_extra[BLOCKS][2]; /* of a query (kp_query_bars) */
  kp_value_numbers values[BLOCKS][2];                             /* of a value */
  float x[BLOCKS][2], y[BLOCKS][2],
      z[BLOCKS][2]; /* z̄ times the other's x and y and times z; S̄ times the time */
  float weight_x[BLOCKS][2], weight_y[BLOCKS][2], weight_z[BLOCKS][2]; /* the same with P for S̄ */
  float extra[BLOCKS][2];                                              /* the weights times M̄'s extra */
  float bar[BLOCKS][2], weight[BLOCKS][2]; /* S̄, or of the means' pass P ∘ P̄ and P */
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

/* Rows of M̄ of a head: all of it, or the high or low part. */
__device__ static inline kp_half_rows kp_mean_rows(const kp_tensor_work &work, int b, int h, bool low) {
  const kp_attention_problem &p = work.p;
  if (work.mean_bars == NULL) return kp_half_rows_of(work.g.o, (int64_t)b * p.length, h, p.value_size);
  const int64_t first = ((int64_t)b * p.heads + h) * p.length;
  return kp_half_rows{(low ? work.mean_lows : work.mean_bars) + first * work.mean_pitch, work.mean_pitch,
                      (int)work.mean_pitch, true};
}

template <int D, int DV, kp_tensor_pass PASS, kp_score_family FAMILY>
__device__ static void kp_backward_load(const kp_tensor_work &work,
                                        kp_backward_stage<D, DV, PASS, FAMILY> &stage,
                                        const kp_half_rows &score, const kp_half_rows &value,
                                        const kp_half_rows &low, int b, int h, int first) {
  using shape = kp_backward_shape<D, DV, PASS, FAMILY>;
  const kp_attention_problem &p = work.p;
  kp_load_tile<shape::others, D, shape::threads>(stage.score, score, first, p.length);
  kp_load_tile<shape::others, DV, shape::threads>(stage.value, value, first, p.length);
  if (shape::low && !shape::query && work.mean_bars != NULL)
    kp_load_tile<shape::others, DV, shape::threads>(stage.low, low, first, p.length);
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

template <int BLOCKS, int N> __device__ static inline void kp_clear(float (&sum)[BLOCKS][N][4]) {
#pragma unroll
  for (int m = 0; m < BLOCKS; m++)
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) sum[m][n][i] = 0;
}

/* sum += <own row, other row> of a warp's own rows. */
template <int COLUMNS, int BLOCKS, int N>
__device__ static void kp_backward_products(float (&sum)[BLOCKS][N][4], const kp_half *own,
                                            const kp_half *other) {
  constexpr int stride = COLUMNS + KP_LINE_PAD;
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
  constexpr bool query = PASS <= KP_TENSOR_QUERIES, keys = PASS == KP_TENSOR_BOTH || PASS == KP_TENSOR_KEYS,
                 values = PASS == KP_TENSOR_BOTH || PASS == KP_TENSOR_VALUES;
  const kp_row_numbers &mine = own.numbers[m][r];
  const float level = query ? own.level[m][r] : other_bars.level;
  const float mean = query ? own.mean[m][r] : other_bars.mean;
  const float mean_extra = query ? own.mean_extra[m][r] : other_bars.extra;
  const kp_value_numbers &value = query ? other_value : own.values[m][r];
  const float product = s;
  float unit, by_z = 0, by_kappa = 0,
              scale = head.beta; /* unit: the score with β = 1, of distances in log 2 */
  if (FAMILY == KP_FAMILY_GEODESIC) {
    const kp_geodesic_slope slope =
        kp_geodesic_backward<REACH, SQUARED>(product, head.score, keys && head.kappa);
    unit = slope.score, by_z = slope.by_z, by_kappa = slope.by_kappa;
  } else {
    unit = FAMILY == KP_FAMILY_LORENTZ ? fmaf(-mine.x, other.x, product) : product;
    scale = head.score.factor * head.beta;
  }
  const float p = hidden ? 0.0f : kp_fast_exp2(fmaf(unit, scale, -level));
  if (values) {
    s = p;
    if (head.curved) {
      /* As it enters the product: the sums of space and extra must be of the same weights. */
      s = __bfloat162float(__float2bfloat16_rn(p * value.a));
      own.extra[m][r] = fmaf(s, mean_extra, own.extra[m][r]);
    }
  }
  if (PASS == KP_TENSOR_VALUES) return;
  if (head.curved) bar = value.a * fmaf(value.x, mean_extra, bar);
  if (PASS == KP_TENSOR_MEANS) {
    own.bar[m][r] = fmaf(p, bar, own.bar[m][r]);
    own.weight[m][r] += p;
    return;
  }
  const float score_bar = p * (bar - mean);
  if (query) own.bar[m][r] += score_bar;
  if (keys) sums.beta = fmaf(score_bar, unit, sums.beta);
  if (FAMILY == KP_FAMILY_GEODESIC) {
    if (keys && head.kappa) sums.kappa = fmaf(score_bar, by_kappa, sums.kappa);
    const float weight_z = p * (head.beta * by_z), bar_z = weight_z * (bar - mean);
    own.x[m][r] = fmaf(bar_z, other.x, own.x[m][r]);
    own.y[m][r] = fmaf(bar_z, other.y, own.y[m][r]);
    own.z[m][r] = fmaf(bar_z, product, own.z[m][r]);
    if (query) {
      own.weight_x[m][r] = fmaf(weight_z, other.x, own.weight_x[m][r]);
      own.weight_y[m][r] = fmaf(weight_z, other.y, own.weight_y[m][r]);
      own.weight_z[m][r] = fmaf(weight_z, product, own.weight_z[m][r]);
    }
    bar = -bar_z * (mine.z * other.z);
    return;
  }
  if (FAMILY == KP_FAMILY_LORENTZ) {
    own.x[m][r] = fmaf(score_bar, other.y, own.x[m][r]);
    if (keys && head.kappa) {
      const float difference = mine.own - other.own;
      sums.kappa = fmaf(score_bar * difference, difference * (mine.z * other.z), sums.kappa);
    }
  }
  bar = score_bar * head.by_product;
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

#endif
