/* The last step of backward kernels of row programs: partial sums, in a fixed order, into the gradients of
 * weights, biases and curvatures. */
#ifndef KAPPA_BACKEND_CUDA_SEAM_SUMS_CUH
#define KAPPA_BACKEND_CUDA_SEAM_SUMS_CUH

#include "backend/cuda/seam_rows.cuh"

/* Partial gradients (blocks, 2, C) of weight and bias; the outputs may be NULL. */
struct kp_seam_totals {
  const float *columns;
  int blocks, C;
  float *gweight, *gbias;
};

/* Gradients of κ by row (N, G) and what they are added to; `rows` NULL: none. */
template <typename S> struct kp_curvature_bars {
  const S *rows;
  int groups, pitch; /* pitch: of the output */
  int64_t entries, rows_per_entry;
  kp_results gradient;
};

/* Of the gradient of input `input`, which is an output of the same number counted from `input` too. */
template <typename S>
static inline kp_curvature_bars<S> kp_curvature_bars_of(const kp_call *call, int output,
                                                        const kp_curvatures &table, const S *rows) {
  kp_curvature_bars<S> bars = {};
  if (rows == NULL || call->output[output] == NULL) return bars;
  bars.rows = rows, bars.groups = table.groups, bars.pitch = (int)kp_pitch(call->node->output[output]);
  bars.entries = table.entries, bars.rows_per_entry = table.rows_per_entry;
  bars.gradient = kp_output_numbers(call, output);
  return bars;
}

enum {
  KP_TOTAL_COLUMNS = 32,
  KP_TOTAL_PARTS = 32,
  KP_TOTAL_THREADS = KP_TOTAL_COLUMNS * KP_TOTAL_PARTS,
  KP_TOTAL_FEW = 32
};

/* A block sums 32 columns: 32 warps take every 32nd partial, then their sums are added in order. */
__device__ static inline void kp_column_totals(const kp_seam_totals &totals, int block_of_columns) {
  __shared__ float sums[KP_TOTAL_PARTS][KP_TOTAL_COLUMNS];
  const int lane = threadIdx.x % KP_TOTAL_COLUMNS, part = threadIdx.x / KP_TOTAL_COLUMNS;
  const int column = block_of_columns * KP_TOTAL_COLUMNS + lane;
  float sum = 0;
  if (column < 2 * totals.C)
#pragma unroll 8
    for (int block = part; block < totals.blocks; block += KP_TOTAL_PARTS)
      sum += totals.columns[(int64_t)block * 2 * totals.C + column];
  sums[part][lane] = sum;
  __syncthreads();
  if (part > 0 || column >= 2 * totals.C) return;
  for (int other = 1; other < KP_TOTAL_PARTS; other++) sum += sums[other][lane];
  float *gradient = column < totals.C ? totals.gweight : totals.gbias;
  if (gradient != NULL) gradient[column % totals.C] += sum;
}

/* A block sums the rows of one entry and group; or, where an entry has few rows, a thread does. */
template <typename S>
__device__ static inline void kp_curvature_totals(const kp_curvature_bars<S> &bars, int block) {
  const bool by_thread = bars.rows_per_entry <= KP_TOTAL_FEW;
  const int64_t task = by_thread ? (int64_t)block * blockDim.x + threadIdx.x : block;
  if (task >= bars.entries * bars.groups) return;
  const int64_t entry = task / bars.groups, group = task % bars.groups;
  const S *from = bars.rows + entry * bars.rows_per_entry * bars.groups + group;
  const int step = by_thread ? 1 : blockDim.x;
  double sum = 0;
#pragma unroll 8
  for (int64_t row = by_thread ? 0 : threadIdx.x; row < bars.rows_per_entry; row += step)
    sum += (double)from[row * bars.groups];
  if (!by_thread) {
    __shared__ double shared[32];
    sum = kp_block_sum(sum, shared);
    if (threadIdx.x > 0) return;
  }
  bars.gradient.add(entry * bars.pitch + group, (float)sum);
}

/* How many blocks each of the three parts of a launch has. */
struct kp_total_blocks {
  int columns, update, tangent;
};

template <typename S>
__global__ static void __launch_bounds__(KP_TOTAL_THREADS)
    kp_totals_kernel(const kp_seam_totals totals, const kp_curvature_bars<S> update,
                     const kp_curvature_bars<S> tangent, const kp_total_blocks blocks) {
  int block = blockIdx.x;
  if (block < blocks.columns) return kp_column_totals(totals, block);
  block -= blocks.columns;
  if (block < blocks.update) return kp_curvature_totals(update, block);
  kp_curvature_totals(tangent, block - blocks.update);
}

template <typename S> static inline int kp_curvature_blocks(const kp_curvature_bars<S> &bars) {
  const int64_t tasks = bars.entries * bars.groups;
  if (bars.rows == NULL || tasks == 0) return 0;
  return bars.rows_per_entry <= KP_TOTAL_FEW ? kp_blocks(tasks, KP_TOTAL_THREADS) : (int)tasks;
}

/* In one launch; but where both maps have one curvature, they add to its gradient one after the other. */
template <typename S>
static inline void kp_seam_add_totals(cudaStream_t stream, const kp_seam_totals &totals,
                                      const kp_curvature_bars<S> &update,
                                      const kp_curvature_bars<S> &tangent) {
  kp_total_blocks blocks = {totals.columns == NULL ? 0 : kp_blocks(2 * (int64_t)totals.C, KP_TOTAL_COLUMNS),
                            kp_curvature_blocks(update), kp_curvature_blocks(tangent)};
  const int behind = update.gradient.at == tangent.gradient.at ? blocks.tangent : 0;
  blocks.tangent -= behind;
  const int first = blocks.columns + blocks.update + blocks.tangent;
  if (first > 0) kp_totals_kernel<S><<<first, KP_TOTAL_THREADS, 0, stream>>>(totals, update, tangent, blocks);
  if (behind > 0) kp_totals_kernel<S><<<behind, KP_TOTAL_THREADS, 0, stream>>>(totals, update, tangent, {});
}

template <typename S>
static inline void kp_add_curvatures(cudaStream_t stream, const kp_curvature_bars<S> &bars) {
  kp_seam_add_totals<S>(stream, {}, bars, {});
}

/* The sum of the blocks' events. */
__global__ static void kp_seam_events_kernel(const int *counts, int blocks, float *events) {
  __shared__ int sums[32];
  int sum = 0;
  for (int i = threadIdx.x; i < blocks; i += blockDim.x) sum += counts[i];
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int warp = 1; warp < (int)blockDim.x / 32; warp++) sum += sums[warp];
  *events = (float)sum;
}

#endif
