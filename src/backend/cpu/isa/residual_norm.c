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

/* out = first a + second b. */
static inline void combine_pair_step(double first, double second, const float *a, const float *b,
                                     int64_t count, float *out) {
  kp_doubles p, q;
  kp_widen(a, count, &p), kp_widen(b, count, &q);
  p = first * p + second * q;
  kp_narrow(&p, count, out);
}

/* out = c_0 a + c_1 b on one group of a row. */
static void combine_pair(const float *a, const float *b, int64_t D, const kp_lanes *lanes, int lane,
                         float *out) {
  const double first = lanes->coefficients[0][lane], second = lanes->coefficients[1][lane];
  const int64_t whole = D / KP_DOUBLES * KP_DOUBLES;
  for (int64_t d = 0; d < whole; d += KP_DOUBLES)
    combine_pair_step(first, second, a + d, b + d, KP_DOUBLES, out + d);
  if (whole < D) combine_pair_step(first, second, a + whole, b + whole, D - whole, out + whole);
}

static void combine_triple(const float *a, const float *b, const float *c, int64_t D, const kp_lanes *lanes,
                           int lane, float *out) {
  const double first = lanes->coefficients[0][lane], second = lanes->coefficients[1][lane],
               third = lanes->coefficients[2][lane];
  for (int64_t d = 0; d < D; d += KP_DOUBLES) {
    kp_doubles p, q, r;
    kp_widen(a + d, D - d, &p), kp_widen(b + d, D - d, &q), kp_widen(c + d, D - d, &r);
    p = first * p + second * q + third * r;
    kp_narrow(&p, D - d, out + d);
  }
}

static inline void combine_difference_step(double first, double second, const float *r, const float *h,
                                           int64_t count, float *z) {
  kp_doubles p, q;
  kp_widen(r, count, &p), kp_widen(h, count, &q);
  p = first * p + second * (q - p);
  kp_narrow(&p, count, z);
}

/* z = c_0 r + c_1 (h - r). */
static void combine_difference(const float *r, const float *h, int64_t D, const kp_lanes *lanes, int lane,
                               float *z) {
  const double first = lanes->coefficients[0][lane], second = lanes->coefficients[1][lane];
  const int64_t whole = D / KP_DOUBLES * KP_DOUBLES;
  for (int64_t d = 0; d < whole; d += KP_DOUBLES)
    combine_difference_step(first, second, r + d, h + d, KP_DOUBLES, z + d);
  if (whole < D) combine_difference_step(first, second, r + whole, h + whole, D - whole, z + whole);
}

static void run_programs(int program, kp_lanes *lanes, int64_t groups, int rows, double *events) {
  for (int64_t g = 0; g < groups; g++) {
    KP_ISA_NAME(kp_lanes_forward)(program, 0, &lanes[g]);
    for (int lane = 0; lane < rows; lane++) *events += lanes[g].event[lane];
  }
}

/* The coefficients of x' of rows [first, first + count). */
static void update_programs(worker *w, int64_t first, int count, double *events) {
  const kp_seam_call *s = w->seam;
  const int64_t C = s->C, groups = s->update.groups, D = C / groups;
  if (count < KP_TILE) kp_lanes_clear(w->update, groups);
  for (int lane = 0; lane < count; lane++) {
    const float *x = s->x + (first + lane) * C, *u = s->u + (first + lane) * C;
    const float *r = s->update_reads_reference ? kp_seam_given(s, first + lane, w->origin) : NULL;
    for (int64_t g = 0; g < groups; g++) {
      w->update[g].kappa[lane] = kp_curvature_of_row(&s->update, first + lane, g);
      if (r != NULL)
        kp_gram_triple(x + g * D, r + g * D, u + g * D, D, &w->update[g], lane);
      else
        kp_gram_pair(x + g * D, u + g * D, D, &w->update[g], lane);
    }
  }
  run_programs(s->arguments->update, w->update, groups, count, events);
}

/* x' = update(x, [r,] u) of row n. */
static void update_row(const worker *w, int64_t n, int lane, float *out) {
  const kp_seam_call *s = w->seam;
  const int64_t C = s->C, groups = s->update.groups, D = C / groups;
  const float *x = s->x + n * C, *u = s->u + n * C;
  const float *r = s->update_reads_reference ? kp_seam_given(s, n, w->origin) : NULL;
  for (int64_t g = 0; g < groups; g++) {
    if (r != NULL)
      combine_triple(x + g * D, r + g * D, u + g * D, D, &w->update[g], lane, out + g * D);
    else
      combine_pair(x + g * D, u + g * D, D, &w->update[g], lane, out + g * D);
  }
}

/* out = a + sign b; adds out to sum. */
static inline void add_step(const float *a, const float *b, float sign, int64_t count, float *out,
                            kp_floats *sum) {
  kp_floats p, q;
  kp_load(a, count, &p), kp_load(b, count, &q);
  p += sign * q;
  kp_store(&p, count, out);
  *sum += p;
}

/* out = a + sign b; returns its sum. */
static inline float add_rows(const float *a, const float *b, float sign, int64_t C, float *out) {
  kp_floats sum = {0};
  const int64_t whole = C / KP_FLOATS * KP_FLOATS;
  for (int64_t c = 0; c < whole; c += KP_FLOATS) add_step(a + c, b + c, sign, KP_FLOATS, out + c, &sum);
  if (whole < C) add_step(a + whole, b + whole, sign, C - whole, out + whole, &sum);
  return kp_total_float(&sum);
}

static float sum_row(const float *a, int64_t C) {
  kp_floats sum = {0};
  const int64_t whole = C / KP_FLOATS * KP_FLOATS;
  for (int64_t c = 0; c < whole; c += KP_FLOATS) {
    kp_floats p;
    kp_load(a + c, KP_FLOATS, &p);
    sum += p;
  }
  float rest = 0;
  for (int64_t c = whole; c < C; c++) rest += a[c];
  return kp_total_float(&sum) + rest;
}

/* The sum of (z - mean)². */
static float centred_squares(const float *z, float mean, int64_t C) {
  kp_floats sum = {0};
  const int64_t whole = C / KP_FLOATS * KP_FLOATS;
  for (int64_t c = 0; c < whole; c += KP_FLOATS) {
    kp_floats p;
    kp_load(z + c, KP_FLOATS, &p);
    p -= mean;
    sum += p * p;
  }
  float rest = 0;
  for (int64_t c = whole; c < C; c++) rest += (z[c] - mean) * (z[c] - mean);
  return kp_total_float(&sum) + rest;
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
  const float squares = centred_squares(z, mean, C);
  statistics[0] = mean;
  statistics[1] = (float)(1 / sqrt((double)squares / (double)C + s->arguments->epsilon));
  if (!isfinite(squares)) moments_in_double(s, z, statistics);
  const float centre = statistics[0], scale = statistics[1];
  const float *weight = w->weight, *bias = w->bias;
#pragma omp simd
  for (int64_t c = 0; c < C; c++) y[c] = (z[c] - centre) * scale * weight[c] + bias[c];
}

/* What row n refers to: the row of x' before it, or the given reference. */
static const float *tangent_reference(const worker *w, const float *stream, int64_t n,
                                      int64_t first_of_worker) {
  if (!w->seam->arguments->own) return kp_seam_given(w->seam, n, w->origin);
  if (n == first_of_worker && n % w->seam->T > 0) return w->before;
  return kp_seam_own(w->seam, stream, n, w->origin);
}

static void tangent_gram(worker *w, int64_t n, int lane, const float *r, const float *h) {
  const kp_seam_call *s = w->seam;
  const int64_t groups = s->tangent.groups, D = s->C / groups;
  for (int64_t g = 0; g < groups; g++) {
    w->tangent[g].kappa[lane] = kp_curvature_of_row(&s->tangent, n, g);
    kp_gram_difference(r + g * D, h + g * D, D, &w->tangent[g], lane);
  }
}

/* z of row n into y's place; returns its sum. */
static float tangent_row(const worker *w, const float *h, const float *r, int lane, float *z) {
  const kp_seam_call *s = w->seam;
  if (!kp_seam_tangent_is_curved(s)) return add_rows(h, r, -1, s->C, z);
  const int64_t groups = s->tangent.groups, D = s->C / groups;
  for (int64_t g = 0; g < groups; g++)
    combine_difference(r + g * D, h + g * D, D, &w->tangent[g], lane, z + g * D);
  return sum_row(z, s->C);
}

static void tile(worker *w, int64_t first, int count, int64_t first_of_worker) {
  const kp_seam_call *s = w->seam;
  const int64_t C = s->C;
  const bool curved_update = kp_seam_update_is_curved(s);
  const bool flat_add = s->arguments->update >= 0 && !curved_update;
  const bool curved_tangent = w->y != NULL && kp_seam_tangent_is_curved(s);
  const float *stream = w->stream != NULL ? w->stream : s->x, *reference[KP_TILE];
  float sums[KP_TILE];
  if (curved_update) update_programs(w, first, count, &w->events);
  if (curved_tangent && count < KP_TILE) kp_lanes_clear(w->tangent, s->tangent.groups);
  for (int lane = 0; lane < count; lane++) {
    const int64_t n = first + lane;
    if (curved_update) update_row(w, n, lane, w->stream + n * C);
    if (flat_add) sums[lane] = add_rows(s->x + n * C, s->u + n * C, 1, C, w->stream + n * C);
    if (s->arguments->tangent >= 0) reference[lane] = tangent_reference(w, stream, n, first_of_worker);
    if (curved_tangent) tangent_gram(w, n, lane, reference[lane], stream + n * C);
  }
  if (w->y == NULL) return;
  if (curved_tangent) run_programs(s->arguments->tangent, w->tangent, s->tangent.groups, count, &w->events);
  for (int lane = 0; lane < count; lane++) {
    const int64_t n = first + lane;
    const float *z = stream + n * C;
    float *y = w->y + n * C, sum;
    if (s->arguments->tangent >= 0) {
      sum = tangent_row(w, z, reference[lane], lane, y);
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
  if (w->stream == NULL) {

    memcpy(w->before, s->x + at, (size_t)s->C * sizeof(float));
  } else if (kp_seam_update_is_curved(s)) {
    update_programs(w, first - 1, 1, &ignored);
    update_row(w, first - 1, 0, w->before);
  } else {
    add_rows(s->x + at, s->u + at, 1, s->C, w->before);
  }
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
