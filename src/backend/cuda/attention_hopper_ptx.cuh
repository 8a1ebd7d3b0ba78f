/* Instructions of compute capability 9.0a that CUDA C++ has no words for, one function each: barriers of
 * asynchronous copies, the tensor copy engine, matrix products of a warpgroup, registers by role.
 *
 * A tile of rows of 64 bfloat16 lies in shared memory as panels: row r of a panel at byte 128·r, its 16-byte
 * pieces exchanged within the row by the 128-byte swizzle (piece p of row r at place p xor r mod 8), which is
 * how the copy engine writes and the matrix unit reads it.  A panel starts at a multiple of 1024 bytes. */
#ifndef KAPPA_BACKEND_CUDA_ATTENTION_HOPPER_PTX_CUH
#define KAPPA_BACKEND_CUDA_ATTENTION_HOPPER_PTX_CUH

#include <cuda.h>
#include <stdint.h>

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* A number that is the same in all lanes of the warp, so that the compiler knows it: what describes tiles to
 * the matrix unit then stays in uniform registers. */
__device__ static inline int kp_uniform(int x) {
  return __shfl_sync(0xffffffffu, x, 0);
}

__device__ static inline uint32_t kp_shared_address(const void *at) {
  return (uint32_t)__cvta_generic_to_shared(at);
}

/* ---- barriers ---- */

__device__ static inline void kp_barrier_create(uint64_t *barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(kp_shared_address(barrier)), "r"(arrivals));
}

/* Makes the barriers that this thread created visible to the copy engine. */
__device__ static inline void kp_barrier_publish() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ static inline void kp_barrier_arrive(uint64_t *barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(kp_shared_address(barrier)) : "memory");
}

/* Arrives, and announces so many bytes of copies. */
__device__ static inline void kp_barrier_expect(uint64_t *barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(kp_shared_address(barrier)),
               "r"(bytes)
               : "memory");
}

__device__ static inline bool kp_barrier_try(uint64_t *barrier, int parity) {
  uint32_t done;
  asm volatile("{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}"
               : "=r"(done)
               : "r"(kp_shared_address(barrier)), "r"(parity)
               : "memory");
  return done != 0;
}

/* Waits for the end of the phase of that parity.  No trap here: code that may end a thread keeps the compiler
 * from giving a role the registers that it raised. */
__device__ static inline void kp_barrier_wait(uint64_t *barrier, int parity) {
  for (int polls = 0; polls < 4000000 && !kp_barrier_try(barrier, parity);) polls++;
}

/* The hardware barrier `id` among `threads` threads: wait for it, or arrive without waiting. */
__device__ static inline void kp_named_wait(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

__device__ static inline void kp_named_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* ---- copies ---- */

/* A box of a tensor map of three dimensions (column, row, sequence) to shared memory. */
__device__ static inline void kp_copy_box(void *to, const CUtensorMap *map, uint64_t *barrier, int column,
                                          int row, int sequence) {
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
               "[%0], [%1, {%3, %4, %5}], [%2];" ::"r"(kp_shared_address(to)),
               "l"(map), "r"(kp_shared_address(barrier)), "r"(column), "r"(row), "r"(sequence)
               : "memory");
}

/* Contiguous bytes, a multiple of 16 at a multiple of 16. */
__device__ static inline void kp_copy_bytes(void *to, const void *from, int bytes, uint64_t *barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
          kp_shared_address(to)),
      "l"(from), "r"(bytes), "r"(kp_shared_address(barrier))
      : "memory");
}

/* Contiguous bytes from shared memory, copied or, of floats, added to what is there; several of them make a
 * group of the thread. */
__device__ static inline void kp_store_bytes(void *to, const void *from, int bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to),
               "r"(kp_shared_address(from)), "r"(bytes)
               : "memory");
}

__device__ static inline void kp_add_floats(float *to, const float *from, int count) {
  asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(to),
               "r"(kp_shared_address(from)), "r"(count * 4)
               : "memory");
}

/* Ends a group and waits until it and all before are done, in memory. */
__device__ static inline void kp_finish_copies() {
  asm volatile("cp.async.bulk.commit_group;\n\tcp.async.bulk.wait_group 0;" ::: "memory");
}

/* Between ordinary accesses and those of the copy engine or the matrix unit. */
__device__ static inline void kp_fence_async() {
  asm volatile("fence.proxy.async;" ::: "memory");
}

/* A number that blocks tell each other: what was written before it is seen after it. */
__device__ static inline int kp_read_signal(const int *at) {
  int value;
  asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(at) : "memory");
  return value;
}

__device__ static inline void kp_write_signal(int *at, int value) {
  asm volatile("st.release.gpu.global.s32 [%0], %1;" ::"l"(at), "r"(value) : "memory");
}

/* Four matrices of 8 by 8 to shared memory; lane l gives where row l % 8 of matrix l / 8 is. */
__device__ static inline void kp_store_matrices(void *to, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  asm volatile(
      "stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(kp_shared_address(to)), "r"(a),
      "r"(b), "r"(c), "r"(d)
      : "memory");
}

__device__ static inline void kp_prefetch_map(const CUtensorMap *map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/* ---- registers ---- */

template <int COUNT> __device__ static inline void kp_registers_raise() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

template <int COUNT> __device__ static inline void kp_registers_lower() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}

/* ---- special functions, one instruction each ---- */

__device__ static inline float kp_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ static inline float kp_log2(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ static inline float kp_inverse_root(float x) {
  float y;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/* The larger one; a NaN wins. */
__device__ static inline float kp_larger(float x, float y) {
  float z;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y));
  return z;
}

/* The smaller one; a NaN wins. */
__device__ static inline float kp_smaller(float x, float y) {
  float z;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y));
  return z;
}

/* ---- matrix products of a warpgroup ---- */

/* Describes a tile for the matrix unit.  `group` is the distance of groups of 8 rows; `panel` that of panels,
 * read only where the tile is transposed and wider than one. */
__device__ static inline uint64_t kp_describe(const void *at, int panel, int group = 1024) {
  const uint64_t address = kp_shared_address(at);
  return (address & 0x3ffff) >> 4 | (uint64_t)(panel >> 4) << 16 | (uint64_t)(group >> 4) << 32 | 1ull << 62;
}

/* The same tile from so many bytes on. */
__device__ static inline uint64_t kp_describe_from(uint64_t tile, int bytes) {
  return (tile & 0xffffffff00000000ull) | ((uint32_t)tile + (uint32_t)(bytes / 16));
}

__device__ static inline void kp_wgmma_begin() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ static inline void kp_wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Waits until at most `PENDING` committed groups are unfinished. */
template <int PENDING> __device__ static inline void kp_wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

/* d (64 rows, 64 or 128 columns) = [d +] A B, 16 deep: A from shared memory, there as (rows, depth) or
 * transposed, or from registers; B from shared memory, there as (columns, depth), or transposed as (depth,
 * columns).  Thread t of the warpgroup holds of d
 * the rows 16·(t/32) + t%32/4 (+8: elements 4j+2, 4j+3) and the columns 8j + 2·(t%4) (+1). */
template <bool B_TRANSPOSED, bool A_TRANSPOSED = false>
__device__ static inline void kp_wgmma(float (&d)[32], uint64_t a, uint64_t b, int accumulate) {
  asm volatile("{.reg .pred p; setp.ne.b32 p, %34, 0; wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
               "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
               "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
               "}, %32, %33, p, 1, 1, %35, %36;}"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
                 "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),
                 "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]),
                 "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
                 "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
               : "l"(a), "l"(b), "r"(accumulate), "n"(A_TRANSPOSED ? 1 : 0), "n"(B_TRANSPOSED ? 1 : 0));
}

template <bool B_TRANSPOSED>
__device__ static inline void kp_wgmma(float (&d)[32], const uint32_t (&a)[4], uint64_t b, int accumulate) {
  asm volatile("{.reg .pred p; setp.ne.b32 p, %37, 0; wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
               "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
               "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
               "}, {%32, %33, %34, %35}, %36, p, 1, 1, %38;}"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
                 "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),
                 "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]),
                 "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
                 "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate),
                 "n"(B_TRANSPOSED ? 1 : 0));
}

template <bool B_TRANSPOSED>
__device__ static inline void kp_wgmma(float (&d)[64], uint64_t a, uint64_t b, int accumulate) {
  asm volatile("{.reg .pred p; setp.ne.b32 p, %66, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
               "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
               "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
               "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
               "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
               "}, %64, %65, p, 1, 1, 0, %67;}"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
                 "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),
                 "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]),
                 "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
                 "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]),
                 "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]),
                 "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]),
                 "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),
                 "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]),
                 "+f"(d[63])
               : "l"(a), "l"(b), "r"(accumulate), "n"(B_TRANSPOSED ? 1 : 0));
}

template <bool B_TRANSPOSED>
__device__ static inline void kp_wgmma(float (&d)[64], const uint32_t (&a)[4], uint64_t b, int accumulate) {
  asm volatile(
      "{.reg .pred p; setp.ne.b32 p, %69, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
      "}, {%64, %65, %66, %67}, %68, p, 1, 1, %70;}"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
        "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
        "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]),
        "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]),
        "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]),
        "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]),
        "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]), "+f"(d[49]), "+f"(d[50]),
        "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), "+f"(d[56]), "+f"(d[57]),
        "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(B_TRANSPOSED ? 1 : 0));
}

#endif
#endif
