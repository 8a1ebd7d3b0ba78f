/* Rows in chunks: what the operators on rows of points share.
 *
 * A row is read in chunks of W numbers, 16 bytes where rows are padded to them and single numbers where they
 * are too short for that. */
#ifndef KAPPA_BACKEND_CUDA_ROW_CHUNKS_CUH
#define KAPPA_BACKEND_CUDA_ROW_CHUNKS_CUH

#include "backend/cuda/kernel.cuh"

/* W numbers of T that move at once. */
template <typename T, int W> struct alignas(W * sizeof(T)) kp_row_chunk { T value[W]; };

template <typename T, int W> __device__ static inline kp_row_chunk<T, W> kp_load_chunk(const T *at) {
  return *(const kp_row_chunk<T, W> *)at;
}

template <typename T, int W>
__device__ static inline void kp_store_chunk(T *at, const kp_row_chunk<T, W> &chunk) {
  *(kp_row_chunk<T, W> *)at = chunk;
}

/* Writes the chunk that starts at column `first` of a row of C; padding gets zeros. */
template <typename T, int W>
__device__ static inline void kp_put_chunk(T *row, int64_t first, int64_t C, const float (&value)[W]) {
  kp_row_chunk<T, W> out;
#pragma unroll
  for (int e = 0; e < W; e++) out.value[e] = kp_from_float<T>(value[e]);
  if (W > 1 && first + W > C) {
#pragma unroll
    for (int e = 0; e < W; e++)
      if (first + e >= C) out.value[e] = T(0.0f);
  }
  kp_store_chunk(row + first, out);
}

/* ---- vectors of C floats that all rows share ---- */

struct kp_vector {
  const float *at; /* NULL: `absent` everywhere */
  float absent;
  bool aligned; /* to 16 bytes */
};

static inline kp_vector kp_vector_of(const void *at, float absent) {
  return kp_vector{(const float *)at, absent, (uintptr_t)at % 16 == 0};
}

/* Elements first … first+W-1, zeros beyond C. */
template <int W>
__device__ static inline void kp_get_columns(const kp_vector &vector, int64_t first, int64_t C,
                                             float (&value)[W]) {
  if (vector.at == NULL) {
#pragma unroll
    for (int e = 0; e < W; e++) value[e] = vector.absent;
  } else if (W % 4 == 0 && vector.aligned && first + W <= C) {
#pragma unroll
    for (int e = 0; e < W / 4; e++) {
      const float4 four = __ldg((const float4 *)(vector.at + first) + e);
      value[4 * e % W] = four.x, value[(4 * e + 1) % W] = four.y;
      value[(4 * e + 2) % W] = four.z, value[(4 * e + 3) % W] = four.w;
    }
  } else {
#pragma unroll
    for (int e = 0; e < W; e++) value[e] = first + e < C ? __ldg(vector.at + first + e) : 0;
  }
}

/* ---- what the host knows of rows ---- */

struct kp_row_plan {
  int64_t rows, C, pitch;
  bool half, wide; /* bfloat16; chunks of 16 bytes */
  int chunks;      /* of a row, padding included */
};

static inline kp_row_plan kp_row_plan_of(const kp_call *call, const kp_tensor *tensor) {
  kp_row_plan plan;
  plan.rows = kp_tensor_rows(tensor);
  plan.C = kp_tensor_columns(tensor);
  plan.pitch = kp_pitch(tensor);
  plan.half = kp_tensor_is_half(call, tensor);
  const int size = plan.half ? 8 : 4;
  plan.wide = plan.pitch % size == 0;
  plan.chunks = (int)(plan.wide ? plan.pitch / size : plan.C);
  return plan;
}

/* Whether a tensor's rows stand in memory as the plan's do; an absent one's do. */
static inline bool kp_row_fits(const kp_call *call, const kp_row_plan &plan, const kp_tensor *tensor) {
  return tensor == NULL || (kp_pitch(tensor) == plan.pitch && kp_tensor_is_half(call, tensor) == plan.half);
}

static inline kp_status kp_row_misfit(const kp_call *call, kp_error *error) {
  return kp_fail(error, KP_ERR_UNSUPPORTED, "%s: its tensors differ in type or layout",
                 call->node->row->name);
}

/* Blocks of a kernel that takes one row after the other: as many as run at once, and not more than `most`. */
static inline int kp_resident_blocks(const kp_call *call, const void *kernel, int threads, size_t shared,
                                     int64_t wanted, int64_t most) {
  int per_processor = 1;
  cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_processor, kernel, threads, shared);
  int64_t blocks = (int64_t)(per_processor < 1 ? 1 : per_processor) * kp_cuda_of(call)->processors;
  blocks = blocks > most ? most : blocks;
  return (int)(wanted < 1 ? 1 : wanted < blocks ? wanted : blocks);
}

#endif
