/* Columns of unit length.  A column's norm is known when all of its matrix has been stepped, so there are two
 * passes over memory: AdamW with each tile's column sums (32 bytes an element), then the scaling (10), and a
 * third before them where only the tangent part of gradients counts (8).  Between them a block for each group
 * of tiles adds their sums in order.
 *
 * In a tile a lane has four columns and a warp every eighth row. */
#include "backend/cuda/optimizer.cuh"

enum { THREADS = 256, WARPS = THREADS / 32 };

enum pass { ALONG, SUBTRACT, STEP, SQUARES, SCALE };

/* Calls `work` with each span of the tile that this thread has: its place and its column. */
template <int W, typename Work> static __device__ void for_tile(const kp_column_tile &tile, Work work) {
  const int lane = (int)threadIdx.x % 32;
#pragma unroll 2
  for (int row = (int)threadIdx.x / 32; row < tile.rows; row += WARPS)
#pragma unroll
    for (int j = 0; j < 4; j += W) {
      const int column = W == 4 ? lane * 4 : lane + j * 32;
      if (column < tile.columns) work(tile.at + (int64_t)row * tile.pitch + column, column, j);
    }
}

/* Adds the warps' sums in order: four columns of each lane. */
template <int W> static __device__ void write_sums(const double sum[4], double *sums) {
  __shared__ double shared[WARPS][KP_TILE_COLUMNS];
  const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
  for (int j = 0; j < 4; j++) shared[warp][W == 4 ? lane * 4 + j : lane + j * 32] = sum[j];
  __syncthreads();
  if (threadIdx.x >= KP_TILE_COLUMNS) return;
  double all = 0;
  for (int w = 0; w < WARPS; w++) all += shared[w][threadIdx.x];
  sums[threadIdx.x] = all;
}

template <int W>
static __device__ void sum_tile(const kp_flat &flat, const kp_column_tile &tile, bool squares, double *sums) {
  double sum[4] = {0, 0, 0, 0};
  for_tile<W>(tile, [&](int64_t at, int, int j) {
    const kp_span<W> a = kp_take<W>(flat.values + at);
    const kp_span<W> b = squares ? a : kp_take<W>(flat.gradients + at);
#pragma unroll
    for (int i = 0; i < W; i++) sum[j + i] += (double)a.at[i] * b.at[i];
  });
  write_sums<W>(sum, sums);
}

/* `along`: ⟨w, g⟩ of each column, or NULL. */
template <int W>
static __device__ void step_tile(const kp_flat &flat, const kp_column_tile &tile, const kp_adamw_numbers &f,
                                 const double *along, double *sums) {
  double sum[4] = {0, 0, 0, 0};
  for_tile<W>(tile, [&](int64_t at, int column, int j) {
    const kp_span<W> value = kp_take<W>(flat.values + at);
    kp_span<W> gradient = kp_take<W>(flat.gradients + at);
    kp_span<W> mean = kp_take<W>(flat.moment1 + at), variance = kp_take<W>(flat.moment2 + at);
    if (along != NULL)
      for (int i = 0; i < W; i++) gradient.at[i] = (float)(gradient.at[i] - along[column + i] * value.at[i]);
    const kp_span<W> next = kp_adamw<W>(f, value, gradient, mean, variance);
#pragma unroll
    for (int i = 0; i < W; i++) sum[j + i] += (double)next.at[i] * next.at[i];
    kp_put<W>(flat.values + at, next);
    kp_put<W>(flat.moment1 + at, mean);
    kp_put<W>(flat.moment2 + at, variance);
    kp_clear<W>(flat.gradients + at);
  });
  write_sums<W>(sum, sums);
}

template <int W>
static __device__ void scale_tile(const kp_flat &flat, const kp_column_tile &tile, const double *factors) {
  for_tile<W>(tile, [&](int64_t at, int column, int) {
    kp_span<W> value = kp_take<W>(flat.values + at);
#pragma unroll
    for (int i = 0; i < W; i++) value.at[i] = (float)(value.at[i] * factors[column + i]);
    kp_put_values<W>(flat, at, value);
  });
}

template <int W>
static __device__ void subtract_tile(const kp_flat &flat, const kp_column_tile &tile, const double *along) {
  for_tile<W>(tile, [&](int64_t at, int column, int) {
    const kp_span<W> value = kp_take<W>(flat.values + at);
    kp_span<W> gradient = kp_take<W>(flat.gradients + at);
#pragma unroll
    for (int i = 0; i < W; i++) gradient.at[i] = (float)(gradient.at[i] - along[column + i] * value.at[i]);
    kp_put<W>(flat.gradients + at, gradient);
  });
}

template <int W>
static __device__ void work_on_tile(const kp_flat &flat, const kp_column_tile &tile, pass what,
                                    const kp_adamw_numbers &numbers, bool tangent, const double *factors,
                                    double *sums) {
  switch (what) {
  case ALONG: sum_tile<W>(flat, tile, false, sums); break;
  case SUBTRACT: subtract_tile<W>(flat, tile, factors); break;
  case STEP: step_tile<W>(flat, tile, numbers, tangent ? factors : NULL, sums); break;
  case SQUARES: sum_tile<W>(flat, tile, true, sums); break;
  case SCALE: scale_tile<W>(flat, tile, factors); break;
  }
}

static __device__ void clear_tile(const kp_flat &flat, const kp_column_tile &tile) {
  for_tile<1>(tile, [&](int64_t at, int, int) { flat.gradients[at] = 0; });
}

template <pass what>
static __global__ void __launch_bounds__(THREADS)
    tiles_kernel(kp_flat flat, const kp_column_tile *tiles, const kp_optimizer_state *state,
                 const kp_adamw_numbers *table, bool tangent, const double *factors, double *sums) {
  const kp_column_tile tile = tiles[blockIdx.x];
  const kp_adamw_numbers numbers = table[tile.numbers];
  factors += (int64_t)tile.group * KP_TILE_COLUMNS;
  sums += (int64_t)blockIdx.x * KP_TILE_COLUMNS;
  if (!state->take) {
    if (what == STEP) clear_tile(flat, tile);
    return;
  }
  if ((tile.at | tile.pitch) % 4 == 0)
    work_on_tile<4>(flat, tile, what, numbers, tangent, factors, sums);
  else
    work_on_tile<1>(flat, tile, what, numbers, tangent, factors, sums);
}

/* A group's sums, or the factors that bring its columns to unit length. */
static __global__ void groups_kernel(const kp_column_group *groups, const double *sums, bool to_unit,
                                     double *factors) {
  const kp_column_group group = groups[blockIdx.x];
  double sum = 0;
#pragma unroll 4
  for (int i = 0; i < group.tiles; i++)
    sum += sums[(int64_t)(group.first + i) * KP_TILE_COLUMNS + threadIdx.x];
  factors[(int64_t)blockIdx.x * KP_TILE_COLUMNS + threadIdx.x] = to_unit ? kp_to_unit(sum) : sum;
}

template <pass what> static void launch_tiles(kp_cuda_optimizer *o, const kp_unit_vectors *units) {
  tiles_kernel<what><<<units->tiles.count(), THREADS, 0, o->cuda->stream>>>(
      o->flat, units->tiles.at, o->state, o->numbers, o->options.tangent, o->column_factors, o->column_sums);
}

static void launch_groups(kp_cuda_optimizer *o, const kp_unit_vectors *units, bool to_unit) {
  groups_kernel<<<units->groups.count(), KP_TILE_COLUMNS, 0, o->cuda->stream>>>(
      units->groups.at, o->column_sums, to_unit, o->column_factors);
}

kp_status kp_optimizer_submit_unit_columns(kp_cuda_optimizer *o, const kp_unit_vectors *units,
                                           kp_error *error) {
  if (units->tiles.count() == 0) return KP_OK;
  if (o->options.tangent) {
    launch_tiles<ALONG>(o, units);
    launch_groups(o, units, false);
  }
  launch_tiles<STEP>(o, units);
  launch_groups(o, units, true);
  launch_tiles<SCALE>(o, units);
  return kp_optimizer_launched(error);
}

/* ---- around a step of Muon ---- */

kp_status kp_optimizer_submit_tangents(kp_cuda_optimizer *o, const kp_unit_vectors *units, kp_error *error) {
  KP_TRY(kp_optimizer_submit_rows(o, units, true, error));
  if (units->tiles.count() == 0) return KP_OK;
  launch_tiles<ALONG>(o, units);
  launch_groups(o, units, false);
  launch_tiles<SUBTRACT>(o, units);
  return kp_optimizer_launched(error);
}

kp_status kp_optimizer_submit_retraction(kp_cuda_optimizer *o, const kp_unit_vectors *units,
                                         kp_error *error) {
  KP_TRY(kp_optimizer_submit_rows(o, units, false, error));
  if (units->tiles.count() == 0) return KP_OK;
  launch_tiles<SQUARES>(o, units);
  launch_groups(o, units, true);
  launch_tiles<SCALE>(o, units);
  return kp_optimizer_launched(error);
}
