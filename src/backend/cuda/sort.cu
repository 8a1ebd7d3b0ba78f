/* The stable sort by counting.  Its work is small beside the rows that are moved in its order. */
#include "backend/cuda/sort.cuh"

__device__ static inline int digit_of(const kp_sort &sort, int32_t key) {
  return (int)(((unsigned)key >> sort.shift) & sort.mask);
}

static __global__ void __launch_bounds__(KP_SORT_WARPS * 32)
    count_digits(const __grid_constant__ kp_sort sort) {
  extern __shared__ int32_t bins[];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, tile = blockIdx.x * KP_SORT_WARPS + warp;
  int32_t *own = bins + warp * sort.bins;
  if (tile >= sort.tiles) return;
  for (int bin = lane; bin < sort.bins; bin += 32) own[bin] = 0;
  __syncwarp();
  const int64_t first = (int64_t)tile * sort.tile;
  for (int64_t i = first + lane; i < first + sort.tile && i < sort.count; i += 32)
    atomicAdd(&own[digit_of(sort, sort.keys[i])], 1);
  __syncwarp();
  for (int bin = lane; bin < sort.bins; bin += 32) sort.counts[(int64_t)bin * sort.tiles + tile] = own[bin];
}

/* One block a digit: its counts become what stands before each tile. */
static __global__ void scan_digit(const __grid_constant__ kp_sort sort) {
  __shared__ int shared[33];
  int32_t *counts = sort.counts + (int64_t)blockIdx.x * sort.tiles;
  int before = 0;
  for (int first = 0; first < sort.tiles; first += blockDim.x) {
    const int tile = first + threadIdx.x;
    int all;
    const int own = kp_block_scan(tile < sort.tiles ? counts[tile] : 0, shared, &all);
    if (tile < sort.tiles) counts[tile] = before + own;
    before += all;
  }
  if (threadIdx.x == 0) sort.totals[blockIdx.x] = before;
}

/* Where each digit begins, in shared memory; of block 0 also in `offsets`. */
__device__ static void begin_digits(const kp_sort &sort, int32_t *begin) {
  __shared__ int shared[33];
  int before = 0;
  for (int first = 0; first < sort.bins; first += blockDim.x) {
    const int bin = first + threadIdx.x;
    int all;
    const int own = kp_block_scan(bin < sort.bins ? sort.totals[bin] : 0, shared, &all);
    if (bin < sort.bins) begin[bin] = before + own;
    if (bin < sort.bins && sort.offsets != NULL && blockIdx.x == 0) sort.offsets[bin] = before + own;
    before += all;
  }
  if (sort.offsets != NULL && blockIdx.x == 0 && threadIdx.x == 0) sort.offsets[sort.bins] = before;
  __syncthreads();
}

__device__ static inline void put(const kp_sort &sort, int64_t i, int32_t key, int place) {
  const int32_t row = sort.rows == NULL ? (int32_t)(i / sort.choices) : sort.rows[i];
  if (sort.sorted_keys != NULL) sort.sorted_keys[place] = key;
  if (sort.slot != NULL) sort.slot[i] = place;
  sort.sorted_rows[place] = row;
}

/* A warp walks its tile 32 keys at a time; the lanes with one digit stand in order of their number. */
static __global__ void __launch_bounds__(KP_SORT_WARPS * 32)
    place_keys(const __grid_constant__ kp_sort sort) {
  extern __shared__ int32_t memory[]; /* where digits begin (bins), then the next place by warp (bins) */
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, tile = blockIdx.x * KP_SORT_WARPS + warp;
  begin_digits(sort, memory);
  if (tile >= sort.tiles) return;
  int32_t *next = memory + (1 + warp) * sort.bins;
  for (int bin = lane; bin < sort.bins; bin += 32)
    next[bin] = memory[bin] + sort.counts[(int64_t)bin * sort.tiles + tile];
  __syncwarp();
  const int64_t first = (int64_t)tile * sort.tile;
  for (int64_t base = first; base < first + sort.tile && base < sort.count; base += 32) {
    const int64_t i = base + lane;
    const bool there = i < sort.count;
    const int32_t key = there ? sort.keys[i] : 0;
    const int digit = there ? digit_of(sort, key) : -1;
    const unsigned same = __match_any_sync(0xffffffffu, digit);
    const int ahead = __popc(same & ((1u << lane) - 1));
    const int place = there ? next[digit] + ahead : 0;
    __syncwarp();
    if (there && ahead == 0) next[digit] += __popc(same);
    __syncwarp();
    if (there) put(sort, i, key, place);
  }
}

kp_status kp_sort_count(const kp_call *call, const kp_sort *sort, kp_error *error) {
  const size_t shared = (size_t)KP_SORT_WARPS * (size_t)sort->bins * sizeof(int32_t);
  count_digits<<<kp_blocks(sort->tiles, KP_SORT_WARPS), KP_SORT_WARPS * 32, shared,
                 kp_cuda_of(call)->stream>>>(*sort);
  return kp_launched(call, error);
}

kp_status kp_sort_finish(const kp_call *call, const kp_sort *sort, kp_error *error) {
  cudaStream_t stream = kp_cuda_of(call)->stream;
  const size_t shared = (size_t)(1 + KP_SORT_WARPS) * (size_t)sort->bins * sizeof(int32_t);
  scan_digit<<<sort->bins, 256, 0, stream>>>(*sort);
  place_keys<<<kp_blocks(sort->tiles, KP_SORT_WARPS), KP_SORT_WARPS * 32, shared, stream>>>(*sort);
  return kp_launched(call, error);
}
