/* A factor a column.  Backward, threads share the columns and go down all rows, so that a column's sum stays
 * in the nearest cache and needs no scratch memory. */
#include "backend/cpu/isa/isa.h"
#include "backend/cpu/isa/split.h"

enum { STRIP = 512 }; /* columns that are summed at once */

kp_status KP_KERNEL(scale_columns)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_scale_arguments *arguments = call->node->arguments;
  const int64_t rows = kp_tensor_rows(call->node->input[0]), C = kp_tensor_columns(call->node->input[0]);
  const float factor = (float)arguments->scale, *scale = call->input[1];
#pragma omp parallel for schedule(static) num_threads(kp_threads_for(call, rows *C))
  for (int64_t n = 0; n < rows; n++) {
    const float *x = (const float *)call->input[0] + n * C;
    float *y = (float *)call->output[0] + n * C;
#pragma omp simd
    for (int64_t i = 0; i < C; i++) y[i] = x[i] * (factor * scale[i]);
  }
  return KP_OK;
}

/* One row of a strip; gx may be g. */
static void strip_row(const float *x, const float *scale, const float *g, float factor, int64_t count,
                      float *gx, double *sum) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) {
    const float bar = g[i];
    sum[i] += (double)(x[i] * bar);
    gx[i] = factor * scale[i] * bar;
  }
}

static void strip_backward(const kp_call *call, kp_range columns) {
  const kp_scale_arguments *arguments = call->node->arguments;
  const int64_t rows = kp_tensor_rows(call->node->input[0]), C = kp_tensor_columns(call->node->input[0]);
  const int64_t count = columns.last - columns.first;
  const float *scale = (const float *)call->input[1] + columns.first;
  float *gscale = call->output[1];
  double sum[STRIP] = {0};
  for (int64_t n = 0; n < rows; n++) {
    const int64_t at = n * C + columns.first;
    strip_row((const float *)call->input[0] + at, scale, (const float *)call->input[2] + at,
              (float)arguments->scale, count, (float *)call->output[0] + at, sum);
  }
  for (int64_t i = 0; i < count && gscale != NULL; i++)
    gscale[columns.first + i] += (float)(arguments->scale * sum[i]);
}

kp_status KP_KERNEL(scale_columns_backward)(const kp_call *call, kp_error *error) {
  (void)error;
  const int64_t rows = kp_tensor_rows(call->node->input[0]), C = kp_tensor_columns(call->node->input[0]);
  const int threads = kp_threads_for(call, 2 * rows * C);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; part++) {
    const kp_range share = kp_split(C, 16, part, threads);
    for (int64_t first = share.first; first < share.last; first += STRIP)
      strip_backward(call, (kp_range){first, first + STRIP < share.last ? first + STRIP : share.last});
  }
  return KP_OK;
}
