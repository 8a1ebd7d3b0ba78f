/* A stable sort of small numbers on the device, by counting: what comes first stays first.
 *
 * The keys stand in tiles, one a warp.  `count` has the count of each digit in each tile, (bins, tiles);
 * kp_sort_scan turns a digit's counts into their running sum and its `total`; kp_sort_place sends each key to
 * the place that the totals before its digit, the tiles before its own and the keys before it in its tile
 * give.  Counts are whole numbers, so the order in which they were counted does not matter. */
#ifndef KAPPA_BACKEND_CUDA_SORT_CUH
#define KAPPA_BACKEND_CUDA_SORT_CUH

#include "backend/cuda/kernel.cuh"

enum { KP_SORT_WARPS = 4 };

struct kp_sort {
  int64_t count; /* of keys */
  int tile;      /* keys of a tile, a multiple of 32 */
  int tiles, bins;
  int shift; /* the digit is (key >> shift) & mask, less than bins */
  unsigned mask;
  const int32_t *keys; /* (count) */
  const int32_t *rows; /* (count) what goes with a key; NULL: its number / `choices` */
  int choices;
  int32_t *counts;      /* (bins, tiles) */
  int32_t *totals;      /* (bins) */
  int32_t *sorted_keys; /* (count), or NULL */
  int32_t *sorted_rows; /* (count) */
  int32_t *slot;        /* (count) where each key went, or NULL */
  int32_t *offsets;     /* (bins+1) where each digit begins, or NULL */
};

/* Counts the digits of the tiles. */
kp_status kp_sort_count(const kp_call *call, const kp_sort *sort, kp_error *error);
/* The rest, once `counts` is there. */
kp_status kp_sort_finish(const kp_call *call, const kp_sort *sort, kp_error *error);

/* The running sum of a value over a block of 1024 or fewer threads, without this thread's own; `total` gets
 * that of all.  `shared` has room for 33 numbers. */
__device__ static inline int kp_block_scan(int value, int *shared, int *total) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = (blockDim.x + 31) / 32;
  int sum = value;
  for (int offset = 1; offset < 32; offset *= 2) {
    const int other = __shfl_up_sync(0xffffffffu, sum, offset);
    if (lane >= offset) sum += other;
  }
  __syncthreads(); /* shared may still be read from the scan before */
  if (lane == 31) shared[warp] = sum;
  __syncthreads();
  if (warp == 0) {
    const int own = lane < warps ? shared[lane] : 0;
    int before = own;
    for (int offset = 1; offset < 32; offset *= 2) {
      const int other = __shfl_up_sync(0xffffffffu, before, offset);
      if (lane >= offset) before += other;
    }
    shared[lane] = before - own;
    if (lane == 31) shared[32] = before;
  }
  __syncthreads();
  *total = shared[32];
  return shared[warp] + sum - value;
}

#endif
