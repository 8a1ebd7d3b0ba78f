/* The parts of linear maps that are no matrix product of cuBLASLt. */
#ifndef KAPPA_BACKEND_CUDA_LINEAR_CUH
#define KAPPA_BACKEND_CUDA_LINEAR_CUH

#include "backend/cuda/kernel.cuh"

/* What is added to the product: b + time · time weightᵀ. */
struct kp_linear_terms {
  kp_numbers bias, time, time_weight; /* (M), (N, G), (M, G); NULL: absent */
  int64_t groups, time_pitch, weight_pitch;
};

__device__ static inline float kp_linear_term(const kp_linear_terms &t, int64_t row, int64_t column) {
  float sum = t.bias.at == NULL ? 0 : t.bias[column];
  for (int64_t g = 0; g < t.groups; g++)
    sum += t.time[row * t.time_pitch + g] * t.time_weight[column * t.weight_pitch + g];
  return sum;
}

/* Of decoding: so few rows that the time is that of reading the matrix. */
enum { KP_FEW_ROWS = 8 };

struct kp_few_rows {
  const void *x, *w;
  void *y;
  int64_t rows, columns, depth; /* N, M, and K with its padding */
  int64_t x_pitch, w_pitch, y_pitch;
  kp_linear_terms terms;
};

kp_few_rows kp_few_rows_of(const kp_call *linear);

/* Whether rows start at multiples of 16 bytes, and are few too. */
bool kp_rows_are_whole(const kp_few_rows *few);
bool kp_few_rows_fit(const kp_few_rows *few);
kp_status kp_linear_few(const kp_call *call, const kp_few_rows *few, kp_error *error);

/* Maps of points as one product whose depth holds times and bias (linear_points.cu).  The depth with them, or
 * 0 where y is so narrow that it is cheaper to write them into y first. */
int64_t kp_points_depth(int64_t M, int64_t K, int64_t groups, bool biased);
bool kp_points_fit(const kp_few_rows *few, int64_t K);
/* Bytes of both matrices. */
size_t kp_points_scratch(int64_t rows, int64_t M, int64_t depth);
/* Makes them in `scratch`: `few` is then a map without terms, with rows of zeros behind its matrix. */
kp_status kp_join_points(const kp_call *call, kp_few_rows *few, int64_t K, void *scratch, kp_error *error);

/* V columns of a row: as they stand in memory until they are used, which takes fewer registers. */
template <typename T, int V> struct alignas(V * sizeof(T)) kp_columns { T value[V]; };

template <typename T, int V>
__device__ static inline kp_columns<T, V> kp_read_columns(const T *at, bool inside) {
  kp_columns<T, V> read = {};
  if (!inside) return read;
  if constexpr (V * sizeof(T) == sizeof(uint4))
    *(uint4 *)&read = __ldg((const uint4 *)at);
  else
    read.value[0] = *at;
  return read;
}

/* Maps to at most KP_MOST_NARROW outputs in bfloat16, without bias and times (linear_narrow.cu). */
enum { KP_MOST_NARROW = 8 };

struct kp_narrow {
  void *x; /* (N, K), or its gradient */
  const void *w;
  void *y; /* (N, M), or its gradient */
  int64_t rows, M, x_pitch, w_pitch, y_pitch;
  bool adds = false; /* the gradient of x to what stands there */
};

bool kp_narrow_fits(const kp_narrow *narrow);
kp_status kp_narrow_forward(const kp_call *call, const kp_narrow *narrow, kp_error *error);
kp_status kp_narrow_input(const kp_call *call, const kp_narrow *narrow, kp_error *error);
/* gW += gyᵀ x, whose rows are as long as those of x. */
size_t kp_narrow_scratch(int64_t rows, int64_t M, int64_t x_pitch);
kp_status kp_narrow_weight(const kp_call *call, const kp_narrow *narrow, kp_results to, void *scratch,
                           kp_error *error);

/* ---- sums over rows ---- */

/* A block has lines of threads that hold V columns of a row each.  Three blocks share a processor: some
 * compute while others wait for memory. */
enum { KP_STRIP_THREADS = 256, KP_STRIP_BLOCKS = 3, KP_EIGHT = 8, KP_FOUR = 4 };

/* Adds eight numbers of all lanes; lane 4 r gets the sum of number r.  Half of the numbers leave a lane at
 * each of the first steps. */
__device__ static inline float kp_sum_eight(const float (&number)[KP_EIGHT]) {
  const int lane = threadIdx.x % 32;
  float four[4], two[2];
#pragma unroll
  for (int i = 0; i < 4; i++)
    four[i] = (lane & 16 ? number[4 + i] : number[i]) +
              __shfl_xor_sync(0xffffffffu, lane & 16 ? number[i] : number[4 + i], 16);
#pragma unroll
  for (int i = 0; i < 2; i++)
    two[i] = (lane & 8 ? four[2 + i] : four[i]) +
             __shfl_xor_sync(0xffffffffu, lane & 8 ? four[i] : four[2 + i], 8);
  float one = (lane & 4 ? two[1] : two[0]) + __shfl_xor_sync(0xffffffffu, lane & 4 ? two[0] : two[1], 4);
  one += __shfl_xor_sync(0xffffffffu, one, 2);
  return one + __shfl_xor_sync(0xffffffffu, one, 1);
}

/* The same of four: lane 8 r gets the sum of number r. */
__device__ static inline float kp_sum_four(const float (&number)[KP_FOUR]) {
  const int lane = threadIdx.x % 32;
  float two[2];
#pragma unroll
  for (int i = 0; i < 2; i++)
    two[i] = (lane & 16 ? number[2 + i] : number[i]) +
             __shfl_xor_sync(0xffffffffu, lane & 16 ? number[i] : number[2 + i], 16);
  float one = (lane & 8 ? two[1] : two[0]) + __shfl_xor_sync(0xffffffffu, lane & 8 ? two[0] : two[1], 8);
  one += __shfl_xor_sync(0xffffffffu, one, 4);
  one += __shfl_xor_sync(0xffffffffu, one, 2);
  return one + __shfl_xor_sync(0xffffffffu, one, 1);
}

/* How a row is cut: into tiles of blocks, whose lines are whole warps; a warp's columns are a part. */
struct kp_row_cut {
  int tiles, threads, parts;
};

static inline kp_row_cut kp_cut_row(int64_t columns, int V) {
  const int64_t chunks = (columns + V - 1) / V, tiles = (chunks + KP_STRIP_THREADS - 1) / KP_STRIP_THREADS;
  const int64_t threads = ((chunks + tiles - 1) / tiles + 31) / 32 * 32;
  return {(int)tiles, (int)threads, (int)(tiles * threads / 32)};
}

/* The sums of the block's lines, in their order, to a row of partial sums. */
template <int V>
__device__ static inline void kp_leave_sums(const float (&sum)[V], float *to, int64_t first, int64_t columns,
                                            float *shared) {
  const int width = blockDim.x * V, thread = threadIdx.y * blockDim.x + threadIdx.x;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < V; i++) shared[thread * V + i] = sum[i];
  __syncthreads();
  for (int c = thread; c < width && first + c < columns; c += blockDim.x * blockDim.y) {
    float total = 0;
    for (int line = 0; line < blockDim.y; line++) total += shared[line * width + c];
    to[first + c] = total;
  }
}

/* COUNT numbers from `first` on, `step` apart, zeros behind the first `count`.  One question for their type,
 * so that all are on their way at once. */
template <int COUNT>
__device__ static inline void kp_take_numbers(const kp_numbers &numbers, int64_t first, int64_t step,
                                              int64_t count, float (&to)[COUNT]) {
  if (numbers.half) {
    const kp_half *from = (const kp_half *)numbers.at + first;
#pragma unroll
    for (int i = 0; i < COUNT; i++) to[i] = i < count ? __bfloat162float(from[i * step]) : 0;
  } else {
    const float *from = (const float *)numbers.at + first;
#pragma unroll
    for (int i = 0; i < COUNT; i++) to[i] = i < count ? from[i * step] : 0;
  }
}

/* Sums over rows and columns of gy (N, M); results that are not wanted are NULL.
 *   bias (M)            += Σ_n gy
 *   time_weight (M, G)  += Σ_n gy · time
 *   time_gradient (N, G) = Σ_m gy · time weight */
struct kp_linear_sums {
  const void *gy;
  int64_t rows, columns, pitch; /* N, M */
  int64_t groups;               /* G; 0 without time */
  kp_numbers time, time_weight;
  int64_t time_pitch, weight_pitch;
  kp_results bias, weight_gradient, time_gradient;
  int64_t weight_gradient_pitch, time_gradient_pitch;
};

/* Bytes of scratch memory. */
size_t kp_linear_sums_scratch(int64_t rows, int64_t columns, int64_t groups);
kp_status kp_linear_sum(const kp_call *call, const kp_linear_sums *sums, void *scratch, kp_error *error);

#endif
