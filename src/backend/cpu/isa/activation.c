/* Activations and their gradients: one pass over memory. */
#include "backend/cpu/isa/activation_functions.h"
#include "backend/cpu/isa/isa.h"
#include "backend/cpu/isa/split.h"

/* An activation costs as much as some ten additions. */
static int threads_for(const kp_call *call, int64_t count) {
  return kp_threads_for(call, 10 * count);
}

/* ---- f(x) ---- */

KP_INLINE void apply(kp_activation_kind kind, const float *x, float *y, kp_range range) {
#pragma omp simd
  for (int64_t i = range.first; i < range.last; i++) y[i] = kp_activation_value(kind, x[i]);
}

static void apply_kind(kp_activation_kind kind, const float *x, float *y, kp_range range) {
  switch (kind) {
  case KP_GELU_ERF: apply(KP_GELU_ERF, x, y, range); break;
  case KP_GELU_TANH: apply(KP_GELU_TANH, x, y, range); break;
  case KP_SILU: apply(KP_SILU, x, y, range); break;
  }
}

kp_status KP_KERNEL(activation)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_activation_arguments *arguments = call->node->arguments;
  const int64_t count = kp_tensor_count(call->node->output[0]);
  const int threads = threads_for(call, count);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; part++)
    apply_kind(arguments->kind, call->input[0], call->output[0], kp_split(count, 16, part, threads));
  return KP_OK;
}

/* ---- gy f'(x) ---- */

KP_INLINE void apply_slope(kp_activation_kind kind, const float *x, const float *gy, float *gx,
                           kp_range range) {
#pragma omp simd
  for (int64_t i = range.first; i < range.last; i++) gx[i] = gy[i] * kp_activation_slope(kind, x[i]);
}

static void apply_slope_kind(kp_activation_kind kind, const float *x, const float *gy, float *gx,
                             kp_range range) {
  switch (kind) {
  case KP_GELU_ERF: apply_slope(KP_GELU_ERF, x, gy, gx, range); break;
  case KP_GELU_TANH: apply_slope(KP_GELU_TANH, x, gy, gx, range); break;
  case KP_SILU: apply_slope(KP_SILU, x, gy, gx, range); break;
  }
}

kp_status KP_KERNEL(activation_backward)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_activation_arguments *arguments = call->node->arguments;
  const int64_t count = kp_tensor_count(call->node->output[0]);
  const int threads = threads_for(call, count);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; part++)
    apply_slope_kind(arguments->kind, call->input[0], call->input[1], call->output[0],
                     kp_split(count, 16, part, threads));
  return KP_OK;
}
