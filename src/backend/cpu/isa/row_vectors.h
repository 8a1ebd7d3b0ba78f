/* Short vectors for sums over a row: the compiler's own vector types, as wide as the registers of the
 * instruction set.
 *
 * A row of a model falls into groups of few channels, each with several sums.  `omp simd reduction` ends in
 * one chain of additions per sum, which would cost more than the group itself; here a sum ends in a tree.
 * Loads need no alignment; a row's end is filled with zeros.  Vectors are passed by address, because their
 * calling convention differs between instruction sets. */
#ifndef KAPPA_BACKEND_CPU_ROW_VECTORS_H
#define KAPPA_BACKEND_CPU_ROW_VECTORS_H

#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
enum { KP_DOUBLES = 8 };
#elif defined(__AVX__)
enum { KP_DOUBLES = 4 };
#else
enum { KP_DOUBLES = 2 };
#endif
enum { KP_FLOATS = 2 * KP_DOUBLES };

typedef double kp_doubles __attribute__((vector_size(KP_DOUBLES * sizeof(double))));
typedef float kp_half_floats __attribute__((vector_size(KP_DOUBLES * sizeof(float))));
typedef float kp_floats __attribute__((vector_size(KP_FLOATS * sizeof(float))));

/* `count` floats, at most KP_DOUBLES. */
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
#if defined(__AVX512F__)
  *to = (kp_doubles){(double)v[0], (double)v[1], (double)v[2], (double)v[3],
                     (double)v[4], (double)v[5], (double)v[6], (double)v[7]};
#elif defined(__AVX__)
  *to = (kp_doubles){(double)v[0], (double)v[1], (double)v[2], (double)v[3]};
#else
  *to = (kp_doubles){(double)v[0], (double)v[1]};
#endif
}

/* `count` floats, at most KP_DOUBLES, as doubles. */
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
  double part[KP_DOUBLES];
  memcpy(part, v, sizeof part);
  for (int half = KP_DOUBLES / 2; half > 0; half /= 2)
    for (int i = 0; i < half; i++) part[i] += part[i + half];
  return part[0];
}

static inline float kp_total_float(const kp_floats *v) {
  kp_half_floats halves[2];
  memcpy(halves, v, sizeof halves);
  halves[0] += halves[1];
  float sum[2] = {0, 0};
  for (int i = 0; i < KP_DOUBLES; i += 2) sum[0] += halves[0][i], sum[1] += halves[0][i + 1];
  return sum[0] + sum[1];
}

#endif
