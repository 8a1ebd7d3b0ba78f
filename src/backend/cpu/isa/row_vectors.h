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

/* `count` floats, at most 8. */
static inline void kp_load_half(const float *from, int64_t count, kp_half_floats *to) {
  if (count >= KP_DOUBLES) {
    memcpy(to, from, sizeof *to);
  } else {
    *to = (kp_half_floats){0};
    for (int64_t i = 0; i < count; i++) (*to)[i] = from[i];
  }
}

static inline void kp_store_half(const kp_half_floats *from, int64_t count, float *to) {
  if (count >= KP_DOUBLES)
    memcpy(to, from, sizeof *from);
  else
    for (int64_t i = 0; i < count; i++) to[i] = (*from)[i];
}

/* As doubles.  Compilers turn the list into one instruction, the conversion of whole vectors into two or
 * four. */
static inline void kp_widen_half(const kp_half_floats *from, kp_doubles *to) {
  const kp_half_floats v = *from;
  *to = (kp_doubles){(double)v[0], (double)v[1], (double)v[2], (double)v[3],
                     (double)v[4], (double)v[5], (double)v[6], (double)v[7]};
}

/* `count` floats, at most 8, as doubles. */
static inline void kp_widen(const float *from, int64_t count, kp_doubles *to) {
  kp_half_floats loaded;
  kp_load_half(from, count, &loaded);
  kp_widen_half(&loaded, to);
}

/* The product of two rows, rounded to float, as doubles. */
static inline void kp_widen_product(const float *a, const float *b, int64_t count, kp_doubles *to) {
  kp_half_floats left, right;
  kp_load_half(a, count, &left), kp_load_half(b, count, &right);
  left *= right;
  kp_widen_half(&left, to);
}

static inline void kp_narrow(const kp_doubles *from, int64_t count, float *to) {
  const kp_half_floats rounded = __builtin_convertvector(*from, kp_half_floats);
  kp_store_half(&rounded, count, to);
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

/* Sums of all elements, by halves. */
static inline double kp_total(const kp_doubles *v) {
  typedef double four __attribute__((vector_size(4 * sizeof(double))));
  typedef double two __attribute__((vector_size(2 * sizeof(double))));
  four fours[2];
  two twos[2];
  memcpy(fours, v, sizeof fours);
  fours[0] += fours[1];
  memcpy(twos, fours, sizeof twos);
  twos[0] += twos[1];
  return twos[0][0] + twos[0][1];
}

static inline float kp_total_float(const kp_floats *v) {
  typedef float eight __attribute__((vector_size(8 * sizeof(float))));
  typedef float four __attribute__((vector_size(4 * sizeof(float))));
  eight eights[2];
  four fours[2];
  memcpy(eights, v, sizeof eights);
  eights[0] += eights[1];
  memcpy(fours, eights, sizeof fours);
  fours[0] += fours[1];
  return (fours[0][0] + fours[0][2]) + (fours[0][1] + fours[0][3]);
}

#endif
