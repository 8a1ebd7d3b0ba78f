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
 * The row sum of P ∘ P̄ is <ō, o> for plain means and 0 for others.  Of an o that was rounded to bfloat16 it
 * is wrong by 2^-9 of its terms, and what the S̄ of a row then sum to multiplies the mean of whatever is
 * summed next.  The queries' pass finds that error, takes it out of what it sums for κ, and hands the right
 * row sums to the keys' pass, which sums the rest of κ's gradient and β's.  The terms of curved values cancel
 * more: their row sums have a pass of their own, first, and their M̄ comes as a sum of two bfloat16 numbers.
 * These are two products more there, and one more in every pass.
 *
 * What scores and values have besides products (attention_scores.cuh) leads to own rows times a number, which
 * the sums of two more numbers a row determine: they are applied when a row is finished. */
#ifndef KAPPA_BACKEND_CUDA_ATTENTION_BACKWARD_CUH
#define KAPPA_BACKEND_CUDA_ATTENTION_BACKWARD_CUH

#include "backend/attention_values.h"
#include "backend/cuda/attention_backward_tile.cuh"
#include "geometry/geodesic_score.h"

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

/* What multiplies a query or key in its own gradient, from the sums x and y and `product`, the sum of Ḡ G;
 * adds to κ's. */
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
      own.x[m][r] = own.y[m][r] = own.z[m][r] = own.extra[m][r] = own.bar[m][r] = own.weight[m][r] = 0;
      own.weight_x[m][r] = own.weight_y[m][r] = own.weight_z[m][r] = 0;
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

/* The row sums of P ∘ P̄: those of the means' pass, or corrected by what the S̄ of the row sum to, which is 0
 * but for the rounding of o. */
template <bool MEANS, int BLOCKS>
__device__ static void kp_finish_means(const kp_tensor_work &work, const kp_own_rows<BLOCKS> &own, int b,
                                       int h, int row) {
#pragma unroll
  for (int m = 0; m < BLOCKS; m++)
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const float bar = kp_quad_sum(own.bar[m][r]), weight = kp_quad_sum(own.weight[m][r]);
      const int i = row + 16 * m + 8 * r;
      if (threadIdx.x % 4 == 0 && i < work.p.length)
        work.bars[((int64_t)b * work.p.heads + h) * work.p.length + i].mean =
            MEANS ? bar / weight : own.mean[m][r] + bar;
    }
}

/* The factor of a row of the pass in its gradient; adds to κ's. */
template <kp_score_family FAMILY, bool QUERY, int BLOCKS>
__device__ static float kp_finish_score(const kp_tensor_work &work, const kp_backward_head &head,
                                        const kp_own_rows<BLOCKS> &own, int m, int r, float square,
                                        float *kappa) {
  const kp_row_numbers &numbers = own.numbers[m][r];
  float x = kp_quad_sum(own.x[m][r]), y = kp_quad_sum(own.y[m][r]), z = kp_quad_sum(own.z[m][r]);
  /* The term of G in z is z - x_i x_j - y_i y_j. */
  const float product = z - numbers.x * x - numbers.y * y;
  if (!QUERY || FAMILY != KP_FAMILY_GEODESIC)
    return kp_score_row_factor<FAMILY>(work, head, product, square, x, y, numbers, QUERY, kappa);
  float unused = 0;
  const float factor =
      kp_score_row_factor<FAMILY>(work, head, product, square, x, y, numbers, QUERY, &unused);
  const float excess = kp_quad_sum(own.bar[m][r]);
  x -= excess * kp_quad_sum(own.weight_x[m][r]), y -= excess * kp_quad_sum(own.weight_y[m][r]);
  z -= excess * kp_quad_sum(own.weight_z[m][r]);
  kp_score_row_factor<FAMILY>(work, head, z - numbers.x * x - numbers.y * y, square, x, y, numbers, QUERY,
                              kappa);
  return factor;
}

/* ---- A block ---- */

template <int D, int DV, kp_tensor_pass PASS, kp_score_family FAMILY>
__global__ static void __launch_bounds__(128, D <= 64 ? 3 : 2)
    kp_backward_kernel(const __grid_constant__ kp_tensor_work work) {
  using shape = kp_backward_shape<D, DV, PASS, FAMILY>;
  constexpr int blocks = 1, others = shape::others;
  extern __shared__ __align__(16) char shared[];
  kp_backward_memory<D, DV, PASS, FAMILY> &memory = *(kp_backward_memory<D, DV, PASS, FAMILY> *)shared;
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
  for (int i = threadIdx.x; i < shape::own; i += shape::threads) memory.carry[i] = kp_row_carry{0, 0, 0};

  for (int h = owner * group; h < owner * group + group; h++) {
    const int kv = shape::query ? h / (p.heads / p.kv_heads) : owner;
    const kp_backward_head head = kp_backward_head_of<FAMILY>(work, h);
    const kp_half_rows q = kp_half_rows_of(p.q, n, h, p.size), k = kp_half_rows_of(p.k, n, kv, p.size);
    const kp_half_rows v = kp_half_rows_of(p.v, n, kv, p.value_size), means = kp_mean_rows(work, b, h, false),
                       lows = kp_mean_rows(work, b, h, true);
    const kp_half_rows &other_score = shape::query ? k : q, &other_value = shape::query ? v : means;
    int first = kp_next_tile<others>(work, span, b, from, end), stage = 0;
    __syncthreads();
    if (h == owner * group) {
      kp_load_tile<shape::own, D, shape::threads>(memory.score, shape::query ? q : k, begin, p.length);
      kp_load_tile<shape::own, DV, shape::threads>(memory.value, shape::query ? means : v, begin, p.length);
      if (shape::low && shape::query && work.mean_bars != NULL)
        kp_load_tile<shape::own, DV, shape::threads>(memory.low, lows, begin, p.length);
    }
    kp_backward_load(work, memory.stage[0], other_score, other_value, lows, b, h, first);
    kp_own_rows<blocks> own;
    kp_backward_rows<blocks, shape::query>(work, own, b, h, row);
    kp_pair_sums sums = {0, 0};
    while (first < end) {
      const int next = kp_next_tile<others>(work, span, b, first + others, end);
      kp_copy_wait<0>();
      __syncthreads(); /* this tile has come, and all are done with the one before */
      if (next < end)
        kp_backward_load(work, memory.stage[stage ^ 1], other_score, other_value, lows, b, h, next);
      const kp_backward_stage<D, DV, PASS, FAMILY> &at = memory.stage[stage];
      /* A warp whose pairs are all hidden has nothing to do. */
      const bool sees =
          shape::query ? first < begin + warp_row + 16 * blocks : first + others > begin + warp_row;
      if (!p.causal || sees) {
        float s[blocks][others / 8][4], bar[blocks][others / 8][4];
        kp_clear(s), kp_clear(bar);
        kp_backward_products<D>(s, memory.score + warp_row * shape::stride, at.score);
        if (PASS != KP_TENSOR_VALUES)
          kp_backward_products<DV>(bar, memory.value + warp_row * shape::value_stride, at.value);
        if (PASS != KP_TENSOR_VALUES && shape::low && head.curved)
          kp_backward_products<DV>(
              bar, (shape::query ? memory.low : memory.value) + warp_row * shape::value_stride,
              shape::query ? at.value : at.low);
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
        if constexpr (shape::values) {
          kp_backward_accumulate<shape::value_stride>(value_sum, s, at.value);
          if (shape::low && head.curved) kp_backward_accumulate<shape::value_stride>(value_sum, s, at.low);
        }
        if constexpr (shape::keys) kp_backward_accumulate<shape::stride>(score_sum, bar, at.score);
      }
      first = next, stage ^= 1;
    }
    if (shape::query) kp_finish_means<PASS == KP_TENSOR_MEANS>(work, own, b, h, row);
    if (PASS == KP_TENSOR_MEANS) return;
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
          kp_row_products(score_sum[m], r, memory.score + place * shape::stride, &product, &square);
          carry.score += kp_finish_score<FAMILY, shape::query>(work, head, own, m, r, square, &kappa);
        }
        if constexpr (shape::values) {
          if (head.curved) {
            const float extra = kp_quad_sum(own.extra[m][r]) / own.values[m][r].a;
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
  using shape = kp_backward_shape<D, DV, PASS, FAMILY>;
  const int bytes = (int)sizeof(kp_backward_memory<D, DV, PASS, FAMILY>);
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
  constexpr int own = kp_backward_shape<D, DV, KP_TENSOR_QUERIES, FAMILY>::own;
  const int tiles = (work.p.length + own - 1) / own;
  work.parts = (D <= 128 ? 2 : 3) * tiles;
  if constexpr (FAMILY != KP_FAMILY_DOT)
    if (work.v != NULL) KP_TRY((kp_backward_pass<D, DV, KP_TENSOR_MEANS, FAMILY>(work, 0, stream, error)));
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
