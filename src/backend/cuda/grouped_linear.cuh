/* One product an expert, of rows that are sorted by expert.
 *
 *   forward  y  (rows of e, M) = o (a (x Wᵀ + time · time weight) + b)
 *   input    gx (rows of e, K) = o a gy W
 *   weight   gW (E, M, K)     += o a gyᵀ x
 *
 * Where an expert's rows begin stands on the device alone: kernels find their tiles themselves. */
#ifndef KAPPA_BACKEND_CUDA_GROUPED_LINEAR_CUH
#define KAPPA_BACKEND_CUDA_GROUPED_LINEAR_CUH

#include "backend/cuda/kernel.cuh"

enum kp_grouped_kind { KP_GROUPED_FORWARD, KP_GROUPED_INPUT, KP_GROUPED_WEIGHT };

/* C = A B of every expert.  With the matrices' names of above: A is x, gy, gyᵀ; B is Wᵀ, W, x. */
struct kp_grouped {
  kp_grouped_kind kind;
  const int32_t *offsets; /* (E+1); NULL: one expert has all rows */
  int experts;            /* E */
  int64_t rows, M, K;     /* R; the columns of y and of x */
  const void *a, *b;
  void *c;
  int64_t a_pitch, b_pitch, c_pitch, expert_stride; /* from W, or gW, of an expert to the next one's */
  int64_t c_columns;                                /* of y or gx that are written: zeros behind M or K */
  float factor;                                     /* of all products */
  kp_numbers bias, time, time_weight, in, out;      /* (E, M), (R), (E, M), (E), (E); NULL: absent */
  int64_t bias_pitch, time_weight_pitch;
  int *turns; /* scratch memory for kp_grouped_turns numbers, or NULL: the depth of gW is not shared out */
  int splits; /* of the depth; chosen by the kernel that uses them */
};

/* Numbers that the blocks of Hopper's kernel need to add to one tile of gW in a fixed order. */
int64_t kp_grouped_turns(int64_t experts, int64_t M, int64_t K);
bool kp_grouped_hopper_fits(const kp_cuda *cuda, const kp_grouped *g);
kp_status kp_grouped_hopper(const kp_cuda *cuda, const kp_grouped *g, kp_error *error);

/* The rows of an expert, within the tensor whatever the offsets say. */
struct kp_expert_rows {
  int64_t first, count;
};

__device__ static inline kp_expert_rows kp_rows_of_expert(const int32_t *offsets, int expert, int64_t rows) {
  if (offsets == NULL) return {0, rows};
  const int64_t first = max((int64_t)0, min((int64_t)offsets[expert], rows));
  const int64_t last = max(first, min((int64_t)offsets[expert + 1], rows));
  return {first, last - first};
}

__device__ static inline float kp_scale_of(kp_numbers scale, int expert) {
  return scale.at == NULL ? 1.0f : scale[expert];
}

/* The tiles of all experts are numbered one expert after the other.  All threads of the block call this; the
 * first tile of each expert, and the count of all, go to shared memory (E+1). */
__device__ static inline void kp_number_tiles(const kp_grouped &g, int tile_rows, int tile_columns,
                                              int *first) {
  const bool weight = g.kind == KP_GROUPED_WEIGHT;
  const int64_t width = g.kind == KP_GROUPED_FORWARD ? g.M : g.K;
  const int across = (int)((width + tile_columns - 1) / tile_columns);
  if (threadIdx.x < 32) {
    int total = 0;
    for (int base = 0; base < g.experts; base += 32) {
      const int expert = base + threadIdx.x;
      int count = 0;
      if (expert < g.experts) {
        const int64_t rows = kp_rows_of_expert(g.offsets, expert, g.rows).count;
        const int64_t down = weight ? (rows == 0 ? 0 : g.M) : rows;
        count = (int)((down + tile_rows - 1) / tile_rows) * across;
      }
      int sum = count;
      for (int step = 1; step < 32; step *= 2) {
        const int other = __shfl_up_sync(0xffffffffu, sum, step);
        if ((int)threadIdx.x >= step) sum += other;
      }
      if (expert < g.experts) first[expert] = total + sum - count;
      total += __shfl_sync(0xffffffffu, sum, 31);
    }
    if (threadIdx.x == 0) first[g.experts] = total;
  }
  __syncthreads();
}

/* The last expert whose first tile is not behind `tile`: it has tiles. */
__device__ static inline int kp_expert_of_tile(const int *first, int experts, int tile) {
  int low = 0, high = experts;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (first[middle] <= tile)
      low = middle;
    else
      high = middle;
  }
  return low;
}

/* Bytes of shared memory for first tiles. */
static inline size_t kp_tile_numbers_bytes(int experts) {
  return ((size_t)(experts + 1) * sizeof(int) + 127) / 128 * 128;
}

/* bfloat16 by the matrix units, where rows start at multiples of 16 bytes. */
bool kp_grouped_half_fits(const kp_grouped *g);
kp_status kp_grouped_half(const kp_cuda *cuda, const kp_grouped *g, kp_error *error);
/* Anything, by float multiplications. */
kp_status kp_grouped_plain(const kp_call *call, const kp_grouped *g, kp_error *error);

/* g time (R) = o a <gy, time weight> */
struct kp_grouped_time {
  const void *gy;
  const int32_t *offsets;
  int experts;
  int64_t rows, M, pitch, time_weight_pitch;
  kp_numbers time_weight, in, out;
  kp_results result;
};
kp_status kp_grouped_time_gradient(const kp_call *call, const kp_grouped_time *t, kp_error *error);

/* Sums over an expert's rows; all results are added to, NULL: not wanted.
 *   bias (E, M)        o Σ gy
 *   time_weight (E, M) o a Σ time gy
 *   in, out (E)        of <gy, y> and <gy, b> */
struct kp_grouped_sums {
  const void *gy, *y;
  const int32_t *offsets;
  int experts;
  int64_t rows, M, pitch, y_pitch, bias_pitch, bias_gradient_pitch, time_weight_pitch;
  kp_numbers time, bias, in, out;
  kp_results bias_gradient, time_weight, in_gradient, out_gradient;
};
size_t kp_grouped_sums_scratch(int64_t experts, int64_t M);
kp_status kp_grouped_sum(const kp_call *call, const kp_grouped_sums *s, void *scratch, kp_error *error);

#endif
