/* Rows on their way to and from experts, and the points of each expert's curvature: one pass over memory.
 * Sums over a row or over an expert's rows are in double. */
#include <math.h>
#include <string.h>

#include "backend/cpu/isa/isa.h"
#include "backend/cpu/isa/split.h"

/* ---- gather_rows ---- */

kp_status KP_KERNEL(gather_rows)(const kp_call *call, kp_error *error) {
  (void)error;
  const float *x = call->input[0], *time = call->input[1];
  const int32_t *order = call->input[2];
  float *rows = call->output[0], *times = call->output[1];
  const int64_t R = kp_tensor_count(call->node->input[2]), C = kp_tensor_columns(call->node->input[0]);
#pragma omp parallel for schedule(static) num_threads(kp_threads_for(call, R *C))
  for (int64_t r = 0; r < R; r++) {
    memcpy(rows + r * C, x + order[r] * C, (size_t)C * sizeof *rows);
    if (time != NULL) times[r] = time[order[r]];
  }
  return KP_OK;
}

static void add_row(float *restrict to, const float *restrict from, int64_t count) {
#pragma omp simd
  for (int64_t c = 0; c < count; c++) to[c] += from[c];
}

kp_status KP_KERNEL(gather_rows_backward)(const kp_call *call, kp_error *error) {
  (void)error;
  const float *g = call->input[0], *gt = call->input[1];
  const int32_t *slot = call->input[2];
  float *gx = call->output[0], *gtime = call->output[1];
  const int64_t N = kp_tensor_rows(call->node->input[2]), k = kp_tensor_columns(call->node->input[2]);
  const int64_t C = g == NULL ? 0 : kp_tensor_columns(call->node->input[0]);
#pragma omp parallel for schedule(static) num_threads(kp_threads_for(call, N *k *(C + 1)))
  for (int64_t n = 0; n < N; n++) {
    const int32_t *own = slot + n * k;
    float sum = 0;
    if (g != NULL) memcpy(gx + n * C, g + own[0] * C, (size_t)C * sizeof *gx);
    for (int64_t j = 1; j < k && g != NULL; j++) add_row(gx + n * C, g + own[j] * C, C);
    for (int64_t j = 0; j < k && gt != NULL; j++) sum += gt[own[j]];
    if (gt != NULL) gtime[n] = sum;
  }
  return KP_OK;
}

/* ---- expert_lift ---- */

static int64_t expert_of(const int32_t *offsets, int64_t r) {
  int64_t e = 0;
  while (offsets[e + 1] <= r) e++;
  return e;
}

static double square_of(const float *a, int64_t count) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; i++) sum += (double)a[i] * (double)a[i];
  return sum;
}

kp_status KP_KERNEL(expert_lift)(const kp_call *call, kp_error *error) {
  (void)error;
  const float *space = call->input[0], *c = call->input[2];
  const int32_t *offsets = call->input[1];
  float *time = call->output[0];
  const int64_t R = kp_tensor_rows(call->node->input[0]), C = kp_tensor_columns(call->node->input[0]);
  const int threads = kp_threads_for(call, R * C);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; part++) {
    const kp_range range = kp_split(R, 1, part, threads);
    int64_t e = range.first < range.last ? expert_of(offsets, range.first) : 0;
    for (int64_t r = range.first; r < range.last; r++) {
      while (offsets[e + 1] <= r) e++;
      time[r] = (float)sqrt(square_of(space + r * C, C) + (double)c[e]);
    }
  }
  return KP_OK;
}

kp_status KP_KERNEL(expert_lift_backward)(const kp_call *call, kp_error *error) {
  (void)error;
  const float *space = call->input[0], *time = call->input[2], *g = call->input[3], *direct = call->input[4];
  const int32_t *offsets = call->input[1];
  float *gspace = call->output[0], *gc = call->output[1];
  const int64_t R = kp_tensor_rows(call->node->input[0]), C = kp_tensor_columns(call->node->input[0]);
  const int64_t E = kp_tensor_count(call->node->input[1]) - 1;
  for (int64_t e = 0; e < E && gc != NULL; e++) {
    double sum = 0;
    for (int64_t r = offsets[e]; r < offsets[e + 1]; r++) sum += (double)g[r] / (2 * (double)time[r]);
    gc[e] += (float)sum;
  }
  if (gspace == NULL) return KP_OK;
#pragma omp parallel for schedule(static) num_threads(kp_threads_for(call, R *C))
  for (int64_t r = 0; r < R; r++) {
    const float factor = g[r] / time[r], *s = space + r * C;
    float *gs = gspace + r * C;
    if (direct == NULL) {
#pragma omp simd
      for (int64_t i = 0; i < C; i++) gs[i] = factor * s[i];
    } else {
      const float *arrived = direct + r * C;
#pragma omp simd
      for (int64_t i = 0; i < C; i++) gs[i] = arrived[i] + factor * s[i];
    }
  }
  return KP_OK;
}

/* ---- expert_scale: E numbers ---- */

kp_status KP_KERNEL(expert_scale)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_expert_scale_arguments *a = call->node->arguments;
  const float *c = call->input[0], reference = call->input[1] == NULL ? 1 : *(const float *)call->input[1];
  float *out = call->output[0];
  for (int64_t e = 0; e < kp_tensor_count(call->node->input[0]); e++)
    out[e] = sqrtf(a->inverse ? reference / c[e] : c[e] / reference);
  return KP_OK;
}

kp_status KP_KERNEL(expert_scale_backward)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_expert_scale_arguments *a = call->node->arguments;
  const float *c = call->input[0], *scale = call->input[2], *g = call->input[3];
  const double reference = call->input[1] == NULL ? 1 : (double)*(const float *)call->input[1];
  float *gc = call->output[0], *greference = call->output[1];
  double sum = 0;
  for (int64_t e = 0; e < kp_tensor_count(call->node->input[0]); e++) {
    const double half = (a->inverse ? -0.5 : 0.5) * (double)g[e] * (double)scale[e];
    if (gc != NULL) gc[e] += (float)(half / (double)c[e]);
    sum += half / reference;
  }
  if (greference != NULL) *greference -= (float)sum;
  return KP_OK;
}
