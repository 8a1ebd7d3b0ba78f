/* Linear maps to at most eight outputs, as a router's: bound by reading x, or writing its gradient, once, 2 N
 * K bytes in bfloat16.  Products of cuBLASLt would leave most of a tile empty.
 *
 * Outputs beyond M count as ones whose matrix is zero: kernels are compiled for four and for eight. */
#include "backend/cuda/chunks.cuh"
#include "backend/cuda/column_sums.cuh"
#include "backend/cuda/linear.cuh"

enum { FORWARD_WARPS = 4, ROWS_A_THREAD = 8, MOST_STRIPS = 256, STRIP_LEAST = 32 };

bool kp_narrow_fits(const kp_narrow *n) {
  return n->M <= KP_MOST_NARROW && n->rows > 0 && n->x_pitch % 8 == 0 && n->w_pitch == n->x_pitch &&
         ((uintptr_t)n->x | (uintptr_t)n->w) % 16 == 0;
}

__device__ static inline void widen(const kp_columns<kp_half, 8> &from, float (&to)[8]) {
#pragma unroll
  for (int i = 0; i < 8; i++) to[i] = __bfloat162float(from.value[i]);
}

/* ---- y = x Wᵀ ---- */

/* A warp takes eight rows. */
template <int M> static __global__ void forward_kernel(kp_narrow n) {
  const int lane = threadIdx.x % 32;
  const int64_t first = ((int64_t)blockIdx.x * FORWARD_WARPS + threadIdx.x / 32) * KP_EIGHT;
  float dot[M][KP_EIGHT] = {};
  if (first >= n.rows) return;
  for (int64_t k = lane * 8; k < n.x_pitch; k += 256) {
    kp_columns<kp_half, 8> x[KP_EIGHT];
#pragma unroll
    for (int i = 0; i < KP_EIGHT; i++)
      x[i] =
          kp_read_columns<kp_half, 8>((const kp_half *)n.x + (first + i) * n.x_pitch + k, first + i < n.rows);
#pragma unroll
    for (int m = 0; m < M; m++) {
      float w[8];
      widen(kp_read_columns<kp_half, 8>((const kp_half *)n.w + m * n.w_pitch + k, m < n.M), w);
#pragma unroll
      for (int i = 0; i < KP_EIGHT; i++)
#pragma unroll
        for (int j = 0; j < 8; j++) dot[m][i] += __bfloat162float(x[i].value[j]) * w[j];
    }
  }
#pragma unroll
  for (int m = 0; m < M; m++) {
    const float sum = kp_sum_eight(dot[m]);
    const int64_t row = first + lane / 4;
    if (lane % 4 == 0 && row < n.rows && m < n.M)
      ((kp_half *)n.y)[row * n.y_pitch + m] = __float2bfloat16_rn(sum);
  }
}

/* ---- gx = gy W ---- */

/* A thread keeps eight columns of W; the padding of W makes that of gx. */
template <int M> static __global__ void input_kernel(kp_narrow n, int64_t chunks) {
  const kp_place place = kp_place_of(ROWS_A_THREAD);
  float w[M][8];
  if (place.chunk >= chunks) return;
#pragma unroll
  for (int m = 0; m < M; m++)
    widen(kp_read_columns<kp_half, 8>((const kp_half *)n.w + m * n.w_pitch + place.chunk * 8, m < n.M), w[m]);
#pragma unroll 4
  for (int i = 0; i < ROWS_A_THREAD; i++) {
    const int64_t row = place.row + i * place.step;
    if (row >= n.rows) return;
    kp_half *const to = (kp_half *)n.x + row * n.x_pitch + place.chunk * 8;
    kp_chunk<8> sum = {};
    if (n.adds) sum = kp_read<8>(to);
#pragma unroll
    for (int m = 0; m < M; m++) {
      const float g = m < n.M ? __bfloat162float(((const kp_half *)n.y)[row * n.y_pitch + m]) : 0;
#pragma unroll
      for (int j = 0; j < 8; j++) sum.value[j] += g * w[m][j];
    }
    kp_write<8>(to, sum);
  }
}

/* ---- gW += gyᵀ x ---- */

static int64_t strip_rows(int64_t rows) {
  const int64_t even = (rows + MOST_STRIPS - 1) / MOST_STRIPS;
  return even < STRIP_LEAST ? (int64_t)STRIP_LEAST : even;
}

static int64_t strips_of(int64_t rows) {
  return (rows + strip_rows(rows) - 1) / strip_rows(rows);
}

size_t kp_narrow_scratch(int64_t rows, int64_t M, int64_t x_pitch) {
  return (size_t)(strips_of(rows) * M * x_pitch) * sizeof(float);
}

/* (strips, M, x_pitch) sums of strips of rows. */
template <int M>
static __global__ void __launch_bounds__(KP_STRIP_THREADS)
    weight_kernel(kp_narrow n, int64_t strip, float *sums) {
  constexpr int ROWS = 4;
  __shared__ __align__(16) float shared[KP_STRIP_THREADS * 8];
  const int64_t first_column = (int64_t)blockIdx.x * blockDim.x * 8, column = first_column + threadIdx.x * 8;
  const int64_t first = blockIdx.y * strip, last = min(first + strip, n.rows);
  float sum[M][8] = {};
  for (int64_t row = first + threadIdx.y * ROWS; row < last; row += blockDim.y * ROWS) {
    kp_columns<kp_half, 8> x[ROWS];
#pragma unroll
    for (int i = 0; i < ROWS; i++)
      x[i] = kp_read_columns<kp_half, 8>((const kp_half *)n.x + (row + i) * n.x_pitch + column,
                                         column < n.x_pitch && row + i < last);
#pragma unroll
    for (int i = 0; i < ROWS; i++)
#pragma unroll
      for (int m = 0; m < M; m++) {
        const bool inside = m < n.M && row + i < last;
        const float g = inside ? __bfloat162float(((const kp_half *)n.y)[(row + i) * n.y_pitch + m]) : 0;
#pragma unroll
        for (int j = 0; j < 8; j++) sum[m][j] += g * __bfloat162float(x[i].value[j]);
      }
  }
#pragma unroll
  for (int m = 0; m < M; m++)
    if (m < n.M)
      kp_leave_sums<8>(sum[m], sums + (blockIdx.y * n.M + m) * n.x_pitch, first_column, n.x_pitch, shared);
}

/* ---- host ---- */

kp_status kp_narrow_forward(const kp_call *call, const kp_narrow *n, kp_error *error) {
  const int blocks = kp_blocks(n->rows, FORWARD_WARPS * KP_EIGHT), threads = 32 * FORWARD_WARPS;
  cudaStream_t stream = kp_cuda_of(call)->stream;
  if (n->M <= 4)
    forward_kernel<4><<<blocks, threads, 0, stream>>>(*n);
  else
    forward_kernel<8><<<blocks, threads, 0, stream>>>(*n);
  return kp_launched(call, error);
}

kp_status kp_narrow_input(const kp_call *call, const kp_narrow *n, kp_error *error) {
  const kp_tile tile = kp_tile_of(n->rows, n->x_pitch / 8, ROWS_A_THREAD);
  cudaStream_t stream = kp_cuda_of(call)->stream;
  if (n->M <= 4)
    input_kernel<4><<<tile.grid, tile.block, 0, stream>>>(*n, tile.chunks);
  else
    input_kernel<8><<<tile.grid, tile.block, 0, stream>>>(*n, tile.chunks);
  return kp_launched(call, error);
}

kp_status kp_narrow_weight(const kp_call *call, const kp_narrow *n, kp_results to, void *scratch,
                           kp_error *error) {
  const kp_row_cut cut = kp_cut_row(n->x_pitch, 8);
  const int64_t strips = strips_of(n->rows), columns = n->M * n->x_pitch;
  const dim3 grid((unsigned)cut.tiles, (unsigned)strips);
  const dim3 block((unsigned)cut.threads, (unsigned)(KP_STRIP_THREADS / cut.threads));
  cudaStream_t stream = kp_cuda_of(call)->stream;
  if (n->M <= 4)
    weight_kernel<4><<<grid, block, 0, stream>>>(*n, strip_rows(n->rows), (float *)scratch);
  else
    weight_kernel<8><<<grid, block, 0, stream>>>(*n, strip_rows(n->rows), (float *)scratch);
  kp_add_columns_to(call, (const float *)scratch, strips, columns, columns, to);
  return kp_launched(call, error);
}
