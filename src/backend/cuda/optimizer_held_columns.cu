/* Columns of unit length where all rows of a few columns fit into shared memory: AdamW and the way back to
 * unit length in one pass over memory, 34 bytes an element, and bound by them.
 *
 * A block has up to KP_HELD_COLUMNS columns, 128 bytes of each row; a thread has four of them and every
 * 64th row.  Sums are in double and in order. */
#include "backend/cuda/optimizer.cuh"

enum { LANES = KP_HELD_COLUMNS / 4, GROUPS = 64, THREADS = LANES * GROUPS, WARPS = THREADS / 32 };

/* Every thread's four sums over its rows, added for each column: what `finish` makes of them is in `results`.
 */
template <typename Finish> static __device__ void sum_columns(double sum[4], double *results, Finish finish) {
  __shared__ double shared[WARPS][KP_HELD_COLUMNS];
  const int lane = (int)threadIdx.x % LANES, warp = (int)threadIdx.x / 32;
#pragma unroll
  for (int j = 0; j < 4; j++) {
    for (int offset = LANES; offset < 32; offset *= 2) sum[j] += __shfl_xor_sync(0xffffffffu, sum[j], offset);
    if (threadIdx.x % 32 < LANES) shared[warp][lane * 4 + j] = sum[j];
  }
  __syncthreads();
  if (threadIdx.x < KP_HELD_COLUMNS) {
    double all = 0;
    for (int w = 0; w < WARPS; w++) all += shared[w][threadIdx.x];
    results[threadIdx.x] = finish(all);
  }
  __syncthreads();
}

/* Calls `work` with each row of this thread: its number and its place in the flat buffers. */
template <typename Work> static __device__ void for_rows(const kp_column_tile &tile, Work work) {
  const int column = (int)threadIdx.x % LANES * 4;
  if (column >= tile.columns) return;
#pragma unroll 2
  for (int row = (int)threadIdx.x / LANES; row < tile.rows; row += GROUPS)
    work(row, tile.at + (int64_t)row * tile.pitch + column);
}

/* ⟨w, g⟩ of each column. */
static __device__ void find_along(const kp_flat &flat, const kp_column_tile &tile, double *along) {
  double sum[4] = {0, 0, 0, 0};
  for_rows(tile, [&](int, int64_t at) {
    const kp_span<4> w = kp_take<4>(flat.values + at), g = kp_take<4>(flat.gradients + at);
#pragma unroll
    for (int j = 0; j < 4; j++) sum[j] += (double)w.at[j] * g.at[j];
  });
  sum_columns(sum, along, [](double all) { return all; });
}

static __global__ void __launch_bounds__(THREADS)
    held_columns_kernel(kp_flat flat, const kp_column_tile *tiles, const kp_optimizer_state *state,
                        const kp_adamw_numbers *table, bool tangent) {
  extern __shared__ __align__(16) float held[];
  __shared__ double along[KP_HELD_COLUMNS], factors[KP_HELD_COLUMNS];
  const kp_column_tile tile = tiles[blockIdx.x];
  const kp_adamw_numbers numbers = table[tile.numbers];
  const int lane = (int)threadIdx.x % LANES;
  double sum[4] = {0, 0, 0, 0};
  if (!state->take) {
    for_rows(tile, [&](int, int64_t at) { kp_clear<4>(flat.gradients + at); });
    return;
  }
  if (tangent) find_along(flat, tile, along);
  for_rows(tile, [&](int row, int64_t at) {
    const kp_span<4> value = kp_take<4>(flat.values + at);
    kp_span<4> gradient = kp_take<4>(flat.gradients + at);
    kp_span<4> mean = kp_take<4>(flat.moment1 + at), variance = kp_take<4>(flat.moment2 + at);
#pragma unroll
    for (int j = 0; j < 4; j++)
      if (tangent) gradient.at[j] = (float)(gradient.at[j] - along[lane * 4 + j] * value.at[j]);
    const kp_span<4> next = kp_adamw<4>(numbers, value, gradient, mean, variance);
#pragma unroll
    for (int j = 0; j < 4; j++) sum[j] += (double)next.at[j] * next.at[j];
    kp_put<4>(held + row * KP_HELD_COLUMNS + lane * 4, next);
    kp_put<4>(flat.moment1 + at, mean);
    kp_put<4>(flat.moment2 + at, variance);
    kp_clear<4>(flat.gradients + at);
  });
  sum_columns(sum, factors, [](double all) { return kp_to_unit(all); });
  for_rows(tile, [&](int row, int64_t at) {
    kp_span<4> value = kp_take<4>(held + row * KP_HELD_COLUMNS + lane * 4);
#pragma unroll
    for (int j = 0; j < 4; j++) value.at[j] = (float)(value.at[j] * factors[lane * 4 + j]);
    kp_put_values<4>(flat, at, value);
  });
}

bool kp_optimizer_holds_columns(const kp_cuda *cuda, int64_t rows, int64_t pitch) {
  enum { RESERVED = 12288 };
  const int64_t bytes = rows * KP_HELD_COLUMNS * (int64_t)sizeof(float);
  return cuda != NULL && pitch % 4 == 0 && bytes + RESERVED <= (int64_t)cuda->shared_bytes;
}

kp_status kp_optimizer_submit_held_columns(kp_cuda_optimizer *o, const kp_unit_vectors *units,
                                           kp_error *error) {
  int rows = 0;
  if (units->held.count() == 0) return KP_OK;
  for (const kp_column_tile &tile : units->held.host)
    if (tile.rows > rows) rows = tile.rows;
  const size_t bytes = (size_t)rows * KP_HELD_COLUMNS * sizeof(float);
  KP_TRY(kp_cuda_check(
      cudaFuncSetAttribute(held_columns_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
      "the optimizer's shared memory", error));
  held_columns_kernel<<<units->held.count(), THREADS, bytes, o->cuda->stream>>>(
      o->flat, units->held.at, o->state, o->numbers, o->options.tangent);
  return kp_optimizer_launched(error);
}
