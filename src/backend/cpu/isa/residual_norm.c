/* The seam between two sub-layers, forward: residual update, tangent map and norm in one pass over memory.
 *
 * Each thread takes a run of rows and goes through it tile by tile: inner products of the tile's rows, the
 * scalar programs of all of them at once, x', then the same for the tangent, and y.  The tile stays in the
 * cache meanwhile.  Where the reference is the previous row of x' itself, a thread computes the row before
 * its first again, so that no thread waits for another.  A row's result does not depend on the tile it is in.
 *
 * The flat seam takes the same way without inner products and programs. */
#include <math.h>
#include <string.h>

#include "backend/cpu/isa/seam.h"
#include "backend/cpu/isa/split.h"

/* A thread's own memory, and what its rows write. */
typedef struct worker {
  const kp_seam_call *seam;
  const float *weight, *bias, *origin; /* (C) each: ones, zeros where absent */
  kp_lanes *update, *tangent;          /* one block a group */
  float *before;                       /* (C): x' of the row before the first */
  float *stream, *y, *statistics;      /* outputs */
  double events;
} worker;

static void lay_out(const kp_seam_call *s, kp_scratch *scratch, worker *w) {
  const size_t C = (size_t)s->C;
  w->update = kp_scratch_take(scratch, (size_t)s->update.groups, sizeof(kp_lanes));
  w->tangent = kp_scratch_take(scratch, (size_t)s->tangent.groups, sizeof(kp_lanes));
  w->before = kp_scratch_take(scratch, C, sizeof(float));
}

size_t KP_SCRATCH(residual_norm)(const kp_node *node, int threads) {
  const kp_call shapes = {.node = node};
  const kp_seam_call s = kp_seam_of(&shapes);
  kp_scratch scratch = {NULL, 64};
  worker w;
  for (int i = 0; i < 2; i++) kp_scratch_take(&scratch, (size_t)s.C, sizeof(float));
  for (int i = 0; i < threads; i++) lay_out(&s, &scratch, &w);
  return scratch.used;
}

/* out = c_0 a + c_1 b on one group of a row; `a` is subtracted from b first with `difference`. */
static void combine_pair(const float *a, const float *b, int64_t D, const kp_lanes *lanes, int lane,
                         float *out) {
  const double first = lanes->coefficients[0][lane], second = lanes->coefficients[1][lane];
#pragma omp simd
  for (int64_t d = 0; d < D; d++) out[d] = (float)(first * (double)a[d] + second * (double)b[d]);
}

static void combine_triple(const float *a, const float *b, const float *c, int64_t D, const kp_lanes *lanes,
                           int lane, float *out) {
  const double first = lanes->coefficients[0][lane], second = lanes->coefficients[1][lane],
               third = lanes->coefficients[2][lane];
#pragma omp simd
  for (int64_t d = 0; d < D; d++)
    out[d] = (float)(first * (double)a[d] + second * (double)b[d] + third * (double)c[d]);
}

/* z = c_0 r + c_1 (h - r); returns the sum of z. */
static float combine_difference(const float *r, const float *h, int64_t D, const kp_lanes *lanes, int lane,
                                float *z) {
  const double first = lanes->coefficients[0][lane], second = lanes->coefficients[1][lane];
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t d = 0; d < D; d++) {
    const double p = (double)r[d];
    const float value = (float)(first * p + second * ((double)h[d] - p));
    z[d] = value;
    sum += value;
  }
  return sum;
}

static void run_programs(int program, kp_lanes *lanes, int64_t groups, int rows, double *events) {
  for (int64_t g = 0; g < groups; g++) {
    KP_ISA_NAME(kp_lanes_forward)(program, 0, &lanes[g]);
    for (int lane = 0; lane < rows; lane++) *events += lanes[g].event[lane];
  }
}

/* x' = update(x, [r,] u) of rows [first, first + count), written from `out` on. */
static void update_curved(worker *w, int64_t first, int count, float *out, double *events) {
  const kp_seam_call *s = w->seam;
  const int64_t C = s->C, groups = s->update.groups, D = C / groups;
  if (count < KP_TILE) kp_lanes_clear(w->update, groups);
  for (int lane = 0; lane < count; lane++) {
    const float *x = s->x + (first + lane) * C, *u = s->u + (first + lane) * C;
    const float *r = kp_seam_given(s, first + lane, w->origin);
    for (int64_t g = 0; g < groups; g++) {
      w->update[g].kappa[lane] = kp_curvature_of_row(&s->update, first + lane, g);
      if (s->update_reads_reference)
        kp_gram_triple(x + g * D, r + g * D, u + g * D, D, &w->update[g], lane);
      else
        kp_gram_pair(x + g * D, u + g * D, D, &w->update[g], lane);
    }
  }
  run_programs(s->arguments->update, w->update, groups, count, events);
  for (int lane = 0; lane < count; lane++) {
    const float *x = s->x + (first + lane) * C, *u = s->u + (first + lane) * C;
    const float *r = kp_seam_given(s, first + lane, w->origin);
    for (int64_t g = 0; g < groups; g++) {
      float *to = out + lane * C + g * D;
      if (s->update_reads_reference)
        combine_triple(x + g * D, r + g * D, u + g * D, D, &w->update[g], lane, to);
      else
        combine_pair(x + g * D, u + g * D, D, &w->update[g], lane, to);
    }
  }
}

/* out = a + b; returns its sum. */
static float add_rows(const float *a, const float *b, int64_t C, float *out) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < C; c++) {
    const float value = a[c] + b[c];
    out[c] = value;
    sum += value;
  }
  return sum;
}

/* out = a - b; returns its sum. */
static float subtract_rows(const float *a, const float *b, int64_t C, float *out) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < C; c++) {
    const float value = a[c] - b[c];
    out[c] = value;
    sum += value;
  }
  return sum;
}

static float sum_row(const float *a, int64_t C) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < C; c++) sum += a[c];
  return sum;
}

/* Mean and 1 / deviation of a row whose squares leave the range of float. */
static void moments_in_double(const kp_seam_call *s, const float *z, float statistics[2]) {
  double mean = 0, squares = 0;
  if (s->arguments->norm == KP_NORM_LAYER)
    for (int64_t c = 0; c < s->C; c++) mean += (double)z[c] / (double)s->C;
  for (int64_t c = 0; c < s->C; c++) squares += ((double)z[c] - mean) * ((double)z[c] - mean) / (double)s->C;
  statistics[0] = (float)mean;
  statistics[1] = (float)(1 / sqrt(squares + s->arguments->epsilon));
}

/* y = weight (z - mean) / deviation + bias of one row; z may be y. */
static void normalise(const worker *w, const float *z, float sum, float *y, float statistics[2]) {
  const kp_seam_call *s = w->seam;
  const int64_t C = s->C;
  const float mean = s->arguments->norm == KP_NORM_LAYER ? sum / (float)C : 0;
  float squares = 0;
#pragma omp simd reduction(+ : squares)
  for (int64_t c = 0; c < C; c++) squares += (z[c] - mean) * (z[c] - mean);
  statistics[0] = mean;
  statistics[1] = (float)(1 / sqrt((double)squares / (double)C + s->arguments->epsilon));
  if (!isfinite(squares)) moments_in_double(s, z, statistics);
  const float centre = statistics[0], scale = statistics[1];
  const float *weight = w->weight, *bias = w->bias;
#pragma omp simd
  for (int64_t c = 0; c < C; c++) y[c] = (z[c] - centre) * scale * weight[c] + bias[c];
}

/* The rows that [first, first + count) refer to: x' of their own, or the given reference. */
static const float *tangent_reference(const worker *w, const float *stream, int64_t n,
                                      int64_t first_of_worker) {
  if (!w->seam->arguments->own) return kp_seam_given(w->seam, n, w->origin);
  if (n == first_of_worker && n % w->seam->T > 0) return w->before;
  return kp_seam_own(w->seam, stream, n, w->origin);
}

static void tangent_programs(worker *w, const float *stream, int64_t first, int count,
                             int64_t first_of_worker) {
  const kp_seam_call *s = w->seam;
  const int64_t C = s->C, groups = s->tangent.groups, D = C / groups;
  if (count < KP_TILE) kp_lanes_clear(w->tangent, groups);
  for (int lane = 0; lane < count; lane++) {
    const float *r = tangent_reference(w, stream, first + lane, first_of_worker);
    for (int64_t g = 0; g < groups; g++) {
      w->tangent[g].kappa[lane] = kp_curvature_of_row(&s->tangent, first + lane, g);
      kp_gram_difference(r + g * D, stream + (first + lane) * C + g * D, D, &w->tangent[g], lane);
    }
  }
  run_programs(s->arguments->tangent, w->tangent, groups, count, &w->events);
}

/* z of row n into y's place; returns its sum. */
static float tangent_row(const worker *w, const float *h, const float *r, int lane, float *z) {
  const kp_seam_call *s = w->seam;
  if (!kp_seam_tangent_is_curved(s)) return subtract_rows(h, r, s->C, z);
  const int64_t groups = s->tangent.groups, D = s->C / groups;
  float sum = 0;
  for (int64_t g = 0; g < groups; g++)
    sum += combine_difference(r + g * D, h + g * D, D, &w->tangent[g], lane, z + g * D);
  return sum;
}

static void tile(worker *w, int64_t first, int count, int64_t first_of_worker) {
  const kp_seam_call *s = w->seam;
  const int64_t C = s->C;
  const bool flat_add = s->arguments->update == KP_PROGRAM_FLAT_ADD,
             curved_update = kp_seam_update_is_curved(s);
  const float *stream = w->stream != NULL ? w->stream : s->x;
  float sums[KP_TILE];
  if (curved_update) update_curved(w, first, count, w->stream + first * C, &w->events);
  for (int lane = 0; lane < count && flat_add; lane++) {
    const int64_t at = (first + lane) * C;
    sums[lane] = add_rows(s->x + at, s->u + at, C, w->stream + at);
  }
  if (w->y == NULL) return;
  if (kp_seam_tangent_is_curved(s)) tangent_programs(w, stream, first, count, first_of_worker);
  for (int lane = 0; lane < count; lane++) {
    const int64_t n = first + lane;
    const float *z = stream + n * C;
    float *y = w->y + n * C, sum;
    if (s->arguments->tangent >= 0) {
      sum = tangent_row(w, z, tangent_reference(w, stream, n, first_of_worker), lane, y);
      z = y;
    } else {
      sum = flat_add ? sums[lane] : sum_row(z, C);
    }
    normalise(w, z, sum, y, w->statistics + 2 * n);
  }
}

/* x' of the row before `first`, where row `first` refers to it and another thread writes it. */
static void row_before(worker *w, int64_t first) {
  const kp_seam_call *s = w->seam;
  if (!s->arguments->own || first % s->T == 0) return;
  const int64_t at = (first - 1) * s->C;
  double ignored = 0;
  if (w->stream == NULL)
    memcpy(w->before, s->x + at, (size_t)s->C * sizeof(float));
  else if (kp_seam_update_is_curved(s))
    update_curved(w, first - 1, 1, w->before, &ignored);
  else
    add_rows(s->x + at, s->u + at, s->C, w->before);
}

static void work(worker *w, kp_range range) {
  if (range.first == range.last) return;
  row_before(w, range.first);
  for (int64_t first = range.first; first < range.last; first += KP_TILE) {
    const int64_t left = range.last - first;
    tile(w, first, left < KP_TILE ? (int)left : KP_TILE, range.first);
  }
}

kp_status KP_KERNEL(residual_norm)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_seam_call s = kp_seam_of(call);
  kp_scratch scratch = kp_scratch_at(call->scratch);
  float *ones = kp_scratch_take(&scratch, (size_t)s.C, sizeof(float));
  float *zeros = kp_scratch_take(&scratch, (size_t)s.C, sizeof(float));
  for (int64_t c = 0; c < s.C; c++) ones[c] = 1, zeros[c] = 0;
  const worker common = {.seam = &s,
                         .weight = s.weight == NULL ? ones : s.weight,
                         .bias = s.bias == NULL ? zeros : s.bias,
                         .origin = zeros,
                         .stream = call->output[0],
                         .y = call->output[1],
                         .statistics = call->output[2]};
  const int threads = kp_threads_for(call, s.rows * s.C);
  worker layout;
  kp_scratch one = {NULL, 0};
  lay_out(&s, &one, &layout);
  double events = 0;
#pragma omp parallel for schedule(static) num_threads(threads) reduction(+ : events)
  for (int part = 0; part < threads; part++) {
    worker w = common;
    kp_scratch own = {scratch.base + scratch.used + (size_t)part * one.used, 0};
    lay_out(&s, &own, &w);
    work(&w, kp_split(s.rows, KP_TILE, part, threads));
    events += w.events;
  }
  *(float *)call->output[3] = (float)events;
  return KP_OK;
}
