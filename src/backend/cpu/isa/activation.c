/* Activations, plain and gated, and their gradients: one pass over memory. */
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

/* ---- u · f(g) ---- */

/* The two factors of a gated activation, or their gradients: rows of `width` numbers, `step` apart. */
typedef struct kp_gated {
  float *up, *gate;
  int64_t width, step;
} kp_gated;

/* `packed`: one tensor with u and g side by side in each row. */
static kp_gated gated_of(void *up, void *gate, bool packed, int64_t width) {
  if (packed) return (kp_gated){up, (float *)up + width, width, 2 * width};
  return (kp_gated){up, gate, width, width};
}

KP_INLINE void gate_row(kp_activation_kind kind, const float *u, const float *g, float *y, int64_t width) {
#pragma omp simd
  for (int64_t i = 0; i < width; i++) y[i] = u[i] * kp_activation_value(kind, g[i]);
}

static void gate_row_kind(kp_activation_kind kind, const float *u, const float *g, float *y, int64_t width) {
  switch (kind) {
  case KP_GELU_ERF: gate_row(KP_GELU_ERF, u, g, y, width); break;
  case KP_GELU_TANH: gate_row(KP_GELU_TANH, u, g, y, width); break;
  case KP_SILU: gate_row(KP_SILU, u, g, y, width); break;
  }
}

kp_status KP_KERNEL(gated_activation)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_gated_arguments *arguments = call->node->arguments;
  const kp_tensor *output = call->node->output[0];
  const int64_t rows = kp_tensor_rows(output), width = kp_tensor_columns(output);
  const kp_gated x = gated_of(call->input[0], call->input[1], arguments->packed, width);
  float *y = call->output[0];
#pragma omp parallel for schedule(static) num_threads(threads_for(call, rows *width))
  for (int64_t n = 0; n < rows; n++)
    gate_row_kind(arguments->kind, x.up + n * x.step, x.gate + n * x.step, y + n * width, width);
  return KP_OK;
}

/* ---- its gradients: gu = gy f(g), gg = gy u f'(g) ---- */

KP_INLINE void ungate_row(kp_activation_kind kind, const float *u, const float *g, const float *gy, float *gu,
                          float *gg, int64_t width) {
#pragma omp simd
  for (int64_t i = 0; i < width; i++) {
    const float up = u[i], gate = g[i];
    gu[i] = gy[i] * kp_activation_value(kind, gate);
    gg[i] = gy[i] * up * kp_activation_slope(kind, gate);
  }
}

static void ungate_row_kind(kp_activation_kind kind, const float *u, const float *g, const float *gy,
                            float *gu, float *gg, int64_t width) {
  switch (kind) {
  case KP_GELU_ERF: ungate_row(KP_GELU_ERF, u, g, gy, gu, gg, width); break;
  case KP_GELU_TANH: ungate_row(KP_GELU_TANH, u, g, gy, gu, gg, width); break;
  case KP_SILU: ungate_row(KP_SILU, u, g, gy, gu, gg, width); break;
  }
}

kp_status KP_KERNEL(gated_activation_backward)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_node *node = call->node;
  const kp_gated_arguments *arguments = node->arguments;
  const int64_t rows = kp_tensor_rows(node->input[2]), width = kp_tensor_columns(node->input[2]);
  const kp_gated x = gated_of(call->input[0], call->input[1], arguments->packed, width);
  const kp_gated gx =
      gated_of(call->output[0], arguments->packed ? NULL : call->output[1], arguments->packed, width);
  const float *gy = call->input[2];
#pragma omp parallel for schedule(static) num_threads(threads_for(call, rows *width))
  for (int64_t n = 0; n < rows; n++)
    ungate_row_kind(arguments->kind, x.up + n * x.step, x.gate + n * x.step, gy + n * width,
                    gx.up + n * gx.step, gx.gate + n * gx.step, width);
  return KP_OK;
}
