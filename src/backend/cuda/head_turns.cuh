/* Heads that are turned by their positions on the way to something else.
 *
 * The numbers of all pairs of all rows are computed once, in a kernel of their own: N D floats, which are
 * read again by every head, but come from near by. */
#ifndef KAPPA_BACKEND_CUDA_HEAD_TURNS_CUH
#define KAPPA_BACKEND_CUDA_HEAD_TURNS_CUH

#include "backend/cuda/rotary.cuh"

enum { KP_TURN_THREADS = 256 };

struct kp_head_turns {
  const float2 *at; /* (N, D/2) the numbers of the pairs; NULL: nothing is turned */
  int64_t rows;
  int D;
  bool upstream;
};

static __global__ void __launch_bounds__(KP_TURN_THREADS)
    kp_fill_turns(float2 *turns, const int32_t *positions, int64_t rows,
                  const __grid_constant__ kp_angles a) {
  const int64_t i = (int64_t)blockIdx.x * KP_TURN_THREADS + threadIdx.x, row = i / a.pairs;
  const int pair = (int)(i - row * a.pairs);
  if (row < rows)
    turns[row * a.half_size + a.first + pair] = kp_pair_numbers(a, pair, (double)positions[row]);
}

/* Bytes of the numbers; 0 without positions. */
static inline size_t kp_head_turns_bytes(const kp_rotary_arguments *rotary, const kp_tensor *positions) {
  const size_t pairs = (size_t)rotary->head_size / 2;
  return positions == NULL ? 0 : (size_t)kp_tensor_count(positions) * pairs * sizeof(float2);
}

/* Computes the numbers into `memory`, if there are positions. */
static inline kp_head_turns kp_head_turns_of(const kp_call *call, const kp_rotary_arguments *rotary,
                                             const void *positions, int64_t rows, void *memory) {
  const kp_head_turns turns = {positions == NULL ? NULL : (const float2 *)memory, rows, rotary->head_size,
                               rotary->upstream};
  for (int first = 0; first < rotary->head_size / 2 && positions != NULL; first += KP_ROTARY_PAIRS) {
    const kp_angles a = kp_angles_of(rotary, first);
    kp_fill_turns<<<kp_blocks(rows * a.pairs, KP_TURN_THREADS), KP_TURN_THREADS, 0,
                    kp_cuda_of(call)->stream>>>((float2 *)memory, (const int32_t *)positions, rows, a);
  }
  return turns;
}

/* How a thread's chunk of W channels of a head is turned in one row. */
template <int W> struct kp_head_turn {
  float2 pair[W > 1 ? W / 2 : 1];
  bool on;

  /* Of the chunk from channel `first` on, if `wanted`; padding behind a head has no numbers. */
  __device__ void fetch(const kp_head_turns &turns, bool wanted, int64_t n, int first) {
    on = W > 1 && turns.at != NULL && wanted && first < turns.D && n < turns.rows;
    if (!on) return;
    const float2 *const from = turns.at + n * (turns.D / 2) + first / 2;
    if (W % 4 == 0 && turns.D % 4 == 0 && first + W <= turns.D) {
#pragma unroll
      for (int i = 0; i + 1 < W / 2; i += 2) {
        const float4 two = __ldg((const float4 *)(from + i));
        pair[i] = make_float2(two.x, two.y), pair[i + 1] = make_float2(two.z, two.w);
      }
    } else {
#pragma unroll
      for (int i = 0; i < W / 2; i++)
        pair[i] = first + 2 * i < turns.D ? __ldg(from + i) : make_float2(0.0f, 0.0f);
    }
  }
  /* Turns the chunk, or turns it back. */
  __device__ void apply(const kp_head_turns &turns, bool back, float (&value)[W]) const {
    if (!on) return;
    if (turns.upstream) {
#pragma unroll
      for (int e = 0; e + 1 < W; e += 2)
        kp_turn_pair(kp_turn_of(true, back, pair[e / 2]), &value[e], &value[e + 1]);
    } else {
#pragma unroll
      for (int e = 0; e + 1 < W; e += 2)
        kp_turn_pair(kp_turn_of(false, back, pair[e / 2]), &value[e], &value[e + 1]);
    }
  }
};

#endif
