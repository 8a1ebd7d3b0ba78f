/* Cross-entropy of one row of logits, and the checks of its targets: for the operator on its own and for the
 * one that makes the logits piece by piece. */
#ifndef KAPPA_BACKEND_CPU_CROSS_ENTROPY_ROWS_H
#define KAPPA_BACKEND_CPU_CROSS_ENTROPY_ROWS_H

#include <float.h>
#include <math.h>

#include "backend/cpu/isa/vector_math.h"
#include "core/error.h"

/* log Σ exp x of what was added so far: shift + log sum. */
typedef struct kp_logsumexp {
  double sum;
  float shift;
} kp_logsumexp;

/* The shift starts at the lowest finite number, so that rows which open with -inf are no special case. */
static inline kp_logsumexp kp_logsumexp_start(void) {
  return (kp_logsumexp){.sum = 0, .shift = -FLT_MAX};
}

/* Bits of a float such that integers compare as their floats do; its own inverse. */
static inline int32_t kp_ordered_bits(int32_t bits) {
  return bits < 0 ? bits ^ INT32_MAX : bits;
}

/* The largest of x and `at_least`, among integers: a maximum of floats is not associative where NaN occurs,
 * and not every compiler vectorises it. */
static inline float kp_largest(const float *x, int64_t count, float at_least) {
  const kp_float_bits floor = {.value = at_least};
  int32_t high = kp_ordered_bits((int32_t)floor.bits);
#pragma omp simd reduction(max : high)
  for (int64_t i = 0; i < count; i++) {
    const kp_float_bits element = {.value = x[i]};
    const int32_t rank = kp_ordered_bits((int32_t)element.bits);
    high = rank > high ? rank : high;
  }
  return (kp_float_bits){.bits = (uint32_t)kp_ordered_bits(high)}.value;
}

static inline float kp_sum_of_exponentials(const float *x, int64_t count, float shift) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; i++) sum += kp_expf(x[i] - shift);
  return sum;
}

/* Adds `count` logits.  They are read from memory once: a block of them is searched for its largest and then,
 * from the cache, exponentiated.  A NaN that escapes the maximum is found by the sum. */
static inline void kp_logsumexp_add(kp_logsumexp *total, const float *x, int64_t count) {
  enum { BLOCK = 2048 };
  for (int64_t first = 0; first < count; first += BLOCK) {
    const int64_t width = count - first < BLOCK ? count - first : BLOCK;
    const float high = kp_largest(x + first, width, total->shift);
    if (high > total->shift && total->sum != 0) total->sum *= exp((double)total->shift - (double)high);
    total->shift = high;
    total->sum += (double)kp_sum_of_exponentials(x + first, width, high);
  }
}

static inline double kp_logsumexp_value(const kp_logsumexp *total) {
  return (double)total->shift + log(total->sum);
}

/* gx = scale · exp(x - shift); in place where gx is x. */
static inline void kp_softmax_row(const float *x, float *gx, int64_t count, float shift, float scale) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) gx[i] = scale * kp_expf(x[i] - shift);
}

/* Fails with the first target that is neither `ignore` nor an entry of the vocabulary. */
static inline kp_status kp_check_targets(const int32_t *target, int64_t rows, int64_t vocabulary,
                                         int32_t ignore, kp_error *error) {
  for (int64_t n = 0; n < rows; n++)
    if (target[n] != ignore && (target[n] < 0 || target[n] >= vocabulary))
      return kp_fail(error, KP_ERR_INPUT, "row %lld has target %d, which is not in the vocabulary of %lld",
                     (long long)n, (int)target[n], (long long)vocabulary);
  return KP_OK;
}

static inline int64_t kp_count_targets(const int32_t *target, int64_t rows, int32_t ignore) {
  int64_t count = 0;
  for (int64_t n = 0; n < rows; n++) count += target[n] != ignore;
  return count;
}

#endif
