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

/* A row of P packs at element `at` of a lane's first channel.  FULL: there is no channel that a lane lacks.
 */
template <int P, bool FULL>
__device__ static inline void kp_warp_read(const void *rows, const kp_seam &s, int64_t at,
                                           kp_warp_vector to[P]) {
#pragma unroll
  for (int p = 0; p < P; p++)
    to[p] = kp_load_vector<kp_half, KP_WARP_VECTOR>(rows, at + p * KP_WARP_CHANNELS,
                                                    FULL || kp_warp_channel(p) < s.pitch);
}

template <bool FULL>
__device__ static inline void kp_warp_write(void *rows, const kp_seam &s, int64_t at, int p,
                                            const kp_warp_vector &value) {
  if (FULL || kp_warp_channel(p) < s.pitch)
    *(kp_warp_vector *)((kp_half *)rows + at + p * KP_WARP_CHANNELS) = value;
}

template <int P> __device__ static inline void kp_warp_clear(kp_warp_vector row[P]) {
#pragma unroll
  for (int p = 0; p < P; p++) row[p] = kp_zero_vector<kp_half, KP_WARP_VECTOR>();
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

/* Asks for a row to come nearer, 128 bytes a lane. */
__device__ static inline void kp_warp_prefetch(const void *rows, const kp_seam &s, int64_t n, bool there) {
  const int channel = (int)threadIdx.x % 32 * 64;
  if (there && channel < s.pitch)
    asm volatile("prefetch.global.L2 [%0];" ::"l"((const kp_half *)rows + n * s.pitch + channel));
}

/* Numbers of a lane's channels in shared memory, four and four apart so that banks do not collide. */
__device__ static inline float4 *kp_warp_quad(float *numbers, int p, int half) {
  return (float4 *)(numbers + p * KP_WARP_CHANNELS + half * 128) + threadIdx.x % 32;
}

__device__ static inline void kp_warp_get(const float *numbers, int p, float to[KP_WARP_VECTOR]) {
  const float4 a = *kp_warp_quad((float *)numbers, p, 0), b = *kp_warp_quad((float *)numbers, p, 1);
  to[0] = a.x, to[1] = a.y, to[2] = a.z, to[3] = a.w;
  to[4] = b.x, to[5] = b.y, to[6] = b.z, to[7] = b.w;
}

__device__ static inline void kp_warp_set(float *numbers, int p, const float from[KP_WARP_VECTOR]) {
  *kp_warp_quad(numbers, p, 0) = make_float4(from[0], from[1], from[2], from[3]);
  *kp_warp_quad(numbers, p, 1) = make_float4(from[4], from[5], from[6], from[7]);
}

__device__ static inline void kp_warp_get_half(const float *numbers, int p, int half, float to[4]) {
  const float4 a = *kp_warp_quad((float *)numbers, p, half);
  to[0] = a.x, to[1] = a.y, to[2] = a.z, to[3] = a.w;
}

__device__ static inline void kp_warp_set_half(float *numbers, int p, int half, const float from[4]) {
  *kp_warp_quad(numbers, p, half) = make_float4(from[0], from[1], from[2], from[3]);
}

/* Where channel c stands there. */
__device__ static inline int kp_warp_place(int c) {
  const int within = c % KP_WARP_CHANNELS, lane = within / KP_WARP_VECTOR, k = within % KP_WARP_VECTOR;
  return c - within + k / 4 * 128 + lane * 4 + k % 4;
}

/* Spreads C numbers for all warps of the block: `absent` where there is no tensor, 0 behind the last. */
template <int P>
__device__ static inline void kp_warp_spread(const kp_numbers &from, int C, float absent, float *to) {
  for (int c = threadIdx.x; c < P * KP_WARP_CHANNELS; c += blockDim.x)
    to[kp_warp_place(c)] = c >= C ? 0.0f : from.at == NULL ? absent : from[c];
}

/* Mean (of LayerNorm) and reciprocal deviation of a row. */
template <int P, bool FULL = false>
__device__ static inline float2 kp_warp_moments(const kp_seam &s, const float z[P][KP_WARP_VECTOR]) {
  float mean = 0, squares = 0;
  if (s.layer) {
#pragma unroll
    for (int p = 0; p < P; p++)
#pragma unroll
      for (int k = 0; k < KP_WARP_VECTOR; k++) mean += z[p][k];
    mean = kp_warp_sum(mean) / (float)s.C;
  }
#pragma unroll
  for (int p = 0; p < P; p++) {
    const int inside = s.C - kp_warp_channel(p);
    float of_pack = 0;
    if (FULL || inside >= KP_WARP_VECTOR) {
#pragma unroll
      for (int k = 0; k < KP_WARP_VECTOR; k++) of_pack += (z[p][k] - mean) * (z[p][k] - mean);
    } else {
#pragma unroll
      for (int k = 0; k < KP_WARP_VECTOR; k++)
        of_pack += k < inside ? (z[p][k] - mean) * (z[p][k] - mean) : 0.0f;
    }
    squares += of_pack;
  }
  return make_float2(mean, 1 / sqrtf(kp_warp_sum(squares) / (float)s.C + (float)s.epsilon));
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
