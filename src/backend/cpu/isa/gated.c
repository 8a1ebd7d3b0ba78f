/* Gated activations y = (s_u u) · f(s_g g), the lift of y, and their gradients: one pass over memory.
 *
 * The row functions are compiled for each kind of activation, with and without scales. */
#include <math.h>
#include <string.h>

#include "backend/cpu/isa/activation_functions.h"
#include "backend/cpu/isa/isa.h"
#include "backend/cpu/isa/row_sums.h"
#include "backend/cpu/isa/scratch.h"
#include "backend/cpu/isa/split.h"

/* An activation costs as much as some ten additions. */
static int threads_for(const kp_call *call, int64_t count) {
  return kp_threads_for(call, 10 * count);
}

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

/* Input `index` where the node has so many. */
static const float *optional(const kp_call *call, int index) {
  return index < call->node->inputs ? call->input[index] : NULL;
}

/* Factors of u, g: scale (2 width), the second half times `gate`; all 1 where scale is NULL. */
typedef struct scales {
  const float *scale;
  float gate;
} scales;

/* ---- y ---- */

KP_INLINE void row(kp_activation_kind kind, bool scaled, const float *u, const float *g, scales s, float *y,
                   int64_t width) {
#pragma omp simd
  for (int64_t i = 0; i < width; i++) {
    const float up = scaled ? s.scale[i] * u[i] : u[i];
    const float gate = scaled ? s.gate * s.scale[width + i] * g[i] : g[i];
    y[i] = up * kp_activation_value(kind, gate);
  }
}

KP_INLINE void row_kind(kp_activation_kind kind, const float *u, const float *g, scales s, float *y,
                        int64_t width) {
  if (s.scale == NULL)
    row(kind, false, u, g, s, y, width);
  else
    row(kind, true, u, g, s, y, width);
}

static void gate_row(kp_activation_kind kind, const float *u, const float *g, scales s, float *y,
                     int64_t width) {
  switch (kind) {
  case KP_GELU_ERF: row_kind(KP_GELU_ERF, u, g, s, y, width); break;
  case KP_GELU_TANH: row_kind(KP_GELU_TANH, u, g, s, y, width); break;
  case KP_SILU: row_kind(KP_SILU, u, g, s, y, width); break;
  }
}

kp_status KP_KERNEL(gated_activation)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_gated_arguments *arguments = call->node->arguments;
  const kp_tensor *output = call->node->output[0];
  const int64_t rows = kp_tensor_rows(output), width = kp_tensor_columns(output);
  const kp_gated x = gated_of(call->input[0], call->input[1], arguments->packed, width);
  const scales s = {optional(call, 2), (float)arguments->gate_scale};
  const float *c = optional(call, 3);
  float *y = call->output[0], *time = arguments->lift ? call->output[1] : NULL;
#pragma omp parallel for schedule(static) num_threads(threads_for(call, rows *width))
  for (int64_t n = 0; n < rows; n++) {
    gate_row(arguments->kind, x.up + n * x.step, x.gate + n * x.step, s, y + n * width, width);
    if (time != NULL)
      time[n] = (float)sqrt(kp_square_sum(y + n * width, width) + (c == NULL ? 1 : (double)*c));
  }
  return KP_OK;
}

/* ---- its gradients: with a = s_u u and b = s_g g, ga = gy f(b), gb = gy a f'(b) ---- */

/* A row of what is known, and of what is wanted; `scale` (2 width) is added to. */
typedef struct gradient_row {
  const float *u, *g, *gy;
  float along; /* g y = gy + along y: what comes through the time */
  float *gu, *gg, *scale;
} gradient_row;

KP_INLINE void back(kp_activation_kind kind, bool scaled, gradient_row r, scales s, int64_t width) {
#pragma omp simd
  for (int64_t i = 0; i < width; i++) {
    const float up_scale = scaled ? s.scale[i] : 1, gate_scale = scaled ? s.gate * s.scale[width + i] : 1;
    const float u = r.u[i], g = r.g[i], up = up_scale * u, gate = gate_scale * g;
    const float value = kp_activation_value(kind, gate), gy = r.gy[i] + r.along * (up * value);
    const float up_bar = gy * value, gate_bar = gy * up * kp_activation_slope(kind, gate);
    r.gu[i] = scaled ? up_bar * up_scale : up_bar;
    r.gg[i] = scaled ? gate_bar * gate_scale : gate_bar;
    if (scaled) {
      r.scale[i] += up_bar * u;
      r.scale[width + i] += gate_bar * s.gate * g;
    }
  }
}

KP_INLINE void back_kind(kp_activation_kind kind, gradient_row r, scales s, int64_t width) {
  if (s.scale == NULL)
    back(kind, false, r, s, width);
  else
    back(kind, true, r, s, width);
}

static void back_row(kp_activation_kind kind, gradient_row r, scales s, int64_t width) {
  switch (kind) {
  case KP_GELU_ERF: back_kind(KP_GELU_ERF, r, s, width); break;
  case KP_GELU_TANH: back_kind(KP_GELU_TANH, r, s, width); break;
  case KP_SILU: back_kind(KP_SILU, r, s, width); break;
  }
}

/* The gradient of the scales: sums over a block of rows in float, over a thread's blocks in double. */
enum { BLOCK = 32 };

typedef struct scale_sums {
  float *block;
  double *total;
} scale_sums;

static void lay_out(const kp_node *node, kp_scratch *scratch, scale_sums *sums) {
  const bool scaled = node->inputs > 3 && node->input[3] != NULL;
  const size_t count = scaled ? (size_t)kp_tensor_count(node->input[3]) : 0;
  sums->block = kp_scratch_take(scratch, count, sizeof(float));
  sums->total = kp_scratch_take(scratch, count, sizeof(double));
}

size_t KP_SCRATCH(gated_activation_backward)(const kp_node *node, int threads) {
  kp_scratch scratch = {NULL, 64};
  scale_sums sums;
  for (int i = 0; i < threads; i++) lay_out(node, &scratch, &sums);
  return scratch.used;
}

static void work(const kp_call *call, kp_range range, int64_t width, const scale_sums *sums) {
  const kp_gated_arguments *arguments = call->node->arguments;
  const kp_gated x = gated_of(call->input[0], call->input[1], arguments->packed, width);
  const kp_gated gx =
      gated_of(call->output[0], arguments->packed ? NULL : call->output[1], arguments->packed, width);
  const scales s = {optional(call, 3), (float)arguments->gate_scale};
  const float *gy = call->input[2], *time = optional(call, 5), *g_time = optional(call, 6);
  const int64_t count = s.scale == NULL ? 0 : 2 * width;
  for (int64_t i = 0; i < count; i++) sums->total[i] = 0;
  for (int64_t first = range.first; first < range.last; first += BLOCK) {
    const int64_t last = first + BLOCK < range.last ? first + BLOCK : range.last;
    for (int64_t i = 0; i < count; i++) sums->block[i] = 0;
    for (int64_t n = first; n < last; n++) {
      const gradient_row r = {x.up + n * x.step,   x.gate + n * x.step,
                              gy + n * width,      g_time == NULL ? 0 : g_time[n] / time[n],
                              gx.up + n * gx.step, gx.gate + n * gx.step,
                              sums->block};
      back_row(arguments->kind, r, s, width);
    }
    for (int64_t i = 0; i < count; i++) sums->total[i] += (double)sums->block[i];
  }
}

/* dc: half of g time / time, summed over the rows in order. */
static void add_c_gradient(const kp_call *call, int64_t rows, float *g_c) {
  const float *time = optional(call, 5), *g_time = optional(call, 6);
  double sum = 0;
  if (g_c == NULL || g_time == NULL) return;
  for (int64_t n = 0; n < rows; n++) sum += 0.5 * (double)g_time[n] / (double)time[n];
  *g_c += (float)sum;
}

kp_status KP_KERNEL(gated_activation_backward)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_node *node = call->node;
  const int64_t rows = kp_tensor_rows(node->input[2]), width = kp_tensor_columns(node->input[2]);
  const int threads = threads_for(call, rows * width);
  const kp_scratch scratch = kp_scratch_at(call->scratch);
  kp_scratch one = {NULL, 0};
  scale_sums sums;
  lay_out(node, &one, &sums);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; part++) {
    scale_sums own;
    kp_scratch place = {scratch.base + (size_t)part * one.used, 0};
    lay_out(node, &place, &own);
    work(call, kp_split(rows, 1, part, threads), width, &own);
  }
  if (node->outputs > 2 && call->output[2] != NULL) {
    kp_scratch place = scratch;
    lay_out(node, &place, &sums);
    kp_add_parts(sums.total, one.used, threads, 2 * width, call->output[2]);
  }
  if (node->outputs > 3) add_c_gradient(call, rows, call->output[3]);
  return KP_OK;
}
