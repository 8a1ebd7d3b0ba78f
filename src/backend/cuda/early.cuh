/* Kernels that begin before the one in front of them in the queue has ended (Hopper's programmatic launch).
 *
 * Until kp_wait_for_previous a kernel may read only what no kernel of the same run writes: parameters, and of
 * caches what earlier passes left.  After it everything that was submitted before is done and seen.  Before
 * Hopper, and of a launch that is not early, both calls do nothing. */
#ifndef KAPPA_BACKEND_CUDA_EARLY_CUH
#define KAPPA_BACKEND_CUDA_EARLY_CUH

#include "backend/cuda/kernel.cuh"

/* Lets the kernel behind this one begin, once all blocks have come here. */
__device__ static inline void kp_let_next_begin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

__device__ static inline void kp_wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* 16 bytes of a parameter, read where this stands and not later. */
__device__ static inline uint4 kp_read_parameter(const void *at, bool inside) {
  uint4 v = make_uint4(0, 0, 0, 0);
  if (inside)
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(at));
  return v;
}

struct kp_early_launch {
  dim3 grid, block;
  size_t shared;
  bool early;       /* the kernel in front writes no parameters, nor do those that it let begin early */
  unsigned cluster; /* blocks along x that share their memory; 0 or 1: none do */
};

template <typename... P>
static inline kp_status kp_launch_early(const kp_cuda *cuda, const char *name, const kp_early_launch &l,
                                        void (*kernel)(P...), kp_error *error, const P &...arguments) {
  cudaLaunchConfig_t config = {};
  cudaLaunchAttribute attributes[2];
  config.gridDim = l.grid, config.blockDim = l.block;
  config.dynamicSmemBytes = l.shared;
  config.stream = cuda->stream;
  config.attrs = attributes;
  if (l.early && cuda->major >= 9) {
    cudaLaunchAttribute *a = &attributes[config.numAttrs++];
    a->id = cudaLaunchAttributeProgrammaticStreamSerialization;
    a->val.programmaticStreamSerializationAllowed = 1;
  }
  if (l.cluster > 1) {
    cudaLaunchAttribute *a = &attributes[config.numAttrs++];
    a->id = cudaLaunchAttributeClusterDimension;
    a->val.clusterDim.x = l.cluster, a->val.clusterDim.y = 1, a->val.clusterDim.z = 1;
  }
  return kp_cuda_check(cudaLaunchKernelEx(&config, kernel, arguments...), name, error);
}

#endif
