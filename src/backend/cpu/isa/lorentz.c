/* Points of the hyperboloid: lifts and homotheties, forward and backward.
 *
 * Squares are summed in double: the time of a large vector does not overflow, and a Lorentz norm, which is
 * the difference of two large squares, keeps its digits. */
#include <math.h>
#include <string.h>

#include "backend/cpu/isa/isa.h"
#include "backend/cpu/isa/row_sums.h"
#include "backend/cpu/isa/scratch.h"
#include "backend/cpu/isa/split.h"

/* c of group g from a tensor of one number or one a group. */
static double c_at(const kp_call *call, int input, int64_t g) {
  const float *c = call->input[input];
  if (c == NULL) return 1;
  return (double)c[kp_tensor_count(call->node->input[input]) == 1 ? 0 : g];
}

/* ---- lift ---- */

kp_status KP_KERNEL(lift)(const kp_call *call, kp_error *error) {
  (void)error;
  const float *space = call->input[0];
  float *time = call->output[0];
  const int64_t rows = kp_tensor_rows(call->node->input[0]), C = kp_tensor_columns(call->node->input[0]);
  const int64_t groups = kp_tensor_columns(call->node->output[0]), D = C / groups;
#pragma omp parallel for schedule(static) num_threads(kp_threads_for(call, rows *C))
  for (int64_t n = 0; n < rows; n++)
    for (int64_t g = 0; g < groups; g++)
      time[n * groups + g] = (float)sqrt(kp_square_sum(space + n * C + g * D, D) + c_at(call, 1, g));
  return KP_OK;
}

/* g s = direct + along s on one group. */
static void lift_back(const float *s, float along, const float *direct, float *g, int64_t D) {
  if (direct == NULL) {
#pragma omp simd
    for (int64_t d = 0; d < D; d++) g[d] = along * s[d];
  } else {
#pragma omp simd
    for (int64_t d = 0; d < D; d++) g[d] = direct[d] + along * s[d];
  }
}

size_t KP_SCRATCH(lift_backward)(const kp_node *node, int threads) {
  (void)threads;
  kp_scratch scratch = {NULL, 64};
  kp_scratch_take(&scratch, (size_t)kp_tensor_columns(node->input[2]), sizeof(double));
  return scratch.used;
}

/* Half of g time / time, summed over the rows in order, for each group; added up where c is one number. */
static void add_c_gradient(const kp_call *call, int64_t rows, int64_t groups, double *sums) {
  const float *time = call->input[2], *g_time = call->input[3];
  float *g_c = call->output[1];
  if (g_c == NULL) return;
  const int64_t count = kp_tensor_count(call->node->output[1]);
  for (int64_t g = 0; g < groups; g++) sums[g] = 0;
  for (int64_t n = 0; n < rows; n++)
    for (int64_t g = 0; g < groups; g++)
      sums[g] += 0.5 * (double)g_time[n * groups + g] / (double)time[n * groups + g];
  for (int64_t g = count; g < groups; g++) sums[0] += sums[g];
  for (int64_t g = 0; g < count; g++) g_c[g] += (float)sums[g];
}

kp_status KP_KERNEL(lift_backward)(const kp_call *call, kp_error *error) {
  (void)error;
  const float *space = call->input[0], *time = call->input[2], *g_time = call->input[3];
  const float *direct = call->input[4];
  float *g_space = call->output[0];
  const int64_t rows = kp_tensor_rows(call->node->input[0]), C = kp_tensor_columns(call->node->input[0]);
  const int64_t groups = kp_tensor_columns(call->node->input[2]), D = C / groups;
  kp_scratch scratch = kp_scratch_at(call->scratch);
#pragma omp parallel for schedule(static) num_threads(kp_threads_for(call, rows *C))
  for (int64_t n = 0; n < rows; n++)
    for (int64_t g = 0; g < groups; g++) {
      const int64_t at = n * C + g * D, row = n * groups + g;
      lift_back(space + at, g_time[row] / time[row], direct == NULL ? NULL : direct + at, g_space + at, D);
    }
  add_c_gradient(call, rows, groups, kp_scratch_take(&scratch, (size_t)groups, sizeof(double)));
  return KP_OK;
}

/* ---- homothety ---- */

static float homothety_factor(const kp_call *call) {
  return (float)sqrt(c_at(call, 3, 0) / c_at(call, 2, 0));
}

static void scale(const float *x, float factor, int64_t count, float *out) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) out[i] = factor * x[i];
}

kp_status KP_KERNEL(homothety)(const kp_call *call, kp_error *error) {
  (void)error;
  const float factor = homothety_factor(call), *space = call->input[0];
  float *out = call->output[0];
  const int64_t rows = kp_tensor_rows(call->node->output[0]), C = kp_tensor_columns(call->node->output[0]);
#pragma omp parallel for schedule(static) num_threads(kp_threads_for(call, rows *C))
  for (int64_t n = 0; n < rows; n++) scale(space + n * C, factor, C, out + n * C);
  scale(call->input[1], factor, kp_tensor_count(call->node->output[1]), call->output[1]);
  return KP_OK;
}

static double dot(const float *a, const float *b, int64_t count) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; i++) sum += (double)a[i] * (double)b[i];
  return sum;
}

/* <g x, x> and the scaled gradient of a run of numbers. */
static double homothety_back(const float *x, const float *g, float factor, int64_t count, float *gx) {
  if (g == NULL) return 0;
  if (gx != NULL) scale(g, factor, count, gx);
  return dot(x, g, count);
}

/* One number a row. */
size_t KP_SCRATCH(homothety_backward)(const kp_node *node, int threads) {
  (void)threads;
  return (size_t)kp_tensor_rows(node->input[0]) * sizeof(double);
}

kp_status KP_KERNEL(homothety_backward)(const kp_call *call, kp_error *error) {
  (void)error;
  const float factor = homothety_factor(call), *space = call->input[0], *g = call->input[4];
  float *gx = call->output[0], *g_from = call->output[2], *g_to = call->output[3];
  const int64_t rows = kp_tensor_rows(call->node->input[0]), C = kp_tensor_columns(call->node->input[0]);
  double *bars = call->scratch;
#pragma omp parallel for schedule(static) num_threads(kp_threads_for(call, rows *C))
  for (int64_t n = 0; n < rows; n++)
    bars[n] = homothety_back(space + n * C, g == NULL ? NULL : g + n * C, factor, C,
                             gx == NULL ? NULL : gx + n * C);
  double product = homothety_back(call->input[1], call->input[5], factor,
                                  kp_tensor_count(call->node->input[1]), call->output[1]);
  for (int64_t n = 0; n < rows; n++) product += bars[n];
  if (g_from != NULL) *g_from -= (float)((double)factor * product / (2 * c_at(call, 2, 0)));
  if (g_to != NULL) *g_to += (float)((double)factor * product / (2 * c_at(call, 3, 0)));
  return KP_OK;
}
