/* Rows in chunks: how the kernels that only move memory read, write and share a matrix among threads.
 *
 * A chunk is eight neighbouring elements of a row in float, 16 bytes of bfloat16 or 32 of float, or a single
 * one where rows do not start at multiples of 16 bytes.  Chunks cover the padding too: it is zero in inputs,
 * and what a kernel makes of zeros must be zero. */
#ifndef KAPPA_BACKEND_CUDA_CHUNKS_CUH
#define KAPPA_BACKEND_CUDA_CHUNKS_CUH

#include <type_traits>

#include "backend/cuda/kernel.cuh"

enum { KP_CHUNK = 8, KP_TILE_THREADS = 256 };

template <int W> struct kp_chunk { float value[W]; };

template <int W, typename T> __device__ static inline kp_chunk<W> kp_read(const T *at) {
  kp_chunk<W> chunk;
  if constexpr (W == 1) {
    chunk.value[0] = kp_to_float(*at);
  } else {
    constexpr int size = kp_pack<T>::size;
#pragma unroll
    for (int part = 0; part < W / size; part++) {
      const kp_pack<T> pack = kp_load(at + part * size);
#pragma unroll
      for (int i = 0; i < size; i++) chunk.value[part * size + i] = kp_to_float(pack.value[i]);
    }
  }
  return chunk;
}

template <int W, typename T> __device__ static inline void kp_write(T *at, const kp_chunk<W> &chunk) {
  if constexpr (W == 1) {
    *at = kp_from_float<T>(chunk.value[0]);
  } else {
    constexpr int size = kp_pack<T>::size;
#pragma unroll
    for (int part = 0; part < W / size; part++) {
      kp_pack<T> pack;
#pragma unroll
      for (int i = 0; i < size; i++) pack.value[i] = kp_from_float<T>(chunk.value[part * size + i]);
      kp_store(at + part * size, pack);
    }
  }
}

/* What a tensor of T holds after x was written to it. */
template <typename T> __device__ static inline float kp_rounded(float x) {
  return kp_to_float(kp_from_float<T>(x));
}

static inline bool kp_aligned(const void *at) {
  return (uintptr_t)at % 16 == 0;
}

/* Whether rows of that pitch from there on are made of whole chunks; NULL is. */
static inline bool kp_is_wide(const void *at, int64_t pitch) {
  return at == NULL || (kp_aligned(at) && pitch % KP_CHUNK == 0);
}

static inline bool kp_input_is_wide(const kp_call *call, int i) {
  return call->input[i] == NULL || kp_is_wide(call->input[i], kp_pitch(call->node->input[i]));
}

static inline bool kp_output_is_wide(const kp_call *call, int i) {
  return call->output[i] == NULL || kp_is_wide(call->output[i], kp_pitch(call->node->output[i]));
}

/* Calls launch(T(), width) with the type of real tensors and an integral constant, the size of chunks. */
template <typename F> static inline void kp_by_chunk(bool half, bool wide, F launch) {
  using eight = std::integral_constant<int, KP_CHUNK>;
  using one = std::integral_constant<int, 1>;
  if (half)
    wide ? launch(kp_half(), eight()) : launch(kp_half(), one());
  else
    wide ? launch(float(), eight()) : launch(float(), one());
}

/* A matrix among blocks: threads along x own a chunk each, threads along y and blocks a few rows. */
struct kp_tile {
  dim3 grid, block;
  int64_t chunks;
};

static inline kp_tile kp_tile_of(int64_t rows, int64_t chunks, int rows_a_thread) {
  const int64_t parts = (chunks + KP_TILE_THREADS - 1) / KP_TILE_THREADS;
  const int64_t x = parts == 0 ? 1 : (chunks + parts - 1) / parts, y = KP_TILE_THREADS / x;
  kp_tile tile;
  tile.block = dim3((unsigned)x, (unsigned)y);
  tile.grid = dim3((unsigned)kp_blocks(rows, y * rows_a_thread), (unsigned)(parts < 1 ? 1 : parts));
  tile.chunks = chunks;
  return tile;
}

/* Device code: the chunk of this thread, its first row, and the distance of its rows. */
struct kp_place {
  int64_t chunk, row, step;
};

__device__ static inline kp_place kp_place_of(int rows_a_thread) {
  return kp_place{(int64_t)blockIdx.y * blockDim.x + threadIdx.x,
                  (int64_t)blockIdx.x * blockDim.y * rows_a_thread + threadIdx.y, blockDim.y};
}

/* Elements of a tensor of any pitch and width by their number in the dense tensor. */
struct kp_elements {
  kp_numbers numbers;
  int64_t columns, pitch;
  __device__ float operator[](int64_t i) const {
    return columns == pitch ? numbers[i] : numbers[i / columns * pitch + i % columns];
  }
};

static inline kp_elements kp_input_elements(const kp_call *call, int i) {
  const kp_tensor *tensor = call->node->input[i];
  return kp_elements{kp_input_numbers(call, i), kp_tensor_columns(tensor), kp_pitch(tensor)};
}

#endif
