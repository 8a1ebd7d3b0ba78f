/* The curved seam by warps: groups of channels, curvatures and references, as forward and backward see them.
 *
 * A warp goes through a run of rows in tiles of KP_WARP_TILE.  The scalar programs are some hundred dependent
 * operations, far more than a lane's share of a row: so the inner products of all rows and groups of a tile
 * are gathered first, then each lane runs the programs of one row and group, and then the rows are read
 * again, from the caches, to be combined. */
#ifndef KAPPA_BACKEND_CUDA_SEAM_WARP_CURVED_CUH
#define KAPPA_BACKEND_CUDA_SEAM_WARP_CURVED_CUH

#include "backend/cuda/seam_warp.cuh"

enum { KP_WARP_TILE = 8 };

/* Whether these kernels take the seam: no update of three points, and groups of 1, 2, 4 ... 32 vectors. */
static inline bool kp_seam_fits_warps(const kp_seam &s) {
  if (s.tangent == KP_SEAM_NONE || s.triple || !kp_seam_is_curved(s) || !kp_warp_holds(s)) return false;
  const int update = s.update_kappa.groups, tangent = s.tangent_kappa.groups;
  const int groups = update > tangent ? update : tangent;
  if ((s.update == KP_SEAM_CURVED && update != groups) || (s.tangent == KP_SEAM_CURVED && tangent != groups))
    return false;
  const int size = s.C / groups, lanes = size / KP_WARP_VECTOR;
  return groups == 1 ||
         (size % KP_WARP_VECTOR == 0 && lanes >= 1 && lanes <= 32 && (lanes & (lanes - 1)) == 0);
}

static inline int kp_warp_group_count(const kp_seam &s) {
  return s.update == KP_SEAM_CURVED ? s.update_kappa.groups : s.tangent_kappa.groups;
}

/* Groups of channels on a warp's lanes.  GROUPED: `lanes` lanes of a pack are a group; else the row is. */
template <int P, bool GROUPED> struct kp_warp_groups {
  static constexpr int SLOTS = GROUPED ? P : 1;
  int count, lanes;
  __device__ explicit kp_warp_groups(const kp_seam &s) {
    count = s.update == KP_SEAM_CURVED ? s.update_kappa.groups : s.tangent_kappa.groups;
    lanes = s.C / count / KP_WARP_VECTOR;
  }
  __device__ static constexpr int slot(int p) { return GROUPED ? p : 0; }
  /* The group of a slot's channels; one that is there for lanes behind the last. */
  __device__ int group(int slot) const {
    if (!GROUPED) return 0;
    const int group = (slot * 32 + (int)threadIdx.x % 32) / lanes;
    return group < count ? group : 0;
  }
  /* One lane of each group. */
  __device__ bool leads(int slot) const {
    const int lane = threadIdx.x % 32;
    return GROUPED ? lane % lanes == 0 && (slot * 32 + lane) / lanes < count : lane == 0;
  }
  __device__ float sum(float x) const {
    if constexpr (GROUPED) {
      for (int offset = lanes / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
      return x;
    } else {
      return kp_warp_sum(x);
    }
  }
  /* Sums each of Q parts over the groups of row i of a tile and leaves them in to (TILE, count, Q). */
  template <int Q> __device__ void gather(const float (&parts)[SLOTS][Q], int i, float *to) const {
#pragma unroll
    for (int slot = 0; slot < SLOTS; slot++) {
      float sums[Q];
#pragma unroll
      for (int q = 0; q < Q; q++) sums[q] = sum(parts[slot][q]);
      if (!leads(slot)) continue;
#pragma unroll
      for (int q = 0; q < Q; q++) to[(i * count + group(slot)) * Q + q] = sums[q];
    }
  }
};

/* The given reference of row n. */
template <int P>
__device__ static inline void kp_warp_given(const kp_seam &s, int64_t n, bool there, kp_warp_vector to[P]) {
  const bool starts = s.given != KP_SEAM_SAME_ROW && n % s.T == 0;
  const void *rows = s.given == KP_SEAM_ORIGIN ? NULL : starts ? s.carry : s.r;
  const int64_t row = starts ? n / s.T : s.given == KP_SEAM_SAME_ROW ? n : n - 1;
  kp_warp_fetch<P>(rows, s, row, there && rows != NULL, to);
}

/* What is carried in front of row n, the first of a sequence, as its own reference. */
template <int P>
__device__ static inline void kp_warp_carried(const kp_seam &s, int64_t n, kp_warp_vector to[P]) {
  kp_warp_fetch<P>(s.own_carry, s, n / s.T, s.own_carry != NULL, to);
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

/* Where channel c stands there. */
__device__ static inline int kp_warp_place(int c) {
  const int within = c % KP_WARP_CHANNELS, lane = within / KP_WARP_VECTOR, k = within % KP_WARP_VECTOR;
  return c - within + k / 4 * 128 + lane * 4 + k % 4;
}

/* Spreads C numbers for all warps of the block: `absent` where there is no tensor, 0 behind the last. */
template <int P>
__device__ static inline void kp_warp_spread(const kp_numbers &from, int C, float absent, float *to) {
  for (int c = threadIdx.x; c < P * KP_WARP_CHANNELS; c += 32 * KP_WARPS)
    to[kp_warp_place(c)] = c >= C ? 0.0f : from.at == NULL ? absent : from[c];
}

kp_status kp_seam_warps_forward(const kp_call *call, const kp_seam &s, kp_error *error);
/* Whether the backward kernel does: a curved update's gradients need both places, and no stream's own. */
bool kp_seam_fits_warps_backward(const kp_call *call, const kp_seam &s);
kp_status kp_seam_warps_backward(const kp_call *call, const kp_seam &s, kp_error *error);

#endif
