/* What the matrix units do with one stage of operands in shared memory: a tile of 128 by 128 results of a
 * block of 256 threads, 64 deep.  grouped_linear_half.cu tells how a stage is laid out.
 *
 * On Hopper (sm_90a) two groups of four warps have 64 rows each and read both operands from shared memory;
 * elsewhere eight warps have 64 by 32 results and read fragments into registers first. */
#ifndef KAPPA_BACKEND_CUDA_GROUPED_LINEAR_UNITS_CUH
#define KAPPA_BACKEND_CUDA_GROUPED_LINEAR_UNITS_CUH

#include <cuda_bf16.h>
#include <stdint.h>

enum {
  KP_TILE = 128,
  KP_TILE_DEPTH = 64,
  KP_TILE_THREADS = 256,
  KP_OPERAND_BYTES = KP_TILE * KP_TILE_DEPTH * 2,
  KP_STAGE_BYTES = 2 * KP_OPERAND_BYTES,
  KP_PANEL_BYTES = 64 * 128,
};

/* Where 16-byte chunk `chunk` of a row of 128 bytes is. */
__device__ static inline uint32_t kp_chunk_place(int row, int chunk) {
  return (uint32_t)(row * 128 + ((chunk ^ (row & 7)) << 4));
}

/* A thread's results, as RUNS rows of pairs that are 8 columns apart. */
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
enum { KP_RUNS = 2, KP_PAIRS = 16 };
#else
enum { KP_RUNS = 8, KP_PAIRS = 4 };
#endif

struct kp_tile_results {
  float c[64];
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* Row of a run and first column of its pairs, in the tile. */
__device__ static inline int kp_run_row(int run) {
  return threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + 8 * run;
}
__device__ static inline int kp_run_column() {
  return threadIdx.x % 4 * 2;
}
__device__ static inline float2 kp_pair(const kp_tile_results &r, int run, int pair) {
  return make_float2(r.c[4 * pair + 2 * run], r.c[4 * pair + 2 * run + 1]);
}

/* An operand's place as the units want it: rows of 128 bytes whose chunks are exchanged, groups of 8 of them
 * 1024 bytes apart; where rows of the operand are contiguous, panels of 64 of them PANEL_BYTES apart. */
__device__ static inline uint64_t kp_describe_operand(uint32_t address) {
  return (uint64_t)(address >> 4 & 0x3fff) | (uint64_t)(KP_PANEL_BYTES >> 4) << 16 |
         (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}

template <int A_ROWS, int B_ROWS>
__device__ static inline void kp_multiply_64_128_16(float *c, uint64_t a, uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
               "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
               "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
               "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
               "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
               "%64, %65, 1, 1, 1, %66, %67;\n"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]),
                 "+f"(c[7]), "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]),
                 "+f"(c[14]), "+f"(c[15]), "+f"(c[16]), "+f"(c[17]), "+f"(c[18]), "+f"(c[19]), "+f"(c[20]),
                 "+f"(c[21]), "+f"(c[22]), "+f"(c[23]), "+f"(c[24]), "+f"(c[25]), "+f"(c[26]), "+f"(c[27]),
                 "+f"(c[28]), "+f"(c[29]), "+f"(c[30]), "+f"(c[31]), "+f"(c[32]), "+f"(c[33]), "+f"(c[34]),
                 "+f"(c[35]), "+f"(c[36]), "+f"(c[37]), "+f"(c[38]), "+f"(c[39]), "+f"(c[40]), "+f"(c[41]),
                 "+f"(c[42]), "+f"(c[43]), "+f"(c[44]), "+f"(c[45]), "+f"(c[46]), "+f"(c[47]), "+f"(c[48]),
                 "+f"(c[49]), "+f"(c[50]), "+f"(c[51]), "+f"(c[52]), "+f"(c[53]), "+f"(c[54]), "+f"(c[55]),
                 "+f"(c[56]), "+f"(c[57]), "+f"(c[58]), "+f"(c[59]), "+f"(c[60]), "+f"(c[61]), "+f"(c[62]),
                 "+f"(c[63])
               : "l"(a), "l"(b), "n"(A_ROWS), "n"(B_ROWS));
}

/* Starts the products; kp_finish_stage waits for them. */
template <bool A_ROWS, bool B_ROWS>
__device__ static inline void kp_multiply_stage(kp_tile_results &r, uint32_t stage) {
  const uint32_t a = stage + threadIdx.x / 128 * KP_PANEL_BYTES, b = stage + KP_OPERAND_BYTES;
#pragma unroll
  for (int i = 0; i < 64; i++) asm volatile("" : "+f"(r.c[i])::"memory");
  asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
#pragma unroll
  for (int step = 0; step < KP_TILE_DEPTH / 16; step++)
    kp_multiply_64_128_16<A_ROWS, B_ROWS>(r.c, kp_describe_operand(a + step * (A_ROWS ? 2048 : 32)),
                                          kp_describe_operand(b + step * (B_ROWS ? 2048 : 32)));
  asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}

__device__ static inline void kp_finish_stage(kp_tile_results &r) {
  asm volatile("wgmma.wait_group.sync.aligned 0;\n" ::: "memory");
#pragma unroll
  for (int i = 0; i < 64; i++) asm volatile("" : "+f"(r.c[i])::"memory");
}

/* Before the barrier: what this thread wrote to shared memory is seen by the units. */
__device__ static inline void kp_show_units() {
  asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
}

#else

__device__ static inline int kp_run_row(int run) {
  return threadIdx.x / 32 % 2 * 64 + run * 8 + threadIdx.x % 32 / 4;
}
__device__ static inline int kp_run_column() {
  return threadIdx.x / 64 * 32 + threadIdx.x % 4 * 2;
}
/* c is (4 row tiles, 4 column tiles, 2 rows, 2 columns). */
__device__ static inline float2 kp_pair(const kp_tile_results &r, int run, int pair) {
  const int i = run / 2 * 16 + pair * 4 + run % 2 * 2;
  return make_float2(r.c[i], r.c[i + 1]);
}

template <bool TRANSPOSED> __device__ static inline void kp_load_fragments(uint32_t *r, uint32_t address) {
  if (TRANSPOSED)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address));
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address));
}

__device__ static inline void kp_multiply_16_8_16(float *c, const uint32_t *a, const uint32_t *b) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
               "{%0,%1,%2,%3};\n"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* 16 rows from `row` on by 16 of the depth: four matrices of 8 by 8, in the order that A or B wants. */
template <bool ROWS_CONTIGUOUS, bool IS_A>
__device__ static inline void kp_load_16_16(uint32_t *r, uint32_t operand, int row, int step) {
  const int lane = threadIdx.x % 32, matrix = lane / 8;
  const int row_half = IS_A ? matrix & 1 : matrix >> 1, depth_half = IS_A ? matrix >> 1 : matrix & 1;
  if (ROWS_CONTIGUOUS) {
    const int chunk = row / 8 + row_half, d = step * 16 + depth_half * 8 + lane % 8;
    kp_load_fragments<true>(r, operand + chunk / 8 * KP_PANEL_BYTES + kp_chunk_place(d, chunk % 8));
  } else {
    kp_load_fragments<false>(r,
                             operand + kp_chunk_place(row + row_half * 8 + lane % 8, step * 2 + depth_half));
  }
}

template <bool A_ROWS, bool B_ROWS>
__device__ static inline void kp_multiply_stage(kp_tile_results &r, uint32_t stage) {
  const int warp = threadIdx.x / 32, row = warp % 2 * 64, column = warp / 2 * 32;
#pragma unroll
  for (int step = 0; step < KP_TILE_DEPTH / 16; step++) {
    uint32_t a[4][4], b[2][4];
#pragma unroll
    for (int i = 0; i < 4; i++) kp_load_16_16<A_ROWS, true>(a[i], stage, row + 16 * i, step);
#pragma unroll
    for (int j = 0; j < 2; j++)
      kp_load_16_16<B_ROWS, false>(b[j], stage + KP_OPERAND_BYTES, column + 16 * j, step);
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int j = 0; j < 4; j++) kp_multiply_16_8_16(&r.c[16 * i + 4 * j], a[i], &b[j / 2][j % 2 * 2]);
  }
}

__device__ static inline void kp_finish_stage(kp_tile_results &) {}
__device__ static inline void kp_show_units() {}

#endif
#endif
