/* Points of the hyperboloid: lifts, homotheties and weighted centroids, forward and backward.
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

/* ---- centroid ---- */

typedef struct centroid_call {
  int64_t rows, M, C;
  const float *points, *times, *weights;
  double c;
} centroid_call;

static centroid_call centroid_of(const kp_call *call) {
  const int64_t *shape = call->node->input[0]->shape;
  return (centroid_call){.rows = shape[0],
                         .M = shape[1],
                         .C = shape[2],
                         .points = call->input[0],
                         .times = call->input[1],
                         .weights = call->input[2],
                         .c = c_at(call, 3, 0)};
}

static double time_sum(const centroid_call *k, int64_t n) {
  double sum = 0;
  for (int64_t m = n * k->M; m < (n + 1) * k->M; m++) sum += (double)k->weights[m] * (double)k->times[m];
  return sum;
}

/* Channels [d, d + count) of row n's sum. */
static inline void space_sum(const centroid_call *k, int64_t n, int64_t d, int64_t count, kp_doubles *sum) {
  kp_doubles p;
  *sum = (kp_doubles){0};
  for (int64_t m = n * k->M; m < (n + 1) * k->M; m++) {
    kp_widen(k->points + m * k->C + d, count, &p);
    *sum += (double)k->weights[m] * p;
  }
}

/* √c / |m|, 1 / (m_time² - |m_space|²) or 0 where a floor stands for it, m_time, and <g, m>. */
typedef struct centroid_row {
  double factor, inverse_square, time, product;
} centroid_row;

/* `g`: incoming gradients of the row, or NULL for the forward pass. */
static centroid_row centroid_row_of(const centroid_call *k, int64_t n, const float *g) {
  centroid_row row = {.time = time_sum(k, n)};
  kp_doubles squares = {0}, products = {0}, m, p;
  for (int64_t d = 0; d < k->C; d += KP_DOUBLES) {
    space_sum(k, n, d, k->C - d, &m);
    squares += m * m;
    if (g == NULL) continue;
    kp_widen(g + d, k->C - d, &p);
    products += m * p;
  }
  const double square = row.time * row.time - kp_total(&squares);
  const bool floored = fabs(square) < KP_LORENTZ_LEAST_SQUARE;
  row.factor = sqrt(k->c / (floored ? KP_LORENTZ_LEAST_SQUARE : fabs(square)));
  row.inverse_square = floored ? 0 : 1 / square;
  row.product = kp_total(&products);
  return row;
}

kp_status KP_KERNEL(centroid)(const kp_call *call, kp_error *error) {
  (void)error;
  const centroid_call k = centroid_of(call);
  float *space = call->output[0], *time = call->output[1];
#pragma omp parallel for schedule(static) num_threads(kp_threads_for(call, k.rows *k.M *k.C))
  for (int64_t n = 0; n < k.rows; n++) {
    const centroid_row row = centroid_row_of(&k, n, NULL);
    kp_doubles m;
    for (int64_t d = 0; d < k.C; d += KP_DOUBLES) {
      space_sum(&k, n, d, k.C - d, &m);
      m *= row.factor;
      kp_narrow(&m, k.C - d, space + n * k.C + d);
    }
    time[n] = (float)(row.factor * row.time);
  }
  return KP_OK;
}

/* The gradient of m in channels [d, d + count). */
static inline void sum_gradient(const centroid_call *k, int64_t n, const float *g, double factor,
                                double along, int64_t d, int64_t count, kp_doubles *out) {
  kp_doubles m;
  space_sum(k, n, d, count, &m);
  *out = along * m;
  if (g == NULL) return;
  kp_widen(g + n * k->C + d, count, &m);
  *out += factor * m;
}

static void point_gradient(const centroid_call *k, int64_t m, const double *g_sum, double g_time,
                           void *const output[3]) {
  const double weight = (double)k->weights[m];
  float *g_points = output[0], *g_times = output[1], *g_weights = output[2];
  kp_doubles product = {0}, g, p;
  for (int64_t d = 0; d < k->C; d += KP_DOUBLES) {
    memcpy(&g, g_sum + d, sizeof g);
    kp_widen(k->points + m * k->C + d, k->C - d, &p);
    product += g * p;
    g *= weight;
    if (g_points != NULL) kp_narrow(&g, k->C - d, g_points + m * k->C + d);
  }
  if (g_times != NULL) g_times[m] = (float)(g_time * weight);
  if (g_weights != NULL) g_weights[m] = (float)(g_time * (double)k->times[m] + kp_total(&product));
}

/* Row n's gradients; returns that of c.  `g_sum` holds C numbers and whole vectors. */
static double centroid_back(const kp_call *call, const centroid_call *k, int64_t n, double *g_sum) {
  const float *g = call->input[4], *g_time = call->input[5];
  const centroid_row row = centroid_row_of(k, n, g == NULL ? NULL : g + n * k->C);
  const double time_bar = g_time == NULL ? 0 : (double)g_time[n];
  const double product = row.product + time_bar * row.time;
  const double along = row.factor * product * row.inverse_square;
  kp_doubles sum;
  for (int64_t d = 0; d < k->C; d += KP_DOUBLES) {
    sum_gradient(k, n, g, row.factor, along, d, k->C - d, &sum);
    memcpy(g_sum + d, &sum, sizeof sum);
  }
  for (int64_t m = n * k->M; m < (n + 1) * k->M; m++)
    point_gradient(k, m, g_sum, row.factor * time_bar - along * row.time, call->output);
  return row.factor * product / (2 * k->c);
}

/* A row of C numbers and whole vectors for each thread, and a number for each row. */
size_t KP_SCRATCH(centroid_backward)(const kp_node *node, int threads) {
  kp_scratch scratch = {NULL, 64};
  kp_scratch_take(&scratch, (size_t)node->input[0]->shape[0], sizeof(double));
  for (int i = 0; i < threads; i++)
    kp_scratch_take(&scratch, (size_t)node->input[0]->shape[2] + KP_DOUBLES, sizeof(double));
  return scratch.used;
}

kp_status KP_KERNEL(centroid_backward)(const kp_call *call, kp_error *error) {
  (void)error;
  const centroid_call k = centroid_of(call);
  kp_scratch scratch = kp_scratch_at(call->scratch);
  double *bars = kp_scratch_take(&scratch, (size_t)k.rows, sizeof(double));
  const int threads = kp_threads_for(call, k.rows * k.M * k.C);
  kp_scratch one = {NULL, 0};
  kp_scratch_take(&one, (size_t)k.C + KP_DOUBLES, sizeof(double));
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; part++) {
    double *g_sum = (double *)(scratch.base + scratch.used + (size_t)part * one.used);
    const kp_range range = kp_split(k.rows, 1, part, threads);
    for (int64_t n = range.first; n < range.last; n++) bars[n] = centroid_back(call, &k, n, g_sum);
  }
  if (call->output[3] != NULL) {
    double sum = 0;
    for (int64_t n = 0; n < k.rows; n++) sum += bars[n];
    *(float *)call->output[3] += (float)sum;
  }
  return KP_OK;
}
