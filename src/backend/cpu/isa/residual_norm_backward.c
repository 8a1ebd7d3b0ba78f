/* The seam between two sub-layers, backward.
 *
 * A thread goes through its rows tile by tile (seam.h), and for each tile:
 *
 *   1. norm and tangent: from g y, each row's gradient of its own x' and of its reference;
 *   2. s = g x' + those, the whole gradient of x';
 *   3. update: g x, g u and the given reference's gradient from s.
 *
 * Only step 1 of a row reaches another row: where the reference is the stream itself, the row before takes a
 * part.  There step 1 runs one row ahead of the others.  It needs x' and g y alone, so a thread does it
 * again for the row behind its last.  Gradients of κ are kept by row, those of weight and bias by thread;
 * both are summed in a fixed order at the end. */
#include <string.h>

#include "backend/cpu/isa/seam.h"
#include "backend/cpu/isa/seam_tangent.h"
#include "backend/cpu/isa/split.h"

typedef struct worker {
  const kp_seam_call *seam;
  kp_seam_tangent tangent;            /* step 1 */
  const float *stream, *gstream;      /* x', g x' (or NULL) */
  const float *origin;                /* (C) zeros */
  kp_lanes *update;                   /* one block a group */
  float *whole;                       /* (KP_TILE, C): s */
  float *to_stream[2];                /* (C): step 1's gradient of x', of even and of odd rows */
  float *to_reference;                /* (KP_TILE, C): step 1's gradients of references */
  double *update_bars, *tangent_bars; /* (N, G): gradients of κ by row */
  float *gx, *gu, *gr;                /* outputs; gx may be gstream's memory */
} worker;

static void lay_out(const kp_seam_call *s, kp_scratch *scratch, worker *w) {
  const size_t C = (size_t)s->C;
  kp_seam_tangent_lay_out(s, scratch, &w->tangent);
  w->update = kp_scratch_take(scratch, (size_t)s->update.groups, sizeof(kp_lanes));
  w->whole = kp_scratch_take(scratch, KP_TILE * C, sizeof(float));
  for (int i = 0; i < 2; i++) w->to_stream[i] = kp_scratch_take(scratch, C, sizeof(float));
  w->to_reference = kp_scratch_take(scratch, KP_TILE * C, sizeof(float));
}

/* What all threads share. */
typedef struct shared {
  float *ones, *zeros;
  double *update_bars, *tangent_bars, *sums;
} shared;

static shared lay_out_shared(const kp_seam_call *s, kp_scratch *scratch) {
  const size_t C = (size_t)s->C, rows = (size_t)s->rows;
  const size_t update = (size_t)s->update.groups, tangent = (size_t)s->tangent.groups;
  shared common;
  common.ones = kp_scratch_take(scratch, C, sizeof(float));
  common.zeros = kp_scratch_take(scratch, C, sizeof(float));
  common.update_bars = kp_scratch_take(scratch, rows * update, sizeof(double));
  common.tangent_bars = kp_scratch_take(scratch, rows * tangent, sizeof(double));
  common.sums = kp_scratch_take(scratch, update > tangent ? update : tangent, sizeof(double));
  return common;
}

size_t KP_SCRATCH(residual_norm_backward)(const kp_node *node, int threads) {
  const kp_call shapes = {.node = node};
  const kp_seam_call s = kp_seam_of(&shapes);
  kp_scratch scratch = {NULL, 64};
  worker w;
  lay_out_shared(&s, &scratch);
  for (int i = 0; i < threads; i++) lay_out(&s, &scratch, &w);
  return scratch.used;
}

/* Whether step 1 gives the row before a gradient, and whether that row's x' or its x takes it. */
static bool reaches_own(const worker *w) {
  return w->tangent.gy != NULL && w->seam->arguments->own;
}
static bool reaches_stream(const worker *w) {
  return w->tangent.gy != NULL && w->seam->arguments->stream_reference && w->seam->arguments->tangent >= 0;
}

/* The place of a gradient of a reference.  That of an own reference is taken at once: one place, in the
 * nearest cache, is enough. */
static float *reference_gradient(const worker *w, int lane) {
  return w->to_reference + (reaches_own(w) ? 0 : lane * w->seam->C);
}

static const float *row_or_origin(const worker *w, const float *rows, int64_t n) {
  return rows == NULL ? w->origin : rows + n * w->seam->C;
}

/* s = own + direct + next, the whole gradient of x'. */
static inline void add_parts(const float *const part[3], int64_t d, int64_t count, float *whole,
                             kp_doubles *sum) {
  kp_half_floats own, direct, next;
  kp_load_half(part[0] + d, count, &own);
  kp_load_half(part[1] + d, count, &direct);
  kp_load_half(part[2] + d, count, &next);
  own += direct + next;
  kp_store_half(&own, count, whole + d);
  kp_widen_half(&own, sum);
}

typedef struct update_sums {
  kp_doubles xx, xu, uu, sx, su;
} update_sums;

static inline void update_sums_step(const float *const part[3], const float *x, const float *u, int64_t d,
                                    int64_t count, float *whole, update_sums *sums) {
  kp_doubles s, a, b;
  add_parts(part, d, count, whole, &s);
  kp_widen(x + d, count, &a), kp_widen(u + d, count, &b);
  sums->xx += a * a, sums->xu += a * b, sums->uu += b * b;
  sums->sx += s * a, sums->su += s * b;
}

/* s of one row, its inner products with x and u, and the Gram entries of these, over D channels. */
static void sum_and_gram_pair(const float *const part[3], const float *x, const float *u, int64_t D,
                              kp_lanes *lanes, int lane, float *s) {
  update_sums sums = {{0}, {0}, {0}, {0}, {0}};
  const int64_t whole = D / KP_DOUBLES * KP_DOUBLES;
  for (int64_t d = 0; d < whole; d += KP_DOUBLES) update_sums_step(part, x, u, d, KP_DOUBLES, s, &sums);
  if (whole < D) update_sums_step(part, x, u, whole, D - whole, s, &sums);
  lanes->gram[0][lane] = kp_total(&sums.xx);
  lanes->gram[1][lane] = kp_total(&sums.xu);
  lanes->gram[2][lane] = kp_total(&sums.uu);
  lanes->coefficients_bar[0][lane] = kp_total(&sums.sx);
  lanes->coefficients_bar[1][lane] = kp_total(&sums.su);
}

/* The same with x, r and u. */
static void sum_and_gram_triple(const float *const part[3], const float *x, const float *r, const float *u,
                                int64_t D, kp_lanes *lanes, int lane, float *whole) {
  kp_doubles sx = {0}, sr = {0}, su = {0};
  for (int64_t d = 0; d < D; d += KP_DOUBLES) {
    kp_doubles s, a, b, c;
    add_parts(part, d, D - d < KP_DOUBLES ? D - d : KP_DOUBLES, whole, &s);
    kp_widen(x + d, D - d, &a), kp_widen(r + d, D - d, &b), kp_widen(u + d, D - d, &c);
    sx += s * a, sr += s * b, su += s * c;
  }
  kp_gram_triple(x, r, u, D, lanes, lane);
  lanes->coefficients_bar[0][lane] = kp_total(&sx);
  lanes->coefficients_bar[1][lane] = kp_total(&sr);
  lanes->coefficients_bar[2][lane] = kp_total(&su);
}

/* to = extra + a_0 s + a_1 x + a_2 u. */
static inline void combine_pair_step(const double a[3], const float *extra, const float *s, const float *x,
                                     const float *u, int64_t count, float *to) {
  kp_doubles p, q, r, e;
  kp_widen(s, count, &p), kp_widen(x, count, &q), kp_widen(u, count, &r), kp_widen(extra, count, &e);
  p = a[0] * p + a[1] * q + a[2] * r + e;
  kp_narrow(&p, count, to);
}

/* gx = extra + for_x · (s, x, u) and, where gu is not NULL, gu = for_u · (s, x, u), over D channels. */
static void combine_pair(const double for_x[3], const double for_u[3], const float *extra,
                         const float *origin, const float *s, const float *x, const float *u, int64_t D,
                         float *gx, float *gu) {
  const int64_t whole = D / KP_DOUBLES * KP_DOUBLES;
  for (int64_t d = 0; d < whole; d += KP_DOUBLES) {
    combine_pair_step(for_x, extra + d, s + d, x + d, u + d, KP_DOUBLES, gx + d);
    if (gu != NULL) combine_pair_step(for_u, origin, s + d, x + d, u + d, KP_DOUBLES, gu + d);
  }
  if (whole == D) return;
  combine_pair_step(for_x, extra + whole, s + whole, x + whole, u + whole, D - whole, gx + whole);
  if (gu != NULL) combine_pair_step(for_u, origin, s + whole, x + whole, u + whole, D - whole, gu + whole);
}

/* to = extra + a_0 s + a_1 v_1 + a_2 v_2 + a_3 v_3 over D channels. */
static void combine_four(const double a[4], const float *extra, const float *s, const float *v1,
                         const float *v2, const float *v3, int64_t D, float *to) {
  const double a0 = a[0], a1 = a[1], a2 = a[2], a3 = a[3];
#pragma omp simd
  for (int64_t d = 0; d < D; d++)
    to[d] =
        extra[d] + (float)(a0 * (double)s[d] + a1 * (double)v1[d] + a2 * (double)v2[d] + a3 * (double)v3[d]);
}

/* Where row n's given reference takes its gradient; NULL: nowhere. */
static float *given_gradient(const worker *w, int64_t n) {
  const kp_seam_call *s = w->seam;
  if (w->gr == NULL) return NULL;
  if (!s->arguments->shift) return w->gr + n * s->C;
  return n % s->T > 0 ? w->gr + (n - 1) * s->C : NULL;
}

/* The last row of a sequence is no row's shifted reference. */
static void clear_last_given(const worker *w, int64_t n) {
  const kp_seam_call *s = w->seam;
  if (w->gr != NULL && s->arguments->shift && n % s->T == s->T - 1)
    memset(w->gr + n * s->C, 0, (size_t)s->C * sizeof(float));
}

static void update_pair(worker *w, int64_t first, int lane, const float *next) {
  const kp_seam_call *s = w->seam;
  const int64_t n = first + lane, C = s->C, D = C / s->update.groups;
  for (int64_t g = 0; g < s->update.groups; g++) {
    const kp_lanes *lanes = &w->update[g];
    const float *x = s->x + n * C + g * D, *u = s->u + n * C + g * D, *whole = w->whole + lane * C + g * D;
    const double xx = lanes->gram_bar[0][lane], xu = lanes->gram_bar[1][lane], uu = lanes->gram_bar[2][lane];
    const double for_x[3] = {lanes->coefficients[0][lane], 2 * xx, xu};
    const double for_u[3] = {lanes->coefficients[1][lane], xu, 2 * uu};
    combine_pair(for_x, for_u, next + g * D, w->origin, whole, x, u, D, w->gx + n * C + g * D,
                 w->gu == NULL ? NULL : w->gu + n * C + g * D);
  }
}

static void update_triple(worker *w, int64_t first, int lane) {
  const kp_seam_call *s = w->seam;
  const int64_t n = first + lane, C = s->C, D = C / s->update.groups;
  const float *given = kp_seam_given(s, n, w->origin);
  const float *tangent = w->tangent.gy != NULL && s->arguments->tangent >= 0 && !s->arguments->own
                             ? reference_gradient(w, lane)
                             : w->origin;
  float *gr = given_gradient(w, n);
  for (int64_t g = 0; g < s->update.groups; g++) {
    const kp_lanes *lanes = &w->update[g];
    const int64_t at = n * C + g * D;
    const float *x = s->x + at, *u = s->u + at, *r = given + g * D, *whole = w->whole + lane * C + g * D;
    double bar[6], c[3];
    for (int i = 0; i < 6; i++) bar[i] = lanes->gram_bar[i][lane];
    for (int i = 0; i < 3; i++) c[i] = lanes->coefficients[i][lane];
    if (gr != NULL)
      combine_four((double[4]){c[1], bar[1], 2 * bar[3], bar[4]}, tangent + g * D, whole, x, r, u, D,
                   gr + g * D);
    if (w->gu != NULL)
      combine_four((double[4]){c[2], bar[2], bar[4], 2 * bar[5]}, w->origin, whole, x, r, u, D, w->gu + at);
    combine_four((double[4]){c[0], 2 * bar[0], bar[1], bar[2]}, w->origin, whole, x, r, u, D, w->gx + at);
  }
}

/* What row n takes from step 1: the gradient of its x', and that of row n + 1's reference, which it is. */
typedef struct parts {
  const float *own, *next;
} parts;

/* Step 1 for row n, or, where the row before takes a part, for row n + 1 after row n. */
static parts step_one(worker *w, kp_range range, int64_t n, int lane) {
  float **to_stream = w->to_stream, *to_reference = reference_gradient(w, lane);
  parts p = {w->origin, w->origin};
  if (w->tangent.gy == NULL) return p;
  p.own = to_stream[n % 2];
  if (!reaches_own(w) && !reaches_stream(w)) {
    kp_seam_tangent_row(&w->tangent, n, lane, to_stream[n % 2], to_reference);
    return p;
  }
  const bool last = (n + 1) % w->seam->T == 0; /* of its sequence */
  if (n + 1 < range.last)
    kp_seam_tangent_row(&w->tangent, n + 1, lane, to_stream[(n + 1) % 2], to_reference);
  else if (!last)
    kp_seam_tangent_row_again(&w->tangent, n + 1, to_stream[(n + 1) % 2], to_reference);
  if (!last) p.next = to_reference;
  return p;
}

/* Step 2 of one row, with the inner products that a curved update needs. */
static void sum_row(worker *w, parts p, int64_t n, int lane) {
  const kp_seam_call *s = w->seam;
  const int64_t C = s->C, groups = s->update.groups, D = C / groups;
  const float *x = s->x + n * C, *u = s->u + n * C;
  const float *r = s->update_reads_reference ? kp_seam_given(s, n, w->origin) : NULL;
  const float *direct = row_or_origin(w, w->gstream, n), *next = reaches_own(w) ? p.next : w->origin;
  for (int64_t g = 0; g < groups; g++) {
    const float *part[3] = {p.own + g * D, direct + g * D, next + g * D};
    float *whole = w->whole + lane * C + g * D;
    w->update[g].kappa[lane] = kp_curvature_of_row(&s->update, n, g);
    if (r != NULL)
      sum_and_gram_triple(part, x + g * D, r + g * D, u + g * D, D, &w->update[g], lane, whole);
    else
      sum_and_gram_pair(part, x + g * D, u + g * D, D, &w->update[g], lane, whole);
  }
}

/* Step 3 with a curved update. */
static void update_curved(worker *w, const parts *p, int64_t first, int count) {
  const kp_seam_call *s = w->seam;
  const int64_t groups = s->update.groups;
  for (int64_t g = 0; g < groups; g++) {
    KP_ISA_NAME(kp_lanes_both)(s->arguments->update, 0, &w->update[g]);
    for (int lane = 0; lane < count; lane++)
      w->update_bars[(first + lane) * groups + g] = w->update[g].kappa_bar[lane];
  }
  for (int lane = 0; lane < count; lane++) {
    if (s->update_reads_reference)
      update_triple(w, first, lane);
    else
      update_pair(w, first, lane, reaches_stream(w) ? p[lane].next : w->origin);
  }
}

/* Steps 2 and 3 with a flat update or none: gradients of x and u are s. */
static void update_flat(worker *w, parts p, int64_t n) {
  const int64_t C = w->seam->C;
  const float *own = p.own, *direct = row_or_origin(w, w->gstream, n);
  const float *next = reaches_own(w) ? p.next : w->origin;
  const float *reference = reaches_stream(w) ? p.next : w->origin;
  float *gx = w->gx + n * C, *gu = w->gu == NULL ? gx : w->gu + n * C;
#pragma omp simd
  for (int64_t c = 0; c < C; c++) {
    const float s = own[c] + direct[c] + next[c];
    gu[c] = s;
    gx[c] = s + reference[c];
  }
}

/* The given reference's gradient where the tangent alone reads it. */
static void give_reference(const worker *w, int64_t first, int count) {
  const kp_seam_call *s = w->seam;
  for (int lane = 0; lane < count; lane++) {
    float *gr = given_gradient(w, first + lane);
    if (gr == NULL || s->update_reads_reference) continue;
    const bool reached = w->tangent.gy != NULL && s->arguments->tangent >= 0 && !s->arguments->own;
    memcpy(gr, reached ? reference_gradient(w, lane) : w->origin, (size_t)s->C * sizeof(float));
  }
  for (int lane = 0; lane < count; lane++) clear_last_given(w, first + lane);
}

static void tile(worker *w, kp_range range, int64_t first, int count) {
  const kp_seam_call *s = w->seam;
  const bool curved = kp_seam_update_is_curved(s);
  parts p[KP_TILE];
  if (w->tangent.gy != NULL) {
    const int64_t ahead = reaches_own(w) || reaches_stream(w) ? 1 : 0, end = first + count + ahead;
    const int own = (int)((end < range.last ? end : range.last) - first - ahead);
    if (own > 0) kp_seam_tangent_programs(&w->tangent, first + ahead, own, w->tangent_bars);
  }
  if (curved && count < KP_TILE) kp_lanes_clear(w->update, s->update.groups);
  for (int lane = 0; lane < count; lane++) {
    p[lane] = step_one(w, range, first + lane, lane);
    if (curved)
      sum_row(w, p[lane], first + lane, lane);
    else
      update_flat(w, p[lane], first + lane);
  }
  if (curved) update_curved(w, p, first, count);
  give_reference(w, first, count);
  kp_seam_tangent_flush(&w->tangent);
}

/* A flat seam without a reference: no row reaches another, and step 1 writes g x itself. */
static void plain_rows(worker *w, kp_range range) {
  const int64_t C = w->seam->C;
  for (int64_t n = range.first; n < range.last; n++) {
    float *gx = w->gx + n * C;
    kp_seam_plain_row(&w->tangent, n, row_or_origin(w, w->gstream, n), gx);
    if (w->gu != NULL) memcpy(w->gu + n * C, gx, (size_t)C * sizeof(float));
    if ((n + 1 - range.first) % KP_TILE == 0) kp_seam_tangent_flush(&w->tangent);
  }
  kp_seam_tangent_flush(&w->tangent);
}

static void work(worker *w, kp_range range) {
  const kp_seam_call *s = w->seam;
  kp_seam_tangent_clear(&w->tangent);
  if (range.first == range.last) return;
  const bool flat = !kp_seam_update_is_curved(s) && s->arguments->tangent < 0;
  if (flat && w->tangent.gy != NULL && w->gr == NULL) {
    plain_rows(w, range);
    return;
  }
  if (reaches_own(w) || reaches_stream(w)) {
    kp_seam_tangent_programs(&w->tangent, range.first, 1, w->tangent_bars);
    kp_seam_tangent_row(&w->tangent, range.first, 0, w->to_stream[range.first % 2], w->to_reference);
  }
  for (int64_t first = range.first; first < range.last; first += KP_TILE) {
    const int64_t left = range.last - first;
    tile(w, range, first, left < KP_TILE ? (int)left : KP_TILE);
  }
}

/* Adds what the threads have gathered to the gradients of weight and bias. */
static void add_channels(const kp_seam_call *s, char *base, size_t size, int threads, float *gweight,
                         float *gbias) {
  for (int part = 0; part < threads; part++) {
    worker w;
    kp_scratch own = {base + (size_t)part * size, 0};
    lay_out(s, &own, &w);
    for (int64_t c = 0; c < s->C && gweight != NULL; c++) gweight[c] += (float)w.tangent.gweight[c];
    for (int64_t c = 0; c < s->C && gbias != NULL; c++) gbias[c] += (float)w.tangent.gbias[c];
  }
}

kp_status KP_KERNEL(residual_norm_backward)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_seam_call s = kp_seam_of(call);
  kp_scratch scratch = kp_scratch_at(call->scratch);
  const shared common = lay_out_shared(&s, &scratch);
  for (int64_t c = 0; c < s.C; c++) common.ones[c] = 1, common.zeros[c] = 0;
  const int threads = kp_threads_for(call, s.rows * s.C);
  worker layout;
  kp_scratch one = {NULL, 0};
  lay_out(&s, &one, &layout);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; part++) {
    worker w = {.seam = &s,
                .stream = call->input[9],
                .gstream = call->input[10],
                .origin = common.zeros,
                .update_bars = common.update_bars,
                .tangent_bars = common.tangent_bars,
                .gx = call->output[0],
                .gu = call->output[1],
                .gr = call->output[2]};
    kp_scratch own = {scratch.base + scratch.used + (size_t)part * one.used, 0};
    lay_out(&s, &own, &w);
    w.tangent.seam = &s;
    w.tangent.stream = call->input[9];
    w.tangent.gy = call->input[11];
    w.tangent.statistics = call->input[12];
    w.tangent.weight = s.weight == NULL ? common.ones : s.weight;
    w.tangent.origin = common.zeros;
    work(&w, kp_split(s.rows, KP_TILE, part, threads));
  }
  if (call->output[3] != NULL && kp_seam_update_is_curved(&s))
    kp_curvature_rows_reduce(&s.update, common.update_bars, common.sums, call->output[3]);
  if (call->output[4] != NULL && kp_seam_tangent_is_curved(&s) && call->input[11] != NULL)
    kp_curvature_rows_reduce(&s.tangent, common.tangent_bars, common.sums, call->output[4]);
  add_channels(&s, scratch.base + scratch.used, one.used, threads, call->output[5], call->output[6]);
  return KP_OK;
}
