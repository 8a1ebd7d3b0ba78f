/* The seam by warps: what its kernels share that hold a row of bfloat16 in the registers of one warp, without
 * shared memory or barriers between rows. */
#ifndef KAPPA_BACKEND_CUDA_SEAM_WARP_CUH
#define KAPPA_BACKEND_CUDA_SEAM_WARP_CUH

#include "backend/cuda/seam.cuh"

enum { KP_WARP_VECTOR = 8, KP_WARPS = 4, KP_WARP_CHANNELS = 32 * KP_WARP_VECTOR, KP_WARP_PACKS = 4 };
using kp_warp_vector = kp_vector<kp_half, KP_WARP_VECTOR>;

/* The channels of a lane: pack p is a warp's vectors further. */
__device__ static inline int kp_warp_channel(int p) {
  return (p * 32 + (int)threadIdx.x % 32) * KP_WARP_VECTOR;
}

template <int P>
__device__ static inline void kp_warp_fetch(const void *rows, const kp_seam &s, int64_t n, bool there,
                                            kp_warp_vector to[P]) {
#pragma unroll
  for (int p = 0; p < P; p++)
    to[p] = kp_load_vector<kp_half, KP_WARP_VECTOR>(rows, n * s.pitch + kp_warp_channel(p),
                                                    there && kp_warp_channel(p) < s.pitch);
}

__device__ static inline void kp_warp_store(void *rows, const kp_seam &s, int64_t n, int p,
                                            const kp_warp_vector &value) {
  if (kp_warp_channel(p) < s.pitch)
    *(kp_warp_vector *)((kp_half *)rows + n * s.pitch + kp_warp_channel(p)) = value;
}

/* Whether rows are made of whole vectors, and few enough for a warp. */
static inline bool kp_warp_holds(const kp_seam &s) {
  return s.pitch % KP_WARP_VECTOR == 0 && s.pitch <= KP_WARP_PACKS * KP_WARP_CHANNELS;
}

/* Packs of a lane. */
static inline int kp_warp_packs(const kp_seam &s) {
  return (s.pitch + KP_WARP_CHANNELS - 1) / KP_WARP_CHANNELS;
}

/* Blocks that are on the device at once, at most `most`, and no more than there are rows for. */
template <typename F>
static int kp_warp_blocks(const kp_seam &s, const kp_cuda *cuda, F kernel, size_t shared, int64_t most) {
  int resident = 1;
  if (cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, 32 * KP_WARPS, shared) !=
          cudaSuccess ||
      resident < 1)
    resident = 1;
  return kp_blocks(s.rows, KP_WARPS, kp_blocks((int64_t)resident * cuda->processors, 1, most));
}

#endif
