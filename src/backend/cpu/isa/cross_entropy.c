/* Cross-entropy over the vocabulary.
 *
 * Forward each row is read from memory once: a block of it is searched for its
 * largest logit and then, from the cache, exponentiated.  The rows' losses go
 * to scratch (N doubles) and are added in row order, so the mean does not depend on
 * the number of threads. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "backend/cpu/isa/isa.h"
#include "backend/cpu/isa/split.h"
#include "backend/cpu/isa/vector_math.h"

enum { BLOCK = 2048 };

static kp_status check_targets(const int32_t *target, int64_t rows, int64_t vocabulary, int32_t ignore,
                               kp_error *error) {
  for (int64_t n = 0; n < rows; n++)
    if (target[n] != ignore && (target[n] < 0 || target[n] >= vocabulary))
      return kp_fail(error, KP_ERR_INPUT, "row %lld has target %d, which is not in the vocabulary of %lld",
                     (long long)n, (int)target[n], (long long)vocabulary);
  return KP_OK;
}

static int64_t count_targets(const int32_t *target, int64_t rows, int32_t ignore) {
  int64_t count = 0;
  for (int64_t n = 0; n < rows; n++) count += target[n] != ignore;
  return count;
}

/* Bits of a float such that integers compare as their floats do; its own inverse. */
static inline int32_t ordered(int32_t bits) {
  return bits < 0 ? bits ^ INT32_MAX : bits;
}

/* The largest of x and `at_least`, among integers: a maximum of floats is not associative where NaN occurs,
 * and not every compiler vectorises it. */
static float largest(const float *x, int64_t count, float at_least) {
  const kp_float_bits floor = {.value = at_least};
  int32_t high = ordered((int32_t)floor.bits);
#pragma omp simd reduction(max : high)
  for (int64_t i = 0; i < count; i++) {
    const kp_float_bits element = {.value = x[i]};
    const int32_t rank = ordered((int32_t)element.bits);
    high = rank > high ? rank : high;
  }
  return (kp_float_bits){.bits = (uint32_t)ordered(high)}.value;
}

static float sum_of_exponentials(const float *x, int64_t count, float shift) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; i++) sum += kp_expf(x[i] - shift);
  return sum;
}

/* log Σ exp x.  The shift starts at the lowest finite number, so that rows which open with -inf are no
 * special case; a NaN that escapes the maximum is found by the sum. */
static double logsumexp(const float *x, int64_t count) {
  float shift = -FLT_MAX;
  double sum = 0;
  for (int64_t first = 0; first < count; first += BLOCK) {
    const int64_t width = count - first < BLOCK ? count - first : BLOCK;
    const float high = largest(x + first, width, shift);
    if (high > shift && sum != 0) sum *= exp((double)shift - (double)high);
    shift = high;
    sum += (double)sum_of_exponentials(x + first, width, shift);
  }
  return (double)shift + log(sum);
}

size_t KP_SCRATCH(cross_entropy)(const kp_node *node, int threads) {
  (void)threads;
  return (size_t)kp_tensor_rows(node->input[0]) * sizeof(double);
}

kp_status KP_KERNEL(cross_entropy)(const kp_call *call, kp_error *error) {
  const kp_cross_entropy_arguments *arguments = call->node->arguments;
  const int64_t rows = kp_tensor_rows(call->node->input[0]);
  const int64_t vocabulary = kp_tensor_columns(call->node->input[0]);
  const float *logits = call->input[0];
  const int32_t *target = call->input[1];
  float *loss = call->output[0], *statistic = call->output[1];
  double *row_loss = call->scratch, total = 0;
  KP_TRY(check_targets(target, rows, vocabulary, arguments->ignore, error));
#pragma omp parallel for schedule(static) num_threads(kp_threads_for(call, 10 * rows * vocabulary))
  for (int64_t n = 0; n < rows; n++) {
    const float *row = logits + n * vocabulary;
    const double value = logsumexp(row, vocabulary);
    statistic[n] = (float)value;
    row_loss[n] = target[n] == arguments->ignore ? 0 : value - (double)row[target[n]];
  }
  for (int64_t n = 0; n < rows; n++) total += row_loss[n];
  const int64_t count = count_targets(target, rows, arguments->ignore);
  loss[0] = count == 0 ? 0.0f : (float)(total / (double)count);
  return KP_OK;
}

static void softmax_row(const float *x, float *gx, int64_t count, float shift, float scale) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) gx[i] = scale * kp_expf(x[i] - shift);
}

kp_status KP_KERNEL(cross_entropy_backward)(const kp_call *call, kp_error *error) {
  const kp_cross_entropy_arguments *arguments = call->node->arguments;
  const int64_t rows = kp_tensor_rows(call->node->input[0]);
  const int64_t vocabulary = kp_tensor_columns(call->node->input[0]);
  const float *logits = call->input[0], *statistic = call->input[2], *g = call->input[3];
  const int32_t *target = call->input[1];
  float *g_logits = call->output[0];
  KP_TRY(check_targets(target, rows, vocabulary, arguments->ignore, error));
  const int64_t count = count_targets(target, rows, arguments->ignore);
  const float scale = count == 0 ? 0.0f : (float)((double)g[0] / (double)count);
#pragma omp parallel for schedule(static) num_threads(kp_threads_for(call, 10 * rows * vocabulary))
  for (int64_t n = 0; n < rows; n++) {
    float *row = g_logits + n * vocabulary;
    if (target[n] == arguments->ignore) {
      memset(row, 0, (size_t)vocabulary * sizeof *row);
      continue;
    }
    softmax_row(logits + n * vocabulary, row, vocabulary, statistic[n], scale);
    row[target[n]] -= scale;
  }
  return KP_OK;
}
