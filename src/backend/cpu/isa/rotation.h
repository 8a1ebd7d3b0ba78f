/* The angles of rotary positions, for the operators that turn heads.
 *
 * Cosines and sines are computed once a position, in double, and serve all heads and all rows at that
 * position.  Scratch:
 *   frequency (D/2) double, then table (N, D) float: cosines (D/2), sines (D/2); of the published deviation
 *   the two factors of each pair instead.
 * Where the positions of a call span more than N numbers, the table has a line a row instead of a line a
 * position. */
#ifndef KAPPA_BACKEND_CPU_ISA_ROTATION_H
#define KAPPA_BACKEND_CPU_ISA_ROTATION_H

#include <math.h>

#include "backend/cpu/isa/split.h"
#include "backend/operators.h"
#include "geometry/rotary.h"

typedef struct kp_rotation {
  const kp_rotary_arguments *arguments;
  const int32_t *position; /* (N) */
  const double *frequency; /* (pairs) */
  float *table;            /* (lines, 2·pairs) */
  int64_t pairs;           /* D/2 */
  int64_t low;             /* position of the first line */
  bool by_position;        /* a line a position, not a line a row */
} kp_rotation;

static inline size_t kp_rotation_bytes(const kp_rotary_arguments *arguments, int64_t rows) {
  const size_t pairs = (size_t)arguments->head_size / 2;
  return pairs * sizeof(double) + (size_t)rows * 2 * pairs * sizeof(float);
}

static inline void kp_fill_angles(const kp_rotation *rotation, int64_t position, float *cosine, float *sine) {
  for (int64_t i = 0; i < rotation->pairs; i++) {
    const double angle = (double)position * rotation->frequency[i];
    cosine[i] = (float)cos(angle);
    sine[i] = (float)sin(angle);
  }
}

/* Column j of the published table is the sine (even j) or cosine of angle j/2; its first half multiplies the
 * first, its second half the second number of a pair. */
static inline void kp_fill_upstream(const kp_rotation *rotation, int64_t position, float *first,
                                    float *second) {
  const int64_t pairs = rotation->pairs;
  for (int64_t i = 0; i < pairs; i++) {
    const int64_t column[2] = {pairs + i, i};
    double entry[2];
    for (int side = 0; side < 2; side++) {
      const double angle = (double)position * rotation->frequency[column[side] / 2];
      entry[side] = column[side] % 2 == 0 ? sin(angle) : cos(angle);
    }
    first[i] = (float)-entry[0];
    second[i] = (float)entry[1];
  }
}

/* The smallest position; `span` gets the count of numbers up to the largest. */
static inline int64_t kp_first_position(const int32_t *position, int64_t rows, int64_t *span) {
  int32_t low = INT32_MAX, high = INT32_MIN;
  for (int64_t n = 0; n < rows; n++) {
    if (position[n] < low) low = position[n];
    if (position[n] > high) high = position[n];
  }
  *span = (int64_t)high - low + 1;
  return low;
}

/* Fills the table for the positions of `rows` rows; `scratch` has kp_rotation_bytes. */
static inline kp_rotation kp_rotation_of(const kp_call *call, const kp_rotary_arguments *a,
                                         const int32_t *position, int64_t rows, void *scratch) {
  const int64_t pairs = a->head_size / 2;
  double *frequency = scratch;
  const kp_yarn yarn = {a->factor, a->original, a->beta_fast, a->beta_slow, a->by_turns};
  for (int i = 0; i < pairs; i++) frequency[i] = kp_rotary_frequency(a->base, a->head_size, i, yarn);
  int64_t span;
  const int64_t low = kp_first_position(position, rows, &span);
  const kp_rotation rotation = {a,     position, frequency,   (float *)(frequency + pairs),
                                pairs, low,      span <= rows};
  const int64_t lines = rotation.by_position ? span : rows;
#pragma omp parallel for schedule(static) num_threads(kp_threads_for(call, 40 * lines * pairs))
  for (int64_t line = 0; line < lines; line++) {
    float *first = rotation.table + line * 2 * pairs;
    const int64_t at = rotation.by_position ? low + line : position[line];
    if (a->upstream)
      kp_fill_upstream(&rotation, at, first, first + pairs);
    else
      kp_fill_angles(&rotation, at, first, first + pairs);
  }
  return rotation;
}

static inline void kp_rotate_halves(const float *cosine, const float *sine, float sign, const float *x,
                                    float *y, int64_t pairs) {
#pragma omp simd
  for (int64_t i = 0; i < pairs; i++) {
    const float a = x[i], b = x[i + pairs];
    y[i] = a * cosine[i] - b * (sign * sine[i]);
    y[i + pairs] = a * (sign * sine[i]) + b * cosine[i];
  }
}

static inline void kp_rotate_neighbours(const float *cosine, const float *sine, float sign, const float *x,
                                        float *y, int64_t pairs) {
#pragma omp simd
  for (int64_t i = 0; i < pairs; i++) {
    const float a = x[2 * i], b = x[2 * i + 1];
    y[2 * i] = a * cosine[i] - b * (sign * sine[i]);
    y[2 * i + 1] = a * (sign * sine[i]) + b * cosine[i];
  }
}

static inline void kp_exchange_neighbours(const float *first, const float *second, const float *x, float *y,
                                          int64_t pairs) {
#pragma omp simd
  for (int64_t i = 0; i < pairs; i++) {
    const float a = x[2 * i], b = x[2 * i + 1];
    y[2 * i] = first[i] * b;
    y[2 * i + 1] = second[i] * a;
  }
}

/* Turns a head of row n, or, with `back`, turns it back; y may be x. */
static inline void kp_rotate_head(const kp_rotation *rotation, int64_t n, bool back, const float *x,
                                  float *y) {
  const int64_t pairs = rotation->pairs;
  const int64_t line = rotation->by_position ? rotation->position[n] - rotation->low : n;
  const float *first = rotation->table + line * 2 * pairs, *second = first + pairs;
  if (rotation->arguments->upstream)
    kp_exchange_neighbours(back ? second : first, back ? first : second, x, y, pairs);
  else if (rotation->arguments->halves)
    kp_rotate_halves(first, second, back ? -1.0f : 1.0f, x, y, pairs);
  else
    kp_rotate_neighbours(first, second, back ? -1.0f : 1.0f, x, y, pairs);
}

#endif
