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

/* All threads of the cluster; what they wrote to shared memory before they arrive is seen after the wait. */
__device__ static inline void kp_cluster_arrive() {
  asm volatile("barrier.cluster.arrive.release;" ::: "memory");
}

__device__ static inline void kp_cluster_wait() {
  asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
}

/* Writes to what is `at` in block `rank`. */
__device__ static inline void kp_store_there(uint32_t at, int rank, float2 value) {
  asm volatile("{.reg .b32 there;\n\t"
               "mapa.shared::cluster.u32 there, %0, %1;\n\t"
               "st.shared::cluster.v2.f32 [there], {%2, %3};}" ::"r"(at),
               "r"(rank), "f"(value.x), "f"(value.y)
               : "memory");
}

#endif
#endif
