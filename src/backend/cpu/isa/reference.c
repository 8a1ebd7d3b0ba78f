/* Reference points of each row from the rows before it (ops/reference.c has the definitions).
 *
 * previous copies rows; mean runs through a sequence once for a block of channels; midpoint takes each row's
 * window by itself.  In log coordinates exp_0(h) = τ h, so the midpoint of a window is a combination of its
 * stored rows: with λ and the denominator of geometry/midpoint.h,
 *     M = Σ λ_i τ_i h_i / Σ (λ_i - 1),   result = ψ(κ |c M|²) c M,   c = 1 / (1 + sqrt(1 + κ|M|²)). */
#include <string.h>

#include "backend/cpu/isa/seam.h"
#include "backend/cpu/isa/split.h"
#include "geometry/midpoint.h"

enum { BLOCK = 64 }; /* channels that a running mean carries at once */

typedef struct walk {
  const kp_reference_arguments *arguments;
  int64_t rows, T, C;
  const float *stream, *history, *g;
  int64_t seen;             /* rows before row 0 */
  const int32_t *documents; /* or NULL */
  kp_curvature_rows table;
} walk;

static walk walk_of(const kp_call *call, bool forward) {
  const kp_node *node = call->node;
  walk w = {.arguments = node->arguments,
            .rows = kp_tensor_rows(node->input[0]),
            .C = kp_tensor_columns(node->input[0]),
            .stream = call->input[0],
            .history = forward ? call->input[2] : NULL,
            .g = forward ? NULL : call->input[2],
            .documents = call->input[forward ? 4 : 3]};
  w.T = w.arguments->length;
  w.seen = w.history == NULL ? 0 : *(const int32_t *)call->input[3];
  w.table = kp_curvature_rows_of(call->input[1], node->input[1], w.rows);
  return w;
}

/* Row t of sequence b; t < 0 reaches into the history. */
static const float *row_before(const walk *w, int64_t b, int64_t t) {
  if (t >= 0) return w->stream + (b * w->T + t) * w->C;
  const int64_t held = w->arguments->kind == KP_REFERENCE_MIDPOINT ? w->arguments->window : 1;
  return w->history + (b * held + held + t) * w->C;
}

/* Whether row t is its document's first. */
static bool begins(const walk *w, int64_t b, int64_t t) {
  if (t == 0) return w->seen == 0;
  return w->documents != NULL && w->documents[b * w->T + t] != w->documents[b * w->T + t - 1];
}

/* Rows in row t's window. */
static int64_t window_of(const walk *w, int64_t b, int64_t t) {
  const int64_t past = w->seen + t, most = past < w->arguments->window ? past : w->arguments->window;
  int64_t count = 0;
  if (w->documents == NULL) return most;
  while (count < most && !begins(w, b, t - count)) count++;
  return count;
}

static void previous_row(const walk *w, int64_t n, float *out) {
  const int64_t b = n / w->T, t = n % w->T;
  if (begins(w, b, t))
    memset(out, 0, (size_t)w->C * sizeof *out);
  else
    memcpy(out, row_before(w, b, t - 1), (size_t)w->C * sizeof *out);
}

/* The running means of channels [from, to) of sequence b. */
static void mean_block(const walk *w, int64_t b, int64_t from, int64_t to, float *out) {
  double mean[BLOCK] = {0};
  if (w->seen > 0)
    for (int64_t c = from; c < to; c++) mean[c - from] = (double)row_before(w, b, -1)[c];
  int64_t past = w->seen;
  for (int64_t t = 0; t < w->T; t++, past++) {
    float *r = out + (b * w->T + t) * w->C;
    if (t > 0 && begins(w, b, t)) {
      memset(mean, 0, sizeof mean);
      past = 0;
    }
    const bool moves = t > 0 && past > 0;
    const double share = moves ? 1 / (double)past : 0;
    const float *newest = moves ? row_before(w, b, t - 1) : r;
    for (int64_t c = from; c < to; c++) {
      if (moves) mean[c - from] += ((double)newest[c] - mean[c - from]) * share;
      r[c] = (float)mean[c - from];
    }
  }
}

/* What a row of a window contributes. */
typedef struct window_point {
  double square;             /* |h|² */
  kp_radial radial;          /* τ and its slope */
  kp_midpoint_factor factor; /* of the point τ h */
} window_point;

static double square_of(const float *h, int64_t D) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t d = 0; d < D; d++) sum += (double)h[d] * (double)h[d];
  return sum;
}

static window_point window_point_of(const float *h, int64_t D, double kappa) {
  window_point point = {.square = square_of(h, D)};
  point.radial = kp_radial_of(kappa * point.square);
  point.factor = kp_midpoint_factor_of(point.radial.ratio * point.radial.ratio * point.square, kappa);
  return point;
}

/* A thread's memory: M of one group, and the window's points. */
typedef struct worker {
  double *mean;         /* (D) */
  window_point *points; /* (W) */
} worker;

static void lay_out(const walk *w, kp_scratch *scratch, worker *own) {
  const int64_t window = w->arguments->kind == KP_REFERENCE_MIDPOINT ? w->arguments->window : 0;
  own->mean = kp_scratch_take(scratch, (size_t)(w->C / w->table.groups), sizeof(double));
  own->points = kp_scratch_take(scratch, (size_t)window, sizeof(window_point));
}

/* M of one group of row (b, t) and what follows from |M|². */
typedef struct middle {
  double kappa, denominator;
  double square;      /* |M|² */
  kp_slope close;     /* c, by κ|M|² */
  kp_slope logarithm; /* ψ, by κ|c M|² */
} middle;

static middle middle_of(const walk *w, int64_t b, int64_t t, int64_t group, worker *own) {
  const int64_t D = w->C / w->table.groups, count = window_of(w, b, t);
  middle m = {.kappa = kp_curvature_of_row(&w->table, b * w->T + t, group)};
  double *mean = own->mean;
  for (int64_t i = 0; i < count; i++) {
    own->points[i] = window_point_of(row_before(w, b, t - count + i) + group * D, D, m.kappa);
    m.denominator += own->points[i].factor.denominator;
  }
  m.denominator = kp_midpoint_floor(m.denominator);
  for (int64_t d = 0; d < D; d++) mean[d] = 0;
  for (int64_t i = 0; i < count; i++) {
    const float *h = row_before(w, b, t - count + i) + group * D;
    const double f = own->points[i].factor.conformal * own->points[i].radial.ratio / m.denominator;
#pragma omp simd
    for (int64_t d = 0; d < D; d++) mean[d] += f * (double)h[d];
  }
  double square = 0;
#pragma omp simd reduction(+ : square)
  for (int64_t d = 0; d < D; d++) square += mean[d] * mean[d];
  m.square = square;
  m.close = kp_midpoint_close(m.kappa * m.square);
  m.logarithm = kp_atan_ratio_both(m.kappa * m.close.value * m.close.value * m.square);
  return m;
}

static void midpoint_row(const walk *w, int64_t n, worker *own, float *out) {
  const int64_t b = n / w->T, t = n % w->T, D = w->C / w->table.groups;
  if (begins(w, b, t)) {
    memset(out, 0, (size_t)w->C * sizeof *out);
    return;
  }
  for (int64_t group = 0; group < w->table.groups; group++) {
    const middle m = middle_of(w, b, t, group, own);
    const double f = m.logarithm.value * m.close.value;
    for (int64_t d = 0; d < D; d++) out[group * D + d] = (float)(f * own->mean[d]);
  }
}

size_t KP_SCRATCH(reference)(const kp_node *node, int threads) {
  const walk w = {.arguments = node->arguments,
                  .C = kp_tensor_columns(node->input[0]),
                  .table = kp_curvature_rows_of(NULL, node->input[1], kp_tensor_rows(node->input[0]))};
  kp_scratch scratch = {NULL, 64};
  worker own;
  for (int i = 0; i < threads; i++) lay_out(&w, &scratch, &own);
  return scratch.used;
}

kp_status KP_KERNEL(reference)(const kp_call *call, kp_error *error) {
  (void)error;
  const walk w = walk_of(call, true);
  const kp_scratch scratch = kp_scratch_at(call->scratch);
  const int threads = kp_threads_for(call, w.rows * w.C);
  const int64_t blocks = (w.C + BLOCK - 1) / BLOCK, sequences = w.rows / w.T;
  const bool mean = w.arguments->kind == KP_REFERENCE_MEAN;
  float *out = call->output[0];
  worker layout;
  kp_scratch one = {NULL, 0};
  lay_out(&w, &one, &layout);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; part++) {
    worker own;
    kp_scratch piece = {scratch.base + (size_t)part * one.used, 0};
    lay_out(&w, &piece, &own);
    const kp_range range = kp_split(mean ? sequences * blocks : w.rows, 1, part, threads);
    for (int64_t i = range.first; i < range.last; i++) {
      const int64_t from = i % blocks * BLOCK, to = from + BLOCK < w.C ? from + BLOCK : w.C;
      if (mean)
        mean_block(&w, i / blocks, from, to, out);
      else if (w.arguments->kind == KP_REFERENCE_PREVIOUS)
        previous_row(&w, i, out + i * w.C);
      else
        midpoint_row(&w, i, &own, out + i * w.C);
    }
  }
  return KP_OK;
}

/* ---- backward ---- */

/* The first row of row t's document. */
static int64_t first_of(const walk *w, int64_t b, int64_t t) {
  if (w->documents == NULL) return 0;
  while (!begins(w, b, t)) t--;
  return t;
}

/* Row s gets g / (t - first) from every later row t of its document. */
static void mean_block_backward(const walk *w, int64_t b, int64_t from, int64_t to, float *gx) {
  double sum[BLOCK] = {0};
  int64_t first = first_of(w, b, w->T - 1);
  for (int64_t t = w->T - 1; t >= 0; t--) {
    const int64_t at = (b * w->T + t) * w->C;
    for (int64_t c = from; c < to; c++) {
      gx[at + c] = (float)sum[c - from];
      if (t > first) sum[c - from] += (double)w->g[at + c] / (double)(t - first);
    }
    if (t > first || t == 0) continue;
    first = first_of(w, b, t - 1);
    memset(sum, 0, sizeof sum);
  }
}

static void previous_row_backward(const walk *w, int64_t n, float *gx) {
  const int64_t t = n % w->T;
  if (t == w->T - 1 || begins(w, n / w->T, t + 1))
    memset(gx, 0, (size_t)w->C * sizeof *gx);
  else
    memcpy(gx, w->g + (n + 1) * w->C, (size_t)w->C * sizeof *gx);
}

/* The gradient of M's numerator is along_g g + along_mean M. */
typedef struct numerator {
  double along_g, along_mean, denominator_bar;
} numerator;

static numerator numerator_of(const middle *m, const float *g, const double *mean, int64_t D,
                              double *kappa_bar) {
  const double close = m->close.value, psi = m->logarithm.value;
  double inner = 0; /* <g, M> */
#pragma omp simd reduction(+ : inner)
  for (int64_t d = 0; d < D; d++) inner += (double)g[d] * mean[d];
  const double end_bar = inner * close * m->logarithm.derivative; /* of κ|c M|² */
  const double end_square_bar = m->kappa * end_bar;
  *kappa_bar += end_bar * close * close * m->square;
  const double close_bar = psi * inner + 2 * end_square_bar * close * m->square;
  const double z_bar = close_bar * m->close.derivative; /* of κ|M|² */
  *kappa_bar += z_bar * m->square;
  numerator bar = {close * psi / m->denominator,
                   (2 * end_square_bar * close * close + 2 * m->kappa * z_bar) / m->denominator, 0};
  bar.denominator_bar = -(bar.along_g * inner + bar.along_mean * m->square);
  return bar;
}

/* Adds to the gradient of one stored row h of the window. */
static void window_point_backward(const window_point *point, const middle *m, numerator bar, const float *h,
                                  const float *g, const double *mean, int64_t D, double *kappa_bar,
                                  float *gh) {
  const double ratio = point->radial.ratio, lambda = point->factor.conformal, kappa = m->kappa;
  double inner = 0; /* of the numerator's gradient with h */
#pragma omp simd reduction(+ : inner)
  for (int64_t d = 0; d < D; d++)
    inner += (bar.along_g * (double)g[d] + bar.along_mean * mean[d]) * (double)h[d];
  const double curvature_bar = (ratio * inner + bar.denominator_bar) * point->factor.by_curvature;
  const double ratio_bar = lambda * inner + 2 * kappa * curvature_bar * ratio * point->square;
  const double z_bar = ratio_bar * point->radial.ratio_derivative;
  *kappa_bar += curvature_bar * ratio * ratio * point->square + z_bar * point->square;
  const double scale = ratio * lambda, own = 2 * kappa * (curvature_bar * ratio * ratio + z_bar);
#pragma omp simd
  for (int64_t d = 0; d < D; d++)
    gh[d] += (float)(scale * (bar.along_g * (double)g[d] + bar.along_mean * mean[d]) + own * (double)h[d]);
}

/* One group of one sequence; its rows are the only ones that its windows reach. */
static void midpoint_sequence_backward(const walk *w, int64_t b, int64_t group, worker *own, float *gx,
                                       double *bars) {
  const int64_t D = w->C / w->table.groups;
  for (int64_t t = 0; t < w->T; t++) {
    const int64_t n = b * w->T + t, count = window_of(w, b, t);
    const float *g = w->g + n * w->C + group * D;
    double *kappa_bar = bars + n * w->table.groups + group;
    *kappa_bar = 0;
    for (int64_t d = 0; d < D; d++) gx[n * w->C + group * D + d] = 0;
    if (count == 0) continue;
    const middle m = middle_of(w, b, t, group, own);
    const numerator bar = numerator_of(&m, g, own->mean, D, kappa_bar);
    for (int64_t i = 0; i < count; i++) {
      const int64_t at = (n - count + i) * w->C + group * D;
      window_point_backward(&own->points[i], &m, bar, w->stream + at, g, own->mean, D, kappa_bar, gx + at);
    }
  }
}

static double *lay_out_bars(const walk *w, kp_scratch *scratch, double **sums) {
  double *bars = kp_scratch_take(scratch, (size_t)(w->rows * w->table.groups), sizeof(double));
  *sums = kp_scratch_take(scratch, (size_t)w->table.groups, sizeof(double));
  return bars;
}

size_t KP_SCRATCH(reference_backward)(const kp_node *node, int threads) {
  const walk w = {.arguments = node->arguments,
                  .rows = kp_tensor_rows(node->input[0]),
                  .C = kp_tensor_columns(node->input[0]),
                  .table = kp_curvature_rows_of(NULL, node->input[1], kp_tensor_rows(node->input[0]))};
  kp_scratch scratch = {NULL, 64};
  worker own;
  double *sums;
  lay_out_bars(&w, &scratch, &sums);
  for (int i = 0; i < threads; i++) lay_out(&w, &scratch, &own);
  return scratch.used;
}

kp_status KP_KERNEL(reference_backward)(const kp_call *call, kp_error *error) {
  (void)error;
  const walk w = walk_of(call, false);
  kp_scratch scratch = kp_scratch_at(call->scratch);
  double *sums, *bars = lay_out_bars(&w, &scratch, &sums);
  const int threads = kp_threads_for(call, w.rows * w.C);
  const int64_t blocks = (w.C + BLOCK - 1) / BLOCK, sequences = w.rows / w.T, groups = w.table.groups;
  const kp_reference_kind kind = w.arguments->kind;
  const int64_t pieces = kind == KP_REFERENCE_MEAN       ? sequences * blocks
                         : kind == KP_REFERENCE_PREVIOUS ? w.rows
                                                         : sequences * groups;
  float *gx = call->output[0];
  worker layout;
  kp_scratch one = {NULL, 0};
  lay_out(&w, &one, &layout);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; part++) {
    worker own;
    kp_scratch piece = {scratch.base + scratch.used + (size_t)part * one.used, 0};
    lay_out(&w, &piece, &own);
    const kp_range range = kp_split(pieces, 1, part, threads);
    for (int64_t i = range.first; i < range.last; i++) {
      const int64_t from = i % blocks * BLOCK, to = from + BLOCK < w.C ? from + BLOCK : w.C;
      if (kind == KP_REFERENCE_MEAN)
        mean_block_backward(&w, i / blocks, from, to, gx);
      else if (kind == KP_REFERENCE_PREVIOUS)
        previous_row_backward(&w, i, gx + i * w.C);
      else
        midpoint_sequence_backward(&w, i / groups, i % groups, &own, gx, bars);
    }
  }
  if (call->output[1] != NULL && kind == KP_REFERENCE_MIDPOINT)
    kp_curvature_rows_reduce(&w.table, bars, sums, call->output[1]);
  return KP_OK;
}
