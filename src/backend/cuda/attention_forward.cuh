/* Attention on the tensor cores, forward: one block a tile of queries of one head, over tiles
 * of keys and values that arrive in shared memory while the tile before is computed (Dao 2023).
 *
 * 2 T² (D + D') multiplications a head, half of them when causal; q, k, v are read and o written once from
 * device memory, 2 (2D + 2D') bytes a position and head, and k and v again from the L2 cache for every tile
 * of queries.  mma.sync does 62 % of the chip's peak on Hopper; beside the products a multiprocessor does 16
 * special functions and 128 other operations a cycle, and for head sizes up to 64 these bound it
 * (attention_scores.cuh counts them). */
#ifndef KAPPA_BACKEND_CUDA_ATTENTION_FORWARD_CUH
#define KAPPA_BACKEND_CUDA_ATTENTION_FORWARD_CUH

#include "backend/attention_values.h"
#include "backend/cuda/attention_tensor.cuh"

/* D and D' rounded up; BLOCKS of 16 query rows a warp; KEYS a tile.  A warp of 32 rows reads half as much
 * shared memory a product as one of 16; small heads gain more from twice as many warps. */
template <int D, int DV> struct kp_forward_shape {
  static constexpr int warps = D <= 64 ? 8 : 4, threads = 32 * warps;
  static constexpr int blocks = D <= 64 || D > 128 ? 1 : 2, queries = 16 * blocks * warps;
  static constexpr int keys = D <= 128 ? 64 : 32;
  static constexpr int stride = D + KP_LINE_PAD, value_stride = DV + KP_LINE_PAD;
};

template <int D, int DV> struct kp_forward_stage {
  using shape = kp_forward_shape<D, DV>;
  alignas(16) kp_half k[shape::keys * shape::stride];
  kp_half v[shape::keys * shape::value_stride];
  kp_row_numbers k_numbers[shape::keys];
  kp_value_numbers v_numbers[shape::keys];
  int documents[shape::keys];
};

template <int D, int DV> struct kp_forward_memory {
  using shape = kp_forward_shape<D, DV>;
  static constexpr int widest = D > DV ? shape::stride : shape::value_stride;
  alignas(16) kp_half q[shape::queries * widest]; /* in the end the output */
  kp_forward_stage<D, DV> stage[2];
};

/* What a thread knows of its rows: block m, half r is row 16 m + 8 r + lane/4 of its warp. */
template <int BLOCKS> struct kp_query_rows {
  float x[BLOCKS][2], y[BLOCKS][2], z[BLOCKS][2];
  float most[BLOCKS][2], sum[BLOCKS][2], extra[BLOCKS][2];
};

/* Where a tile has hidden pairs. */
struct kp_forward_mask {
  bool causal;
  const int *documents; /* of the sequence; NULL: the tile is of one document */
  int length;
};

template <int D, int DV>
__device__ static void kp_forward_load(const kp_tensor_work &work, kp_forward_stage<D, DV> &stage,
                                       const kp_half_rows &k, const kp_half_rows &v, int b, int h,
                                       int first) {
  using shape = kp_forward_shape<D, DV>;
  const kp_attention_problem &p = work.p;
  kp_load_tile<shape::keys, D, shape::threads>(stage.k, k, first, p.length);
  kp_load_tile<shape::keys, DV, shape::threads>(stage.v, v, first, p.length);
  if (threadIdx.x < shape::keys) {
    const int i = threadIdx.x, j = first + i;
    const bool inside = j < p.length;
    const int64_t row = ((int64_t)b * p.heads + h) * p.length + (inside ? j : 0);
    if (work.k != NULL) kp_copy_async<16>(&stage.k_numbers[i], work.k + row, inside);
    if (work.v != NULL) kp_copy_async<8>(&stage.v_numbers[i], work.v + row, inside);
    if (p.documents != NULL)
      kp_copy_async<4>(&stage.documents[i], p.documents + (int64_t)b * p.length + (inside ? j : 0), inside);
  }
  kp_copy_commit();
}

/* s = <q, k> of a warp's rows and all keys of the tile. */
template <int D, int DV>
__device__ static void
kp_forward_products(float (&s)[kp_forward_shape<D, DV>::blocks][kp_forward_shape<D, DV>::keys / 8][4],
                    const kp_half *q, const kp_half *k) {
  using shape = kp_forward_shape<D, DV>;
  constexpr int q_stride = kp_forward_memory<D, DV>::widest;
#pragma unroll
  for (int m = 0; m < shape::blocks; m++)
#pragma unroll
    for (int n = 0; n < shape::keys / 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) s[m][n][i] = 0;
#pragma unroll
  for (int d = 0; d < D; d += 16) {
    uint32_t a[shape::blocks][4];
#pragma unroll
    for (int m = 0; m < shape::blocks; m++) kp_load_matrices(a[m], kp_left_at<q_stride>(q, 16 * m, d));
#pragma unroll
    for (int n = 0; n < shape::keys / 16; n++) {
      uint32_t keys[4];
      kp_load_matrices(keys, kp_right_at<shape::stride>(k, 16 * n, d));
#pragma unroll
      for (int m = 0; m < shape::blocks; m++) {
        kp_multiply(s[m][2 * n], a[m], keys[0], keys[1]);
        kp_multiply(s[m][2 * n + 1], a[m], keys[2], keys[3]);
      }
    }
  }
}

/* Products become scores, in units of log 2 / factor. */
template <kp_score_family FAMILY, int BLOCKS, int N>
__device__ static void kp_forward_scores(float (&s)[BLOCKS][N][4], const kp_query_rows<BLOCKS> &rows,
                                         const kp_row_numbers *keys, const kp_score_head &head) {
  if (FAMILY == KP_FAMILY_DOT) return;
  const int column = threadIdx.x % 4 * 2;
#pragma unroll
  for (int n = 0; n < N; n++)
#pragma unroll
    for (int c = 0; c < 2; c++) {
      const kp_row_numbers key = keys[8 * n + column + c];
#pragma unroll
      for (int m = 0; m < BLOCKS; m++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
          float &at = s[m][n][2 * r + c];
          if (FAMILY == KP_FAMILY_LORENTZ)
            at = fmaf(-rows.x[m][r], key.x, at);
          else
            at = fmaf(-rows.z[m][r] * key.z, at, fmaf(rows.x[m][r], key.x, rows.y[m][r] * key.y));
        }
    }
  if (FAMILY == KP_FAMILY_GEODESIC) kp_geodesic_scores(*(float(*)[BLOCKS * N * 4]) s, head);
}

template <int BLOCKS, int N>
__device__ static void kp_forward_hide(float (&s)[BLOCKS][N][4], const int *documents,
                                       const kp_forward_mask &mask, int row, int first) {
  const int column = threadIdx.x % 4 * 2;
#pragma unroll
  for (int m = 0; m < BLOCKS; m++)
#pragma unroll
    for (int r = 0; r < 2; r++) {
      /* The first key that the row may not see. */
      const int position = row + 16 * m + 8 * r;
      const int last = (mask.causal ? min(position + 1, mask.length) : mask.length) - first - column;
#pragma unroll
      for (int n = 0; n < N; n++)
#pragma unroll
        for (int c = 0; c < 2; c++) s[m][n][2 * r + c] = 8 * n + c < last ? s[m][n][2 * r + c] : -INFINITY;
    }
  if (mask.documents == NULL) return;
  int own[BLOCKS][2];
#pragma unroll
  for (int m = 0; m < BLOCKS; m++)
#pragma unroll
    for (int r = 0; r < 2; r++) own[m][r] = mask.documents[min(row + 16 * m + 8 * r, mask.length - 1)];
#pragma unroll
  for (int n = 0; n < N; n++)
#pragma unroll
    for (int c = 0; c < 2; c++) {
      const int document = documents[8 * n + column + c];
#pragma unroll
      for (int m = 0; m < BLOCKS; m++)
#pragma unroll
        for (int r = 0; r < 2; r++)
          s[m][n][2 * r + c] = document == own[m][r] ? s[m][n][2 * r + c] : -INFINITY;
    }
}

/* Scores become weights relative to the row's largest; what was summed before is scaled down to it. */
template <int BLOCKS, int N, int M>
__device__ static void kp_forward_softmax(float (&s)[BLOCKS][N][4], float (&o)[BLOCKS][M][4],
                                          kp_query_rows<BLOCKS> &rows, float factor) {
  bool grown = false;
  float scale[BLOCKS][2];
#pragma unroll
  for (int m = 0; m < BLOCKS; m++)
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float most = rows.most[m][r];
#pragma unroll
      for (int n = 0; n < N; n++) most = fmaxf(most, fmaxf(s[m][n][2 * r], s[m][n][2 * r + 1]));
      most = kp_quad_max(most);
      const float from = most == -INFINITY ? 0.0f : most * factor;
      scale[m][r] = kp_fast_exp2(fmaf(rows.most[m][r], factor, -from));
      grown |= most != rows.most[m][r];
      rows.most[m][r] = most;
      float sum = 0;
#pragma unroll
      for (int n = 0; n < N; n++)
#pragma unroll
        for (int c = 0; c < 2; c++)
          sum += s[m][n][2 * r + c] = kp_fast_exp2(fmaf(s[m][n][2 * r + c], factor, -from));
      rows.sum[m][r] = fmaf(rows.sum[m][r], scale[m][r], sum);
    }
  if (!__any_sync(0xffffffffu, grown)) return;
#pragma unroll
  for (int m = 0; m < BLOCKS; m++)
#pragma unroll
    for (int r = 0; r < 2; r++) {
      rows.extra[m][r] *= scale[m][r];
#pragma unroll
      for (int n = 0; n < M; n++) o[m][n][2 * r] *= scale[m][r], o[m][n][2 * r + 1] *= scale[m][r];
    }
}

/* Weights of curved values: times the factor of the value, and the sums of the extra coordinate, of the
 * weights as they enter the product: space and time of a mean must belong to the same weights. */
template <int BLOCKS, int N>
__device__ static void kp_forward_extras(float (&s)[BLOCKS][N][4], kp_query_rows<BLOCKS> &rows,
                                         const kp_value_numbers *values) {
  const int column = threadIdx.x % 4 * 2;
#pragma unroll
  for (int n = 0; n < N; n++) {
    const kp_value_numbers low = values[8 * n + column], high = values[8 * n + column + 1];
#pragma unroll
    for (int m = 0; m < BLOCKS; m++)
#pragma unroll
      for (int r = 0; r < 2; r++) {
        const uint32_t pair = kp_pack_pair(s[m][n][2 * r] * low.a, s[m][n][2 * r + 1] * high.a);
        s[m][n][2 * r] = kp_pair_low(pair), s[m][n][2 * r + 1] = kp_pair_high(pair);
        rows.extra[m][r] = fmaf(s[m][n][2 * r], low.x, fmaf(s[m][n][2 * r + 1], high.x, rows.extra[m][r]));
      }
  }
}

/* o += weights · values */
template <int STRIDE, int BLOCKS, int N, int M>
__device__ static void kp_forward_means(float (&o)[BLOCKS][M][4], const float (&s)[BLOCKS][N][4],
                                        const kp_half *v) {
#pragma unroll
  for (int k = 0; k < N / 2; k++) {
    uint32_t a[BLOCKS][4];
#pragma unroll
    for (int m = 0; m < BLOCKS; m++)
#pragma unroll
      for (int i = 0; i < 4; i++)
        a[m][i] = kp_pack_pair(s[m][2 * k + i / 2][i % 2 * 2], s[m][2 * k + i / 2][i % 2 * 2 + 1]);
#pragma unroll
    for (int n = 0; n < M / 2; n++) {
      uint32_t values[4];
      kp_load_transposed(values, kp_right_turned_at<STRIDE>(v, 16 * k, 16 * n));
#pragma unroll
      for (int m = 0; m < BLOCKS; m++) {
        kp_multiply(o[m][2 * n], a[m], values[0], values[1]);
        kp_multiply(o[m][2 * n + 1], a[m], values[2], values[3]);
      }
    }
  }
}

/* Out of line: a row's geometry is long, and there are four rows a thread. */
__device__ __noinline__ static kp_value_mean kp_curved_mean(int values, float square, float extra, float sum,
                                                            float kappa) {
  return kp_value_mean_of((kp_values)values, square, extra, sum, kappa);
}

/* The thread's rows of the output to shared memory, and their numbers to global memory. */
template <int STRIDE, int BLOCKS, int M>
__device__ static void kp_forward_finish(const kp_tensor_work &work, const kp_score_head &head,
                                         kp_query_rows<BLOCKS> &rows, float (&o)[BLOCKS][M][4], kp_half *to,
                                         int b, int h, int row) {
  const kp_attention_problem &p = work.p;
  const int column = threadIdx.x % 4 * 2, line = threadIdx.x % 32 / 4;
#pragma unroll
  for (int m = 0; m < BLOCKS; m++)
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const float sum = kp_quad_sum(rows.sum[m][r]);
      kp_value_mean mean = {1 / sum, 0, 1};
      if (work.v != NULL) {
        float square = 0;
#pragma unroll
        for (int n = 0; n < M; n++)
          square = fmaf(o[m][n][2 * r], o[m][n][2 * r], fmaf(o[m][n][2 * r + 1], o[m][n][2 * r + 1], square));
        mean = kp_curved_mean(p.values, kp_quad_sum(square), kp_quad_sum(rows.extra[m][r]), sum,
                              kp_head_kappa(p, h));
      }
      const float scale = mean.scale;
#pragma unroll
      for (int n = 0; n < M; n++)
        *(uint32_t *)(to + (16 * m + 8 * r + line) * STRIDE + 8 * n + column) =
            kp_pack_pair(o[m][n][2 * r] * scale, o[m][n][2 * r + 1] * scale);
      const int i = row + 16 * m + 8 * r;
      if (threadIdx.x % 4 != 0 || i >= p.length) continue;
      const int64_t number = ((int64_t)b * p.length + i) * p.heads + h;
      p.logsumexp[((int64_t)b * p.heads + h) * p.length + i] =
          (rows.most[m][r] * head.factor + log2f(sum)) * KP_LN_2 +
          (work.q == NULL ? 0 : head.own * work.q[((int64_t)b * p.heads + h) * p.length + i].own);
      if (p.time != NULL) p.time[number] = mean.time;
      if (p.norms != NULL) p.norms[number] = mean.norm;
    }
}

template <int BLOCKS>
__device__ static void kp_forward_rows(const kp_tensor_work &work, kp_query_rows<BLOCKS> &rows, int b, int h,
                                       int row) {
  const kp_attention_problem &p = work.p;
#pragma unroll
  for (int m = 0; m < BLOCKS; m++)
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const int i = min(row + 16 * m + 8 * r, p.length - 1);
      kp_row_numbers numbers = {0, 0, 0, 0};
      if (work.q != NULL) numbers = work.q[((int64_t)b * p.heads + h) * p.length + i];
      rows.x[m][r] = numbers.x, rows.y[m][r] = numbers.y, rows.z[m][r] = numbers.z;
      rows.most[m][r] = -INFINITY;
      rows.sum[m][r] = rows.extra[m][r] = 0;
    }
}

template <int D, int DV, kp_score_family FAMILY>
__global__ static void __launch_bounds__(kp_forward_shape<D, DV>::threads, 2)
    kp_forward_kernel(const __grid_constant__ kp_tensor_work work) {
  using shape = kp_forward_shape<D, DV>;
  using memory = kp_forward_memory<D, DV>;
  extern __shared__ __align__(16) char shared[];
  memory &m = *(memory *)shared;
  const kp_attention_problem &p = work.p;
  const int heads = p.batch * p.heads, item = blockIdx.x % heads, b = item / p.heads, h = item % p.heads;
  const int tile = work.tiles - 1 - (int)blockIdx.x / heads, begin = tile * shape::queries;
  const int warp_row = (int)threadIdx.x / 32 * 16 * shape::blocks;
  const int row = begin + warp_row + (int)threadIdx.x % 32 / 4;
  const int end = p.causal ? min(p.length, begin + shape::queries) : p.length;
  const int64_t n = (int64_t)b * p.length;
  const int kv = h / (p.heads / p.kv_heads);
  const kp_half_rows k = kp_half_rows_of(p.k, n, kv, p.size), v = kp_half_rows_of(p.v, n, kv, p.value_size);
  const kp_score_head head = kp_score_head_of(p, h, kp_head_beta(p, h));
  kp_document_span span = {0, 0};
  if (work.spans != NULL) span = kp_span_of(work, b, begin, shape::queries);
  int first = kp_next_tile<shape::keys>(work, span, b, 0, end), stage = 0;

  kp_load_tile<shape::queries, memory::widest - KP_LINE_PAD, shape::threads>(
      m.q, kp_half_rows_of(p.q, n, h, p.size), begin, p.length);
  kp_forward_load<D, DV>(work, m.stage[0], k, v, b, h, first);
  kp_query_rows<shape::blocks> rows;
  kp_forward_rows(work, rows, b, h, row);
  float o[shape::blocks][DV / 8][4] = {};
  if (head.negated) {
    kp_copy_wait<0>();
    __syncthreads();
    for (int i = threadIdx.x; i < shape::queries * memory::widest / 2; i += shape::threads)
      ((uint32_t *)m.q)[i] ^= 0x80008000u;
  }
  while (first < end) {
    const int next = kp_next_tile<shape::keys>(work, span, b, first + shape::keys, end);
    kp_copy_wait<0>();
    __syncthreads(); /* this tile has come, and all are done with the one before */
    if (next < end) kp_forward_load<D, DV>(work, m.stage[stage ^ 1], k, v, b, h, next);
    const kp_forward_stage<D, DV> &at = m.stage[stage];
    /* A warp whose rows are all before this tile has nothing to do. */
    if (!p.causal || first < begin + warp_row + 16 * shape::blocks) {
      float s[shape::blocks][shape::keys / 8][4];
      kp_forward_products<D, DV>(s, m.q + warp_row * memory::widest, at.k);
      kp_forward_scores<FAMILY>(s, rows, at.k_numbers, head);
      kp_forward_mask mask = {p.causal && first + shape::keys > begin + warp_row, NULL, p.length};
      if (work.spans != NULL && kp_spans_mixed(span, kp_span_of(work, b, first, shape::keys)))
        mask.documents = p.documents + n;
      if (mask.causal || mask.documents != NULL || first + shape::keys > p.length)
        kp_forward_hide(s, at.documents, mask, row, first);
      kp_forward_softmax(s, o, rows, head.factor);
      if (FAMILY != KP_FAMILY_DOT && work.v != NULL) kp_forward_extras(s, rows, at.v_numbers);
      kp_forward_means<shape::value_stride>(o, s, at.v);
    }
    first = next, stage ^= 1;
  }
  __syncthreads();
  kp_forward_finish<shape::value_stride>(work, head, rows, o, m.q + warp_row * shape::value_stride, b, h,
                                         row);
  __syncthreads();
  kp_store_tile<shape::queries, DV, shape::threads>(m.q, kp_half_rows_of(p.o, n, h, p.value_size), begin,
                                                    p.length);
}

template <int D, int DV, kp_score_family FAMILY>
static kp_status kp_forward_launch(kp_tensor_work &work, cudaStream_t stream, kp_error *error) {
  using shape = kp_forward_shape<D, DV>;
  const int bytes = (int)sizeof(kp_forward_memory<D, DV>);
  KP_TRY(kp_cuda_check(cudaFuncSetAttribute(kp_forward_kernel<D, DV, FAMILY>,
                                            cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
                       "attention", error));
  work.tiles = (work.p.length + shape::queries - 1) / shape::queries;
  const int blocks = work.tiles * work.p.batch * work.p.heads;
  kp_forward_kernel<D, DV, FAMILY><<<blocks, shape::threads, bytes, stream>>>(work);
  return KP_OK;
}

/* The smallest sizes that hold the problem's. */
template <kp_score_family FAMILY>
static kp_status kp_forward_of_family(kp_tensor_work &work, cudaStream_t stream, kp_error *error) {
  const int D = work.p.size, DV = work.p.value_size;
  if (D <= 32 && DV <= 32) return kp_forward_launch<32, 32, FAMILY>(work, stream, error);
  if (D <= 64 && DV <= 64) return kp_forward_launch<64, 64, FAMILY>(work, stream, error);
  if (D <= 96 && DV <= 64) return kp_forward_launch<96, 64, FAMILY>(work, stream, error);
  if (D <= 96 && DV <= 96) return kp_forward_launch<96, 96, FAMILY>(work, stream, error);
  if (D <= 128 && DV <= 128) return kp_forward_launch<128, 128, FAMILY>(work, stream, error);
  if (D <= 192 && DV <= 128) return kp_forward_launch<192, 128, FAMILY>(work, stream, error);
  return kp_forward_launch<256, 256, FAMILY>(work, stream, error);
}

#endif
