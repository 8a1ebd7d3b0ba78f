/* Rows spread over a block, and their sums: what the kernels of row programs share.
 *
 * A thread holds a pack of V successive channels of each of R successive rows (P such packs, a block apart).
 * So the row before is its own too, and so are sums over rows; sums over channels go through shuffles and
 * shared memory.
 *
 * Channels fall into groups.  A segment is the largest power of two of lanes that lie in one group for every
 * segment; its sum is one chunk in shared memory, and a group's chunks are added in their order. */
#ifndef KAPPA_BACKEND_CUDA_SEAM_ROWS_CUH
#define KAPPA_BACKEND_CUDA_SEAM_ROWS_CUH

#include "backend/cuda/kernel.cuh"

/* V channels of a row, as they stand in memory. */
template <typename T, int V> struct alignas(sizeof(T) * V) kp_vector {
  T value[V];
  __device__ float operator[](int k) const { return kp_to_float(value[k]); }
};

/* Pairs of bfloat16 stay in whole registers: one is the upper half of a float's bits. */
template <int V> struct alignas(2 * V) kp_vector<kp_half, V> {
  static_assert(V % 2 == 0, "pairs");
  uint32_t pair[V / 2];
  __device__ float operator[](int k) const {
    return __uint_as_float(k % 2 == 0 ? pair[k / 2] << 16 : pair[k / 2] & 0xffff0000u);
  }
};
template <> struct kp_vector<kp_half, 1> {
  kp_half value[1];
  __device__ float operator[](int) const { return __bfloat162float(value[0]); }
};

template <typename T, int V> __device__ static inline kp_vector<T, V> kp_to_vector(const float x[V]) {
  kp_vector<T, V> to;
  if constexpr (sizeof(T) == sizeof(kp_half) && V > 1) {
#pragma unroll
    for (int k = 0; k < V; k += 2) {
      const __nv_bfloat162 both = __floats2bfloat162_rn(x[k], x[k + 1]);
      to.pair[k / 2] = *(const uint32_t *)&both;
    }
  } else {
#pragma unroll
    for (int k = 0; k < V; k++) to.value[k] = kp_from_float<T>(x[k]);
  }
  return to;
}

template <typename T, int V> __device__ static inline kp_vector<T, V> kp_zero_vector() {
  const float zero[V] = {};
  return kp_to_vector<T, V>(zero);
}

/* V floats in the places of two vectors (of the first alone where that is float). */
template <typename T, int V> struct kp_wide {
  kp_vector<T, V> *first, *second;
  __device__ void set(const float x[V]) const { *first = kp_to_vector<T, V>(x); }
  __device__ void get(float x[V]) const {
    for (int k = 0; k < V; k++) x[k] = (*first)[k];
  }
};
template <int V> struct kp_wide<kp_half, V> {
  kp_vector<kp_half, V> *first, *second;
  __device__ void set(const float x[V]) const {
#pragma unroll
    for (int k = 0; k < V / 2; k++) {
      first->pair[k] = __float_as_uint(x[k]);
      second->pair[k] = __float_as_uint(x[V / 2 + k]);
    }
  }
  __device__ void get(float x[V]) const {
#pragma unroll
    for (int k = 0; k < V / 2; k++) {
      x[k] = __uint_as_float(first->pair[k]);
      x[V / 2 + k] = __uint_as_float(second->pair[k]);
    }
  }
};
template <> struct kp_wide<kp_half, 1> {
  kp_vector<kp_half, 1> *first, *second;
  __device__ void set(const float x[1]) const {
    const uint32_t bits = __float_as_uint(x[0]);
    first->value[0] = __ushort_as_bfloat16((unsigned short)(bits >> 16));
    second->value[0] = __ushort_as_bfloat16((unsigned short)bits);
  }
  __device__ void get(float x[1]) const {
    const uint32_t high = __bfloat16_as_ushort(first->value[0]), low = __bfloat16_as_ushort(second->value[0]);
    x[0] = __uint_as_float(high << 16 | low);
  }
};

/* V channels from element `at` on, or zeros. */
template <typename T, int V>
__device__ static inline kp_vector<T, V> kp_load_vector(const void *base, int64_t at, bool there) {
  return there ? *(const kp_vector<T, V> *)((const T *)base + at) : kp_zero_vector<T, V>();
}

/* How the groups of a row lie on a block's threads. */
struct kp_groups {
  int count;   /* G */
  int size;    /* D = C / G */
  int segment; /* lanes */
  int chunks;  /* of one group */
};

static inline kp_groups kp_groups_of(int count, int columns, int vector, int threads, int packs) {
  kp_groups groups = {count, columns / count, 32, threads / 32 * packs};
  if (count == 1) return groups;
  const int lanes = groups.size / vector;
  while (lanes % groups.segment != 0) groups.segment /= 2;
  groups.chunks = lanes / groups.segment;
  return groups;
}

/* Chunks of a whole block. */
static inline int kp_chunk_count(const kp_groups &groups, int threads, int packs) {
  return threads * packs / groups.segment;
}

/* Sums COUNT numbers over the lanes of a segment: every step gives one half of the numbers to the lane
 * `offset` away and keeps the other, so that all of them cost COUNT shuffles and not COUNT log2(segment).
 * `kept` of them are there; they end as out[first ...]. */
template <int COUNT, typename S>
__device__ static inline void kp_segment_sums(S *v, int offset, int first, int kept, S *out) {
  if (offset == 0) {
#pragma unroll
    for (int i = 0; i < COUNT; i++)
      if (i < kept) out[first + i] = v[i];
    return;
  }
  if constexpr (COUNT == 1) {
    S sum = v[0];
    for (; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    if (kept > 0) out[first] = sum;
  } else {
    constexpr int HALF = (COUNT + 1) / 2;
    const bool upper = (threadIdx.x & offset) != 0;
#pragma unroll
    for (int i = 0; i < HALF; i++) {
      const S high = HALF + i < COUNT ? v[HALF + i] : S(0);
      const S mine = upper ? high : v[i], other = upper ? v[i] : high;
      v[i] = mine + __shfl_xor_sync(0xffffffffu, other, offset);
    }
    const int left = kept - HALF > 0 ? kept - HALF : 0;
    kp_segment_sums<HALF>(v, offset / 2, upper ? first + HALF : first,
                          upper ? left : (kept < HALF ? kept : HALF), out);
  }
}

/* The COUNT sums of one pack of row `row` of ROWS into its segment's chunk. */
template <int COUNT, int ROWS, typename S>
__device__ static inline void kp_chunk_sums(S *v, const kp_groups &groups, int pack, int row, S *chunks) {
  const int thread = pack * blockDim.x + threadIdx.x;
  kp_segment_sums<COUNT>(v, groups.segment / 2, 0, COUNT,
                         chunks + (thread / groups.segment * ROWS + row) * COUNT);
}

/* Number `i` of COUNT summed over one group. */
template <int COUNT, typename S>
__device__ static inline S kp_group_sum(const S *chunks, const kp_groups &groups, int group, int i) {
  const S *at = chunks + group * groups.chunks * COUNT + i;
  S sum = at[0];
  for (int chunk = 1; chunk < groups.chunks; chunk++) sum += at[chunk * COUNT];
  return sum;
}

/* A curvature tensor (K, G) seen from N rows: row n reads row n / (N / K).  Without a tensor κ = 0, G = 1. */
struct kp_curvatures {
  kp_numbers values;
  int groups, pitch;
  int64_t entries, rows_per_entry;
  __device__ float at(int64_t row, int group) const {
    if (values.at == NULL) return 0;
    return values[(entries == 1 ? 0 : row / rows_per_entry * pitch) + group];
  }
};

static inline kp_curvatures kp_curvatures_of(const kp_call *call, int input, int64_t rows) {
  const kp_tensor *tensor = call->node->input[input];
  if (tensor == NULL) return kp_curvatures{{NULL, false}, 1, 1, 1, rows > 0 ? rows : 1};
  const int64_t entries = kp_tensor_rows(tensor);
  kp_curvatures table = {{NULL, false}, (int)kp_tensor_columns(tensor), (int)kp_pitch(tensor), entries, 1};
  if (entries > 0 && rows >= entries) table.rows_per_entry = rows / entries;
  table.values.at = call->input[input];
  table.values.half = call->run != NULL && kp_tensor_is_half(call, tensor);
  return table;
}

/* Whether rows of that pitch and groups of that size are made of whole vectors. */
static inline bool kp_rows_of_vectors(int64_t pitch, int64_t columns, int groups, int vector) {
  return pitch % vector == 0 && (groups == 1 || columns / groups % vector == 0);
}

#endif
