/* Tensor cores by mma.sync: tiles in shared memory, fragments in registers, products of both.
 *
 * A tile has rows of COLUMNS bfloat16 (a multiple of 16) at a stride of COLUMNS + 8: an odd number of 16 byte
 * pieces, so that eight rows of a column of pieces lie in all banks and ldmatrix never waits. */
#ifndef KAPPA_BACKEND_CUDA_ATTENTION_MMA_CUH
#define KAPPA_BACKEND_CUDA_ATTENTION_MMA_CUH

#include "backend/cuda/attention.cuh"

constexpr int KP_LINE_PAD = 8;

__device__ static inline uint32_t kp_shared_address(const void *at) {
  return (uint32_t)__cvta_generic_to_shared(at);
}

/* BYTES of global memory to shared memory behind the thread's back; zeros where not `inside`. */
template <int BYTES> __device__ static inline void kp_copy_async(void *to, const void *from, bool inside) {
  const int size = inside ? BYTES : 0;
  if (BYTES == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(kp_shared_address(to)), "l"(from),
                 "r"(size)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(kp_shared_address(to)), "l"(from),
                 "n"(BYTES), "r"(size)
                 : "memory");
}

__device__ static inline void kp_copy_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int PENDING> __device__ static inline void kp_copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

/* Four 8 × 8 matrices whose rows the lanes point at, eight lanes a matrix. */
__device__ static inline void kp_load_matrices(uint32_t (&to)[4], const kp_half *at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(kp_shared_address(at)));
}

__device__ static inline void kp_load_transposed(uint32_t (&to)[4], const kp_half *at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(kp_shared_address(at)));
}

/* sum (16 × 8) += a (16 × 16) · b (16 × 8) */
__device__ static inline void kp_multiply(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
               "{%8, %9}, {%0, %1, %2, %3};"
               : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* ---- Where the lanes point ---- */

/* A 16 × 16 block of a tile as the left operand of kp_multiply: rows `row`…, columns `column`…. */
template <int STRIDE>
__device__ static inline const kp_half *kp_left_at(const kp_half *tile, int row, int column) {
  const int lane = threadIdx.x % 32;
  return tile + (row + lane % 16) * STRIDE + column + lane / 16 * 8;
}

/* 16 rows × 16 columns as two right operands whose columns are the tile's rows: registers 0, 1 of the first
 * eight rows, 2, 3 of the others. */
template <int STRIDE>
__device__ static inline const kp_half *kp_right_at(const kp_half *tile, int row, int column) {
  const int lane = threadIdx.x % 32;
  return tile + (row + lane % 8 + lane / 16 * 8) * STRIDE + column + lane / 8 % 2 * 8;
}

/* The transposed loads.  A right operand whose columns are the tile's columns: registers 0, 1 of the first
 * eight columns. */
template <int STRIDE>
__device__ static inline const kp_half *kp_right_turned_at(const kp_half *tile, int row, int column) {
  const int lane = threadIdx.x % 32;
  return tile + (row + lane % 16) * STRIDE + column + lane / 16 * 8;
}

/* A left operand whose rows are the tile's columns. */
template <int STRIDE>
__device__ static inline const kp_half *kp_left_turned_at(const kp_half *tile, int row, int column) {
  const int lane = threadIdx.x % 32;
  return tile + (row + lane % 8 + lane / 16 * 8) * STRIDE + column + lane / 8 % 2 * 8;
}

/* ---- Numbers ---- */

/* Two numbers to bfloat16, the first in the low half. */
__device__ static inline uint32_t kp_pack_pair(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

__device__ static inline float kp_pair_low(uint32_t pair) {
  return __uint_as_float(pair << 16);
}
__device__ static inline float kp_pair_high(uint32_t pair) {
  return __uint_as_float(pair & 0xffff0000u);
}

/* The special functions of the chip: relative error 2^-22 (ex2), 1e-7 (sqrt, rsqrt), absolute 2^-22 (lg2). */
__device__ static inline float kp_fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ static inline float kp_fast_log2(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ static inline float kp_fast_sqrt(float x) {
  float y;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ static inline float kp_fast_rsqrt(float x) {
  float y;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
/* min(x, bound), where a NaN stays one. */
__device__ static inline float kp_bounded(float x, float bound) {
  float y;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(x), "f"(bound));
  return y;
}
/* max(x, bound), likewise. */
__device__ static inline float kp_floored(float x, float bound) {
  float y;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(x), "f"(bound));
  return y;
}

/* Over the four lanes that share a row of an accumulator. */
__device__ static inline float kp_quad_sum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
__device__ static inline float kp_quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

/* ---- Rows between global and shared memory ---- */

/* Rows of one head in global memory. */
struct kp_half_rows {
  kp_half *base; /* position 0 */
  int64_t stride;
  int size;
  bool aligned; /* rows are whole 16 byte pieces */
};

__device__ static inline kp_half_rows kp_half_rows_of(const kp_head_rows &rows, int64_t n, int h, int size) {
  kp_half_rows result = {kp_row_at<kp_half>(rows, n, h), rows.stride, size, false};
  result.aligned = size % 8 == 0 && rows.stride % 8 == 0 && (uintptr_t)result.base % 16 == 0;
  return result;
}

/* Rows that are not whole pieces, number by number; rare, so not where the fast way is. */
__device__ __noinline__ static void kp_load_ragged(kp_half *tile, kp_half_rows rows, int count, int columns,
                                                   int begin, int end) {
  for (int item = threadIdx.x; item < count * columns; item += blockDim.x) {
    const int row = item / columns, column = item % columns;
    tile[row * (columns + KP_LINE_PAD) + column] = begin + row < end && column < rows.size
                                                       ? rows.base[(begin + row) * rows.stride + column]
                                                       : __float2bfloat16_rn(0.0f);
  }
}

__device__ __noinline__ static void kp_store_ragged(const kp_half *tile, kp_half_rows rows, int count,
                                                    int columns, int begin, int end) {
  for (int item = threadIdx.x; item < count * columns; item += blockDim.x) {
    const int row = item / columns, column = item % columns;
    if (begin + row < end && column < rows.size)
      rows.base[(begin + row) * rows.stride + column] = tile[row * (columns + KP_LINE_PAD) + column];
  }
}

/* Rows begin … begin+ROWS-1 to a tile; zeros from `end` on and behind `size` columns.  Asynchronous where the
 * rows are aligned. */
template <int ROWS, int COLUMNS, int THREADS>
__device__ static inline void kp_load_tile(kp_half *tile, const kp_half_rows &rows, int begin, int end) {
  constexpr int pieces = COLUMNS / 8, stride = COLUMNS + KP_LINE_PAD;
  if (!rows.aligned) {
    kp_load_ragged(tile, rows, ROWS, COLUMNS, begin, end);
    return;
  }
#pragma unroll
  for (int i = 0; i < (ROWS * pieces + THREADS - 1) / THREADS; i++) {
    const int item = i * THREADS + (int)threadIdx.x, row = item / pieces, column = item % pieces * 8;
    if (ROWS * pieces % THREADS != 0 && item >= ROWS * pieces) break;
    const bool inside = begin + row < end && column < rows.size;
    kp_copy_async<16>(tile + row * stride + column,
                      inside ? rows.base + (begin + row) * rows.stride + column : rows.base, inside);
  }
}

/* The way back. */
template <int ROWS, int COLUMNS, int THREADS>
__device__ static inline void kp_store_tile(const kp_half *tile, const kp_half_rows &rows, int begin,
                                            int end) {
  constexpr int pieces = COLUMNS / 8, stride = COLUMNS + KP_LINE_PAD;
  if (!rows.aligned) {
    kp_store_ragged(tile, rows, ROWS, COLUMNS, begin, end);
    return;
  }
  for (int item = threadIdx.x; item < ROWS * pieces; item += THREADS) {
    const int row = item / pieces, column = item % pieces * 8;
    if (begin + row < end && column < rows.size)
      *(uint4 *)(rows.base + (begin + row) * rows.stride + column) =
          *(const uint4 *)(tile + row * stride + column);
  }
}

#endif
