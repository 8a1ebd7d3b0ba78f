/* Sums, scalings and other operators without a shape: one pass over memory. */
#include <string.h>

#include "backend/cpu/isa/isa.h"
#include "backend/cpu/isa/split.h"

/* A sum is taken over this many parts, each in double, and then over the parts in order: the result does not
 * depend on the number of threads. */
enum { SUM_PARTS = 256 };

kp_status KP_KERNEL(add)(const kp_call *call, kp_error *error) {
  (void)error;
  const float *a = call->input[0], *b = call->input[1];
  float *y = call->output[0];
  const int64_t count = kp_tensor_count(call->node->output[0]);
#pragma omp parallel for simd schedule(static) num_threads(kp_threads_for(call, count))
  for (int64_t i = 0; i < count; i++) y[i] = a[i] + b[i];
  return KP_OK;
}

kp_status KP_KERNEL(zero)(const kp_call *call, kp_error *error) {
  (void)error;
  float *y = call->output[0];
  const int64_t count = kp_tensor_count(call->node->output[0]);
  const int threads = kp_threads_for(call, count);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; part++) {
    const kp_range range = kp_split(count, 16, part, threads);
    memset(y + range.first, 0, (size_t)(range.last - range.first) * sizeof *y);
  }
  return KP_OK;
}

kp_status KP_KERNEL(scale)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_scale_arguments *arguments = call->node->arguments;
  const float *x = call->input[0], scale = (float)arguments->scale;
  float *y = call->output[0];
  const int64_t count = kp_tensor_count(call->node->output[0]);
#pragma omp parallel for simd schedule(static) num_threads(kp_threads_for(call, count))
  for (int64_t i = 0; i < count; i++) y[i] = scale * x[i];
  return KP_OK;
}

static double sum_of(const float *x, kp_range range) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = range.first; i < range.last; i++) sum += (double)x[i];
  return sum;
}

kp_status KP_KERNEL(sum)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_scale_arguments *arguments = call->node->arguments;
  const float *x = call->input[0];
  float *y = call->output[0];
  const int64_t count = kp_tensor_count(call->node->input[0]);
  double partial[SUM_PARTS], sum = 0;
#pragma omp parallel for schedule(static) num_threads(kp_threads_for(call, count))
  for (int part = 0; part < SUM_PARTS; part++)
    partial[part] = sum_of(x, kp_split(count, 16, part, SUM_PARTS));
  for (int part = 0; part < SUM_PARTS; part++) sum += partial[part];
  y[0] = (float)(arguments->scale * sum);
  return KP_OK;
}

kp_status KP_KERNEL(sum_backward)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_scale_arguments *arguments = call->node->arguments;
  const float *g = call->input[0];
  const float value = (float)(arguments->scale * (double)g[0]);
  float *y = call->output[0];
  const int64_t count = kp_tensor_count(call->node->output[0]);
#pragma omp parallel for simd schedule(static) num_threads(kp_threads_for(call, count))
  for (int64_t i = 0; i < count; i++) y[i] = value;
  return KP_OK;
}
