/* The angles of rotary positions on the device.
 *
 * They are counted in turns and in double, so that what is left of a turn is exact in float however far the
 * position. */
#ifndef KAPPA_BACKEND_CUDA_ROTARY_CUH
#define KAPPA_BACKEND_CUDA_ROTARY_CUH

#include "backend/cuda/kernel.cuh"

extern "C" {
#include "geometry/rotary.h"
}

/* Frequencies travel as an argument of a kernel, so many at a time: more pairs take more launches. */
enum { KP_ROTARY_PAIRS = 128 };

/* Turns a position of pairs: frequency / 2π. */
struct kp_turns {
  double a_position[KP_ROTARY_PAIRS];
};

/* The pairs of a launch. */
struct kp_angles {
  int first, pairs; /* of `half_size` of a head */
  int half_size;    /* D/2 */
  bool upstream;
  kp_turns turns, second; /* second: of the published deviation, those of the other half of its table */
};

/* The factors (p, q, r) of a pair: y0 = p u + q v, y1 = r u + p v. */
struct kp_turn {
  float same, up, down;
};

__device__ static inline float2 kp_sine_and_cosine_of(double turns) {
  float2 both;
  sincospif((float)(2 * (turns - rint(turns))), &both.x, &both.y);
  return both;
}

/* Column j of the published table: the sine (even j) or cosine of angle j/2. */
__device__ static inline float kp_upstream_entry(double turns, int column) {
  const float2 both = kp_sine_and_cosine_of(turns);
  return column % 2 == 0 ? both.x : both.y;
}

/* The numbers of a pair: (sine, cosine), or of the published deviation (up, down). */
__device__ static inline float2 kp_pair_numbers(const kp_angles &a, int pair, double position) {
  if (!a.upstream) return kp_sine_and_cosine_of(position * a.turns.a_position[pair]);
  const int column = a.first + pair;
  const float one = kp_upstream_entry(position * a.turns.a_position[pair], column);
  const float two = kp_upstream_entry(position * a.second.a_position[pair], column + a.half_size);
  return make_float2(-two, one);
}

/* What the numbers of a pair do to it, or, with `back`, the transpose. */
__device__ static inline kp_turn kp_turn_of(bool upstream, bool back, float2 pair) {
  if (upstream) return back ? kp_turn{0.0f, pair.y, pair.x} : kp_turn{0.0f, pair.x, pair.y};
  return back ? kp_turn{pair.y, pair.x, -pair.x} : kp_turn{pair.y, -pair.x, pair.x};
}

__device__ static inline void kp_turn_pair(const kp_turn &t, float *u, float *v) {
  const float a = *u, b = *v;
  *u = t.same * a + t.up * b;
  *v = t.down * a + t.same * b;
}

/* Turns a position of `count` pairs; of the published deviation, of its table's columns from `column` on. */
static inline kp_turns kp_turns_of(const kp_rotary_arguments *a, int column, int count) {
  const kp_yarn yarn = {a->factor, a->original, a->beta_fast, a->beta_slow, a->by_turns};
  kp_turns turns;
  for (int i = 0; i < count; i++) {
    const int pair = a->upstream ? (column + i) / 2 : column + i;
    turns.a_position[i] = kp_rotary_frequency(a->base, a->head_size, pair, a->upstream ? kp_yarn{} : yarn) /
                          (2 * 3.14159265358979323846);
  }
  return turns;
}

/* The pairs from `first` on that fit into a launch. */
static inline kp_angles kp_angles_of(const kp_rotary_arguments *a, int first) {
  const int half = a->head_size / 2, left = half - first;
  kp_angles angles = {first, left < KP_ROTARY_PAIRS ? left : KP_ROTARY_PAIRS, half, a->upstream, {}, {}};
  angles.turns = kp_turns_of(a, first, angles.pairs);
  if (a->upstream) angles.second = kp_turns_of(a, half + first, angles.pairs);
  return angles;
}

#endif
