/* Weighted gyromidpoints of each row's M points, forward and backward (formulas: geometry/midpoint.h).
 *
 * A row and group is summed in double: squares of the points, the mean vector, and on the way back the
 * points' inner products with it. */
#include "geometry/midpoint.h"

#include "backend/cpu/isa/seam.h"
#include "backend/cpu/isa/split.h"

typedef struct midpoints {
  int64_t N, M, C;
  const float *points, *weights, *g;
  kp_curvature_rows table;
} midpoints;

static midpoints midpoints_of(const kp_call *call) {
  const kp_tensor *points = call->node->input[0];
  return (midpoints){.N = points->shape[0],
                     .M = points->shape[1],
                     .C = points->shape[2],
                     .points = call->input[0],
                     .weights = call->input[1],
                     .table = kp_curvature_rows_of(call->input[2], call->node->input[2], points->shape[0])};
}

/* A thread's memory. */
typedef struct worker {
  double *mean;        /* (D): the mean vector of one row and group */
  double *squares;     /* (M) */
  double *weights_bar; /* (M): over the row's groups */
} worker;

static void lay_out(const midpoints *m, kp_scratch *scratch, worker *w) {
  w->mean = kp_scratch_take(scratch, (size_t)(m->C / m->table.groups), sizeof(double));
  w->squares = kp_scratch_take(scratch, (size_t)m->M, sizeof(double));
  w->weights_bar = kp_scratch_take(scratch, (size_t)m->M, sizeof(double));
}

static double square_of(const float *a, int64_t D) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t d = 0; d < D; d++) sum += (double)a[d] * (double)a[d];
  return sum;
}

/* Fills w->mean and w->squares; returns the denominator. */
static double mean_of(const midpoints *m, int64_t n, int64_t group, double kappa, worker *w) {
  const int64_t D = m->C / m->table.groups;
  const float *points = m->points + n * m->M * m->C + group * D, *weights = m->weights + n * m->M;
  double denominator = 0, *mean = w->mean;
  for (int64_t i = 0; i < m->M; i++) {
    w->squares[i] = square_of(points + i * m->C, D);
    denominator += (double)weights[i] * kp_midpoint_factor_of(w->squares[i], kappa).denominator;
  }
  denominator = kp_midpoint_floor(denominator);
  for (int64_t d = 0; d < D; d++) mean[d] = 0;
  for (int64_t i = 0; i < m->M; i++) {
    const double f = (double)weights[i] * kp_midpoint_factor_of(w->squares[i], kappa).conformal / denominator;
    const float *point = points + i * m->C;
#pragma omp simd
    for (int64_t d = 0; d < D; d++) mean[d] += f * (double)point[d];
  }
  return denominator;
}

static double mean_square(const double *mean, int64_t D) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t d = 0; d < D; d++) sum += mean[d] * mean[d];
  return sum;
}

static void forward_row(const midpoints *m, int64_t n, worker *w, float *out) {
  const int64_t D = m->C / m->table.groups;
  for (int64_t group = 0; group < m->table.groups; group++) {
    const double kappa = kp_curvature_of_row(&m->table, n, group);
    mean_of(m, n, group, kappa, w);
    const double f = kp_midpoint_close(kappa * mean_square(w->mean, D)).value;
    for (int64_t d = 0; d < D; d++) out[n * m->C + group * D + d] = (float)(f * w->mean[d]);
  }
}

size_t KP_SCRATCH(midpoint)(const kp_node *node, int threads) {
  const kp_call shapes = {.node = node};
  const midpoints m = midpoints_of(&shapes);
  kp_scratch scratch = {NULL, 64};
  worker w;
  for (int i = 0; i < threads; i++) lay_out(&m, &scratch, &w);
  return scratch.used;
}

kp_status KP_KERNEL(midpoint)(const kp_call *call, kp_error *error) {
  (void)error;
  const midpoints m = midpoints_of(call);
  const kp_scratch scratch = kp_scratch_at(call->scratch);
  const int threads = kp_threads_for(call, m.N * m.M * m.C);
  worker layout;
  kp_scratch one = {NULL, 0};
  lay_out(&m, &one, &layout);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; part++) {
    worker w;
    kp_scratch own = {scratch.base + (size_t)part * one.used, 0};
    lay_out(&m, &own, &w);
    const kp_range range = kp_split(m.N, 1, part, threads);
    for (int64_t n = range.first; n < range.last; n++) forward_row(&m, n, &w, call->output[0]);
  }
  return KP_OK;
}

/* The gradient of the mean's numerator is along_g g + along_mean mean. */
typedef struct numerator {
  double along_g, along_mean, denominator_bar;
} numerator;

static numerator numerator_of(const float *g, const double *mean, int64_t D, double kappa, double denominator,
                              double *kappa_bar) {
  const double square = mean_square(mean, D);
  const kp_slope close = kp_midpoint_close(kappa * square);
  double inner = 0;
#pragma omp simd reduction(+ : inner)
  for (int64_t d = 0; d < D; d++) inner += (double)g[d] * mean[d];
  const double z_bar = inner * close.derivative;
  *kappa_bar += z_bar * square;
  numerator bar = {close.value / denominator, 2 * kappa * z_bar / denominator, 0};
  bar.denominator_bar = -(bar.along_g * inner + bar.along_mean * square);
  return bar;
}

/* Gradients of one point; returns that of its weight. */
static double backward_point(const float *point, double weight, double square, double kappa, const float *g,
                             const double *mean, numerator bar, int64_t D, double *kappa_bar, float *gpoint) {
  const kp_midpoint_factor factor = kp_midpoint_factor_of(square, kappa);
  double along = 0;
#pragma omp simd reduction(+ : along)
  for (int64_t d = 0; d < D; d++)
    along += (bar.along_g * (double)g[d] + bar.along_mean * mean[d]) * (double)point[d];
  const double curvature_bar = weight * (along + bar.denominator_bar) * factor.by_curvature;
  const double scale = weight * factor.conformal, own = 2 * kappa * curvature_bar;
  *kappa_bar += curvature_bar * square;
  if (gpoint != NULL) {
#pragma omp simd
    for (int64_t d = 0; d < D; d++)
      gpoint[d] =
          (float)(scale * (bar.along_g * (double)g[d] + bar.along_mean * mean[d]) + own * (double)point[d]);
  }
  return factor.conformal * along + factor.denominator * bar.denominator_bar;
}

static void backward_row(const midpoints *m, int64_t n, worker *w, float *gpoints, float *gweights,
                         double *bars) {
  const int64_t M = m->M, D = m->C / m->table.groups;
  for (int64_t i = 0; i < M; i++) w->weights_bar[i] = 0;
  for (int64_t group = 0; group < m->table.groups; group++) {
    const double kappa = kp_curvature_of_row(&m->table, n, group);
    const float *g = m->g + n * m->C + group * D;
    double *kappa_bar = bars + n * m->table.groups + group;
    *kappa_bar = 0;
    const double denominator = mean_of(m, n, group, kappa, w);
    const numerator bar = numerator_of(g, w->mean, D, kappa, denominator, kappa_bar);
    for (int64_t i = 0; i < M; i++) {
      const int64_t at = (n * M + i) * m->C + group * D;
      w->weights_bar[i] +=
          backward_point(m->points + at, (double)m->weights[n * M + i], w->squares[i], kappa, g, w->mean, bar,
                         D, kappa_bar, gpoints == NULL ? NULL : gpoints + at);
    }
  }
  for (int64_t i = 0; i < M && gweights != NULL; i++) gweights[n * M + i] = (float)w->weights_bar[i];
}

/* The (N, G) gradients of κ by row, and room to sum them. */
static double *lay_out_bars(const midpoints *m, kp_scratch *scratch, double **sums) {
  double *bars = kp_scratch_take(scratch, (size_t)(m->N * m->table.groups), sizeof(double));
  *sums = kp_scratch_take(scratch, (size_t)m->table.groups, sizeof(double));
  return bars;
}

size_t KP_SCRATCH(midpoint_backward)(const kp_node *node, int threads) {
  const kp_call shapes = {.node = node};
  const midpoints m = midpoints_of(&shapes);
  kp_scratch scratch = {NULL, 64};
  worker w;
  double *sums;
  lay_out_bars(&m, &scratch, &sums);
  for (int i = 0; i < threads; i++) lay_out(&m, &scratch, &w);
  return scratch.used;
}

kp_status KP_KERNEL(midpoint_backward)(const kp_call *call, kp_error *error) {
  (void)error;
  midpoints m = midpoints_of(call);
  m.g = call->input[3];
  kp_scratch scratch = kp_scratch_at(call->scratch);
  double *sums, *bars = lay_out_bars(&m, &scratch, &sums);
  const int threads = kp_threads_for(call, m.N * m.M * m.C);
  worker layout;
  kp_scratch one = {NULL, 0};
  lay_out(&m, &one, &layout);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; part++) {
    worker w;
    kp_scratch own = {scratch.base + scratch.used + (size_t)part * one.used, 0};
    lay_out(&m, &own, &w);
    const kp_range range = kp_split(m.N, 1, part, threads);
    for (int64_t n = range.first; n < range.last; n++)
      backward_row(&m, n, &w, call->output[0], call->output[1], bars);
  }
  if (call->output[2] != NULL) kp_curvature_rows_reduce(&m.table, bars, sums, call->output[2]);
  return KP_OK;
}
