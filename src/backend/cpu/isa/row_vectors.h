/* Short vectors for sums over a row: the compiler's own vector types, 8 doubles or 16 floats, which it maps
 * to the registers of each instruction set.
 *
 * A row of a model falls into groups of few channels, each with several sums.  `omp simd reduction` ends in
 * one chain of additions per sum, which would cost more than the group itself; here a sum ends in a tree.
 * Loads need no alignment; a row's end is filled with zeros.  Vectors are passed by address, because their
 * calling convention differs between instruction sets. */
#ifndef KAPPA_BACKEND_CPU_ROW_VECTORS_H
#define KAPPA_BACKEND_CPU_ROW_VECTORS_H

#include <stdint.h>
#include <string.h>

enum { KP_DOUBLES = 8, KP_FLOATS = 16 };

typedef double kp_doubles __attribute__((vector_size(KP_DOUBLES * sizeof(double))));
typedef float kp_half_floats __attribute__((vector_size(KP_DOUBLES * sizeof(float))));
typedef float kp_floats __attribute__((vector_size(KP_FLOATS * sizeof(float))));

/* `count` floats, at most 8, as doubles. */
static inline void kp_widen(const float *from, int64_t count, kp_doubles *to) {
  kp_half_floats loaded = {0};
  if (count >= KP_DOUBLES)
    memcpy(&loaded, from, sizeof loaded);
  else
    for (int64_t i = 0; i < count; i++) loaded[i] = from[i];
  *to = __builtin_convertvector(loaded, kp_doubles);
}

/* The product of two rows, rounded to float, as doubles. */
static inline void kp_widen_product(const float *a, const float *b, int64_t count, kp_doubles *to) {
  kp_half_floats left = {0}, right = {0};
  if (count >= KP_DOUBLES) {
    memcpy(&left, a, sizeof left);
    memcpy(&right, b, sizeof right);
  } else {
    for (int64_t i = 0; i < count; i++) left[i] = a[i], right[i] = b[i];
  }
  *to = __builtin_convertvector(left * right, kp_doubles);
}

static inline void kp_narrow(const kp_doubles *from, int64_t count, float *to) {
  const kp_half_floats rounded = __builtin_convertvector(*from, kp_half_floats);
  if (count >= KP_DOUBLES)
    memcpy(to, &rounded, sizeof rounded);
  else
    for (int64_t i = 0; i < count; i++) to[i] = rounded[i];
}

static inline void kp_load(const float *from, int64_t count, kp_floats *to) {
  if (count >= KP_FLOATS) {
    memcpy(to, from, sizeof *to);
  } else {
    *to = (kp_floats){0};
    for (int64_t i = 0; i < count; i++) (*to)[i] = from[i];
  }
}

static inline void kp_store(const kp_floats *from, int64_t count, float *to) {
  if (count >= KP_FLOATS)
    memcpy(to, from, sizeof *from);
  else
    for (int64_t i = 0; i < count; i++) to[i] = (*from)[i];
}

static inline double kp_total(const kp_doubles *v) {
  return (((*v)[0] + (*v)[4]) + ((*v)[2] + (*v)[6])) + (((*v)[1] + (*v)[5]) + ((*v)[3] + (*v)[7]));
}

static inline float kp_total_float(const kp_floats *v) {
  float sum[8];
  for (int i = 0; i < 8; i++) sum[i] = (*v)[i] + (*v)[i + 8];
  return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

#endif
