/* The curved seam on rows of bfloat16: what its forward and its backward kernel share.
 *
 * A block goes through a run of rows in tiles of KP_SEAM_TILE; each of its warps holds one row of the tile in
 * registers from the first read to the last write.  Inner products of the rows meet in shared memory, where
 * the scalar programs, some thousand dependent operations, run for all rows and groups of the tile side by
 * side while other blocks of the multiprocessor move rows. */
#ifndef KAPPA_BACKEND_CUDA_SEAM_WARP_CURVED_CUH
#define KAPPA_BACKEND_CUDA_SEAM_WARP_CURVED_CUH

#include "backend/cuda/seam_warp.cuh"

enum { KP_SEAM_TILE = 8, KP_SEAM_THREADS = 32 * KP_SEAM_TILE };

/* Whether these kernels take the rows of the seam: no update of three points, and groups of 1, 2, 4 ... 32
 * vectors. */
static inline bool kp_seam_fits_warps(const kp_seam &s) {
  if (s.triple || !kp_seam_is_curved(s) || !kp_warp_holds(s)) return false;
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

/* Without a tangent map z is x' itself: the flat difference from the origin. */
static inline kp_seam kp_seam_with_tangent(kp_seam s) {
  if (s.tangent == KP_SEAM_NONE) s.tangent = KP_SEAM_FLAT, s.given = KP_SEAM_ORIGIN, s.own = false;
  return s;
}

/* Groups of channels on a warp's lanes.  GROUPED: `lanes` lanes of a pack are a group; else the row is. */
template <int P, bool GROUPED> struct kp_warp_groups {
  static constexpr int SLOTS = GROUPED ? P : 1;
  int count, lanes;
  __device__ explicit kp_warp_groups(const kp_seam &s) {
    count = GROUPED ? s.update == KP_SEAM_CURVED ? s.update_kappa.groups : s.tangent_kappa.groups : 1;
    lanes = GROUPED ? s.C / count / KP_WARP_VECTOR : 32;
  }
  __device__ static constexpr int slot(int p) { return GROUPED ? p : 0; }
  /* The group of a pack's channels; one that is there for lanes behind the last. */
  __device__ int group(int p) const {
    if (!GROUPED) return 0;
    const int group = (p * 32 + (int)threadIdx.x % 32) / lanes;
    return group < count ? group : 0;
  }
  /* One lane of each group of a pack. */
  __device__ bool leads(int p) const {
    const int lane = threadIdx.x % 32;
    return GROUPED ? lane % lanes == 0 && (p * 32 + lane) / lanes < count : lane == 0 && p == 0;
  }
  /* The sum over a group's lanes of a pack, for all of them. */
  __device__ float sum(float x) const {
    if constexpr (GROUPED) {
      for (int offset = lanes / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
      return x;
    } else {
      return kp_warp_sum(x);
    }
  }
  /* Sums Q parts over each group of a row; those of a group go to Q places, groups are `stride` apart. */
  template <int Q> __device__ void gather(float (&parts)[SLOTS][Q], float *to, int stride) const {
#pragma unroll
    for (int slot = 0; slot < SLOTS; slot++) {
      const int group = GROUPED ? (slot * 32 + (int)threadIdx.x % 32) / lanes : 0;
      const bool there = group < count;
      kp_segment_sums<Q>(parts[slot], (GROUPED ? lanes : 32) / 2, 0, there ? Q : 0,
                         to + (there ? group : 0) * stride);
    }
  }
};

/* The place of row n in its sequence, for rows less than 2^31 apart. */
struct kp_seam_phase {
  int T, value;
  __device__ kp_seam_phase(int length, int64_t n) : T(length), value((int)(n % length)) {}
  __device__ void advance(int rows) { value = (int)((unsigned)(value + rows) % (unsigned)T); }
  __device__ void retreat(int rows) { value = (int)((unsigned)(value + T - rows % T) % (unsigned)T); }
  __device__ bool first() const { return value == 0; }
  __device__ bool last() const { return value + 1 == T; }
};

/* The given reference of row n, which is the first of its sequence or not. */
template <int P>
__device__ static inline void kp_warp_given(const kp_seam &s, int64_t n, bool first, bool there,
                                            kp_warp_vector to[P]) {
  if (s.given == KP_SEAM_SAME_ROW)
    kp_warp_fetch<P>(s.r, s, n, there, to);
  else if (s.given != KP_SEAM_ORIGIN && first)
    kp_warp_fetch<P>(s.carry, s, n / s.T, there && s.carry != NULL, to);
  else
    kp_warp_fetch<P>(s.r, s, n - 1, there && s.given != KP_SEAM_ORIGIN, to);
}

/* What is carried in front of row n, the first of a sequence, as its own reference. */
template <int P>
__device__ static inline void kp_warp_carried(const kp_seam &s, int64_t n, bool there, kp_warp_vector to[P]) {
  kp_warp_fetch<P>(s.own_carry, s, n / s.T, there && s.own_carry != NULL, to);
}

/* Makes the compiler hold a row as it is, and not as floats that it will want again. */
template <int P> __device__ static inline void kp_warp_forget(kp_warp_vector row[P]) {
#pragma unroll
  for (int p = 0; p < P; p++)
#pragma unroll
    for (int k = 0; k < KP_WARP_VECTOR / 2; k++) asm volatile("" : "+r"(row[p].pair[k]));
}

/* The curvatures of a row, from global memory into shared: the programs that wait for them are long enough.
 */
__device__ static inline void kp_seam_keep_kappa(const kp_curvatures &kappa, int64_t n, bool there,
                                                 int groups, float *to) {
#pragma unroll 1
  for (int group = threadIdx.x % 32; group < groups; group += 32)
    to[group] = there ? kappa.at(n, group) : 0.0f;
}

/* The thread's first scalar task of a tile: another warp from block to block of a multiprocessor and from
 * tile to tile, so that its four schedulers share the programs. */
__device__ static inline int kp_seam_first_task(int tile) {
  return (int)(threadIdx.x + 32 * (tile + blockIdx.x + blockIdx.x / 128)) % KP_SEAM_THREADS;
}

/* Blocks that are on the device at once, at most `most`. */
template <typename F> static int kp_seam_places(const kp_cuda *cuda, F kernel, size_t shared, int64_t most) {
  int resident = 1;
  if (cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, KP_SEAM_THREADS, shared) !=
          cudaSuccess ||
      resident < 1)
    resident = 1;
  return kp_blocks((int64_t)resident * cuda->processors, 1, most);
}

/* Whether the kernels take the call. */
bool kp_seam_fits_warps_forward(const kp_call *call, const kp_seam &s);
bool kp_seam_fits_warps_backward(const kp_call *call, const kp_seam &s);
kp_status kp_seam_warps_forward(const kp_call *call, const kp_seam &s, kp_error *error);
kp_status kp_seam_warps_backward(const kp_call *call, const kp_seam &s, kp_error *error);

#endif
