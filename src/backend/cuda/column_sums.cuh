/* Sums over rows in a fixed order: each group of rows leaves its partial sums in scratch memory, and these
 * kernels add them up. */
#ifndef KAPPA_BACKEND_CUDA_COLUMN_SUMS_CUH
#define KAPPA_BACKEND_CUDA_COLUMN_SUMS_CUH

#include "backend/cuda/kernel.cuh"

enum { KP_COLUMNS_A_BLOCK = 32, KP_GROUPS_A_BLOCK = 16 };

/* out[i] += the sum over groups of partial[group · stride + i], i < columns. */
template <typename T>
static __global__ void kp_add_columns(const T *partial, int64_t groups, int64_t stride, int64_t columns,
                                      kp_results out) {
  __shared__ T shared[KP_GROUPS_A_BLOCK][KP_COLUMNS_A_BLOCK];
  const int64_t column = (int64_t)blockIdx.x * KP_COLUMNS_A_BLOCK + threadIdx.x;
  T sum = 0;
  if (column < columns) {
#pragma unroll 8
    for (int64_t group = threadIdx.y; group < groups; group += KP_GROUPS_A_BLOCK)
      sum += partial[group * stride + column];
  }
  shared[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || column >= columns) return;
  for (int i = 1; i < KP_GROUPS_A_BLOCK; i++) sum += shared[i][threadIdx.x];
  out.add(column, (float)sum);
}

template <typename T>
static inline void kp_add_columns_to(const kp_call *call, const T *partial, int64_t groups, int64_t stride,
                                     int64_t columns, kp_results out) {
  kp_add_columns<<<kp_blocks(columns, KP_COLUMNS_A_BLOCK), dim3(KP_COLUMNS_A_BLOCK, KP_GROUPS_A_BLOCK), 0,
                   kp_cuda_of(call)->stream>>>(partial, groups, stride, columns, out);
}

/* out += factor · the sum of `count` numbers, by one block of 1024. */
template <typename T>
static __global__ void kp_add_numbers(const T *numbers, int64_t count, double factor, kp_results out) {
  __shared__ double shared[32];
  double sum = 0;
#pragma unroll 8
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) sum += (double)numbers[i];
  sum = kp_block_sum(sum, shared);
  if (threadIdx.x == 0) out.add(0, (float)(factor * sum));
}

#endif
