/* Instructions for clusters of blocks that CUDA C++ has no words for, one function each.  Shared memory is
 * named by its address in this block; the same address is the same place of every other one. */
#ifndef KAPPA_BACKEND_CUDA_CLUSTER_CUH
#define KAPPA_BACKEND_CUDA_CLUSTER_CUH

#include <stdint.h>

#include "backend/cuda/kernel.cuh"

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900

__device__ static inline uint32_t kp_shared_at(const void *shared) {
  return (uint32_t)__cvta_generic_to_shared(shared);
}

__device__ static inline int kp_cluster_rank() {
  int rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

__device__ static inline uint4 kp_load_shared(uint32_t at) {
  uint4 pack;
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(pack.x), "=r"(pack.y), "=r"(pack.z), "=r"(pack.w)
               : "r"(at));
  return pack;
}

/* In one piece: the compiler would make four stores of a pack whose alignment it cannot see. */
__device__ static inline void kp_store_global(kp_half *to, const uint4 &pack) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(pack.x), "r"(pack.y), "r"(pack.z),
               "r"(pack.w)
               : "memory");
}

template <int PENDING> __device__ static inline void kp_wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

/* All threads of the cluster. */
__device__ static inline void kp_cluster_meet() {
  asm volatile("barrier.cluster.arrive.release;\n\tbarrier.cluster.wait.acquire;" ::: "memory");
}

/* A barrier whose phases end when so many bytes have arrived after it was armed. */
__device__ static inline void kp_create_barrier(uint32_t barrier) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;\n\tfence.mbarrier_init.release.cluster;" ::"r"(barrier)
               : "memory");
}

__device__ static inline void kp_arm_barrier(uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}

__device__ static inline void kp_wait_for_phase(uint32_t barrier, int parity) {
  uint32_t done = 0;
  for (int polls = 0; polls < 4000000 && done == 0; polls++)
    asm volatile("{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}"
                 : "=r"(done)
                 : "r"(barrier), "r"(parity)
                 : "memory");
}

/* Sends two numbers to what is `at` in block `rank`, and their bytes to its barrier: nobody has to wait for
 * other stores, as before a barrier of the cluster. */
__device__ static inline void kp_send_there(uint32_t at, uint32_t barrier, int rank, float2 value) {
  asm volatile(
      "{.reg .b32 there, bar;\n\t"
      "mapa.shared::cluster.u32 there, %0, %2;\n\t"
      "mapa.shared::cluster.u32 bar, %1, %2;\n\t"
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [there], {%3, %4}, [bar];}" ::"r"(at),
      "r"(barrier), "r"(rank), "f"(value.x), "f"(value.y)
      : "memory");
}

#endif
#endif
