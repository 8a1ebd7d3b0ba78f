/* Sums over a row of floats, in double: exact products, no overflow. */
#ifndef KAPPA_BACKEND_CPU_ROW_SUMS_H
#define KAPPA_BACKEND_CPU_ROW_SUMS_H

#include "backend/cpu/isa/row_vectors.h"

/* Σ x². */
static inline double kp_square_sum(const float *x, int64_t count) {
  kp_doubles sum[2] = {{0}, {0}}, p;
  const int64_t whole = count / KP_FLOATS * KP_FLOATS;
  for (int64_t i = 0; i < whole; i += KP_FLOATS)
    for (int half = 0; half < 2; half++) {
      kp_widen(x + i + half * KP_DOUBLES, KP_DOUBLES, &p);
      sum[half] += p * p;
    }
  for (int64_t i = whole; i < count; i += KP_DOUBLES) {
    kp_widen(x + i, count - i, &p);
    sum[0] += p * p;
  }
  sum[0] += sum[1];
  return kp_total(&sum[0]);
}

/* Inner products of two rows. */
typedef struct kp_gram {
  double aa, ab, bb;
} kp_gram;

static inline kp_gram kp_gram_of(const float *a, const float *b, int64_t count) {
  kp_doubles aa = {0}, ab = {0}, bb = {0}, p, q;
  const int64_t whole = count / KP_DOUBLES * KP_DOUBLES;
  for (int64_t i = 0; i < whole; i += KP_DOUBLES) {
    kp_widen(a + i, KP_DOUBLES, &p), kp_widen(b + i, KP_DOUBLES, &q);
    aa += p * p, ab += p * q, bb += q * q;
  }
  if (whole < count) {
    kp_widen(a + whole, count - whole, &p), kp_widen(b + whole, count - whole, &q);
    aa += p * p, ab += p * q, bb += q * q;
  }
  return (kp_gram){kp_total(&aa), kp_total(&ab), kp_total(&bb)};
}

#endif
