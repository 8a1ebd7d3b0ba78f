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

/* Groups of channels on a warp's lanes.  GROUPED: a power of two of a pack's lanes is a group; else the row
 * is. FULL: no lane lacks a group. */
template <int P, bool FULL, bool GROUPED> struct kp_warp_groups {
  static constexpr int SLOTS = GROUPED ? P : 1;
  int count, lanes, shift;
  __device__ explicit kp_warp_groups(const kp_seam &s) {
    count = GROUPED ? s.update == KP_SEAM_CURVED ? s.update_kappa.groups : s.tangent_kappa.groups : 1;
    lanes = GROUPED ? s.C / count / KP_WARP_VECTOR : 32;
    shift = 31 - __clz(lanes);
  }
  __device__ static constexpr int slot(int p) { return GROUPED ? p : 0; }
  /* Whether a pack's channels are in a group, and in which; the first for lanes behind the last. */
  __device__ bool inside(int p) const { return FULL || !GROUPED || lane_group(p) < count; }
  __device__ int group(int p) const { return GROUPED && inside(p) ? lane_group(p) : 0; }
  __device__ int lane_group(int p) const { return (p * 32 + (int)threadIdx.x % 32) >> shift; }
  /* One lane of each group of a pack. */
  __device__ bool leads(int p) const {
    return GROUPED ? (threadIdx.x & (lanes - 1)) == 0 && inside(p) : threadIdx.x % 32 == 0 && p == 0;
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
    for (int slot = 0; slot < SLOTS; slot++)
      kp_segment_sums<Q>(parts[slot], (GROUPED ? lanes : 32) / 2, 0, inside(slot) ? Q : 0,
                         to + group(slot) * stride);
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

/* Element of a lane's first channel of row n. */
__device__ static inline int64_t kp_warp_at(const kp_seam &s, int64_t n) {
  return n * s.pitch + (int)threadIdx.x % 32 * KP_WARP_VECTOR;
}

/* A row of what is carried in front of the sequence of row n: zeros where there is nothing. */
template <int P, bool FULL>
__device__ static inline void kp_warp_carried(const void *rows, const kp_seam &s, int64_t n,
                                              kp_warp_vector to[P]) {
  if (rows == NULL)
    kp_warp_clear<P>(to);
  else
    kp_warp_read<P, FULL>(rows, s, kp_warp_at(s, n / s.T), to);
}

/* The given reference of row n, which is the first of its sequence or not; `at` as above. */
template <int P, bool FULL>
__device__ static inline void kp_warp_given(const kp_seam &s, int64_t n, int64_t at, bool first,
                                            kp_warp_vector to[P]) {
  const bool same = s.given == KP_SEAM_SAME_ROW;
  if (s.given == KP_SEAM_ORIGIN)
    kp_warp_clear<P>(to);
  else if (first && !same)
    kp_warp_carried<P, FULL>(s.carry, s, n, to);
  else
    kp_warp_read<P, FULL>(s.r, s, same ? at : at - s.pitch, to);
}

/* Makes the compiler hold a row as it is, and not as floats that it will want again. */
template <int P> __device__ static inline void kp_warp_forget(kp_warp_vector row[P]) {
#pragma unroll
  for (int p = 0; p < P; p++)
#pragma unroll
    for (int k = 0; k < KP_WARP_VECTOR / 2; k++) asm volatile("" : "+r"(row[p].pair[k]));
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
