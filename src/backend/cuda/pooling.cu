/* Operators that make one row of a sequence: the mean over its rows, and one of them. */
#include "backend/cuda/chunks.cuh"

constexpr int64_t MEAN_GROUPS = 32; /* most groups of rows of a sequence */
constexpr int POOL_ROWS = 4;        /* of a thread */

/* What forward and backward share: B sequences of T rows. */
struct kp_pool {
  const int32_t *documents; /* NULL: all rows count */
  int64_t B, T, rows_pitch, pooled_pitch, chunks;
  float *share;   /* (B) of a row that counts */
  float *partial; /* (B, groups, pitch) */
  int64_t groups;
};

__device__ static inline bool counts(const kp_pool &p, int64_t row) {
  return p.documents == NULL || p.documents[row] >= 0;
}

__device__ static inline float share_of(const kp_pool &p, int64_t b) {
  return p.documents == NULL ? 1 / (float)p.T : p.share[b];
}

/* share[b] = 1 / rows of sequence b that count, 0 without any; a block a sequence. */
static __global__ void count_rows(const __grid_constant__ kp_pool p) {
  __shared__ float shared[32];
  float count = 0; /* a whole number, exact */
  for (int64_t t = threadIdx.x; t < p.T; t += blockDim.x) count += counts(p, blockIdx.x * p.T + t);
  count = kp_block_sum(count, shared);
  if (threadIdx.x == 0) p.share[blockIdx.x] = count == 0 ? 0 : 1 / count;
}

/* Group `blockIdx.z` of the rows of a sequence.  Bytes: x once; that bounds it. */
template <typename T, int W>
static __global__ void __launch_bounds__(KP_TILE_THREADS)
    sum_rows(const T *x, const __grid_constant__ kp_pool p) {
  const int64_t chunk = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
  const int64_t group = (int64_t)blockIdx.x * blockDim.y + threadIdx.y, b = blockIdx.z;
  if (chunk >= p.chunks || group >= p.groups) return;
  kp_chunk<W> sum = {};
#pragma unroll 8
  for (int64_t t = group; t < p.T; t += p.groups) {
    kp_chunk<W> row = {};
    if (counts(p, b * p.T + t)) row = kp_read<W>(x + (b * p.T + t) * p.rows_pitch + chunk * W);
#pragma unroll
    for (int i = 0; i < W; i++) sum.value[i] += row.value[i];
  }
  kp_write<W>(p.partial + (b * p.groups + group) * p.pooled_pitch + chunk * W, sum);
}

template <typename T> static __global__ void mean_of_groups(const __grid_constant__ kp_pool p, T *out) {
  const int64_t column = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, b = blockIdx.y;
  if (column >= p.pooled_pitch) return;
  float sum = 0;
#pragma unroll 8
  for (int64_t group = 0; group < p.groups; group++)
    sum += p.partial[(b * p.groups + group) * p.pooled_pitch + column];
  out[b * p.pooled_pitch + column] = kp_from_float<T>(share_of(p, b) * sum);
}

template <typename T, int W>
static __global__ void __launch_bounds__(KP_TILE_THREADS)
    spread_mean(const T *g, T *gx, const __grid_constant__ kp_pool p) {
  const kp_place place = kp_place_of(POOL_ROWS);
  if (place.chunk >= p.chunks) return;
#pragma unroll
  for (int i = 0; i < POOL_ROWS; i++) {
    const int64_t row = place.row + i * place.step, b = row / p.T;
    if (row >= p.B * p.T) return;
    kp_chunk<W> out = {};
    if (counts(p, row)) {
      out = kp_read<W>(g + b * p.pooled_pitch + place.chunk * W);
#pragma unroll
      for (int j = 0; j < W; j++) out.value[j] *= share_of(p, b);
    }
    kp_write<W>(gx + row * p.rows_pitch + place.chunk * W, out);
  }
}

static size_t share_bytes(int64_t B) {
  return ((size_t)B * sizeof(float) + 63) / 64 * 64;
}

static kp_pool pool_of(const kp_call *call, const kp_tensor *rows, const kp_tensor *pooled, int64_t T) {
  kp_pool p = {};
  p.documents = call->node->inputs > 1 ? (const int32_t *)call->input[1] : NULL;
  p.B = kp_tensor_rows(pooled);
  p.T = T;
  p.rows_pitch = kp_pitch(rows);
  p.pooled_pitch = kp_pitch(pooled);
  p.share = (float *)call->scratch;
  p.partial = (float *)((char *)call->scratch + share_bytes(p.B));
  p.groups = T < MEAN_GROUPS ? T : MEAN_GROUPS;
  return p;
}

extern "C" size_t kp_cuda_scratch_mean_rows(const kp_node *node, int threads) {
  (void)threads;
  const kp_tensor *out = node->output[0];
  return share_bytes(kp_tensor_rows(out)) + MEAN_GROUPS * (size_t)kp_padded_count(out) * sizeof(float);
}

extern "C" kp_status kp_cuda_mean_rows(const kp_call *call, kp_error *error) {
  const kp_mean_rows_arguments *a = (const kp_mean_rows_arguments *)call->node->arguments;
  const kp_tensor *out = call->node->output[0];
  kp_pool p = pool_of(call, call->node->input[0], out, a->length);
  if (p.B == 0 || p.T == 0) return KP_OK;
  cudaStream_t stream = kp_cuda_of(call)->stream;
  if (p.documents != NULL) count_rows<<<(unsigned)p.B, 256, 0, stream>>>(p);
  const bool wide = kp_input_is_wide(call, 0) && kp_output_is_wide(call, 0);
  kp_by_chunk(kp_tensor_is_half(call, out), wide, [&](auto real, auto width) {
    using T = decltype(real);
    constexpr int W = decltype(width)::value;
    kp_tile tile = kp_tile_of(p.groups, p.pooled_pitch / W, 1);
    p.chunks = tile.chunks;
    tile.grid.z = (unsigned)p.B;
    sum_rows<T, W><<<tile.grid, tile.block, 0, stream>>>((const T *)call->input[0], p);
    mean_of_groups<T><<<dim3((unsigned)kp_blocks(p.pooled_pitch, 128), (unsigned)p.B), 128, 0, stream>>>(
        p, (T *)call->output[0]);
  });
  return kp_launched(call, error);
}

extern "C" size_t kp_cuda_scratch_mean_rows_backward(const kp_node *node, int threads) {
  (void)threads;
  return share_bytes(kp_tensor_rows(node->input[0]));
}

extern "C" kp_status kp_cuda_mean_rows_backward(const kp_call *call, kp_error *error) {
  const kp_mean_rows_arguments *a = (const kp_mean_rows_arguments *)call->node->arguments;
  const kp_tensor *gx = call->node->output[0];
  kp_pool p = pool_of(call, gx, call->node->input[0], a->length);
  if (p.B == 0 || p.T == 0) return KP_OK;
  cudaStream_t stream = kp_cuda_of(call)->stream;
  if (p.documents != NULL) count_rows<<<(unsigned)p.B, 256, 0, stream>>>(p);
  const bool wide = kp_input_is_wide(call, 0) && kp_output_is_wide(call, 0);
  kp_by_chunk(kp_tensor_is_half(call, gx), wide, [&](auto real, auto width) {
    using T = decltype(real);
    constexpr int W = decltype(width)::value;
    const kp_tile tile = kp_tile_of(p.B * p.T, p.rows_pitch / W, POOL_ROWS);
    p.chunks = tile.chunks;
    spread_mean<T, W>
        <<<tile.grid, tile.block, 0, stream>>>((const T *)call->input[0], (T *)call->output[0], p);
  });
  return kp_launched(call, error);
}

/* ---- select_row ---- */

/* Row `row` of each sequence from x to y, or back: then all other rows of y are zeros. */
template <typename T, int W>
static __global__ void __launch_bounds__(KP_TILE_THREADS)
    select_rows(const T *x, T *y, int64_t rows, int64_t T_, int64_t row, int64_t pitch, int64_t chunks,
                bool backward) {
  const kp_place place = kp_place_of(POOL_ROWS);
  if (place.chunk >= chunks) return;
#pragma unroll
  for (int i = 0; i < POOL_ROWS; i++) {
    const int64_t n = place.row + i * place.step;
    if (n >= rows) return;
    kp_chunk<W> out = {};
    if (!backward)
      out = kp_read<W>(x + (n * T_ + row) * pitch + place.chunk * W);
    else if (n % T_ == row)
      out = kp_read<W>(x + n / T_ * pitch + place.chunk * W);
    kp_write<W>(y + n * pitch + place.chunk * W, out);
  }
}

static kp_status select_row(const kp_call *call, bool backward, kp_error *error) {
  const kp_select_arguments *a = (const kp_select_arguments *)call->node->arguments;
  const kp_tensor *out = call->node->output[0];
  const int64_t rows = kp_tensor_rows(out), pitch = kp_pitch(out);
  if (rows == 0) return KP_OK;
  const bool wide = kp_input_is_wide(call, 0) && kp_output_is_wide(call, 0);
  kp_by_chunk(kp_tensor_is_half(call, out), wide, [&](auto real, auto width) {
    using T = decltype(real);
    constexpr int W = decltype(width)::value;
    const kp_tile tile = kp_tile_of(rows, pitch / W, POOL_ROWS);
    select_rows<T, W><<<tile.grid, tile.block, 0, kp_cuda_of(call)->stream>>>(
        (const T *)call->input[0], (T *)call->output[0], rows, a->length, a->row, pitch, tile.chunks,
        backward);
  });
  return kp_launched(call, error);
}

extern "C" kp_status kp_cuda_select_row(const kp_call *call, kp_error *error) {
  return select_row(call, false, error);
}

extern "C" kp_status kp_cuda_select_row_backward(const kp_call *call, kp_error *error) {
  return select_row(call, true, error);
}
