/* Norm and tangent of the seam, backward; see seam_tangent.h. */
#include "backend/cpu/isa/seam_tangent.h"

#include <math.h>
#include <string.h>

void kp_seam_tangent_lay_out(const kp_seam_call *seam, kp_scratch *scratch, kp_seam_tangent *t) {
  const size_t C = (size_t)seam->C, groups = (size_t)seam->tangent.groups;
  t->lanes = kp_scratch_take(scratch, groups, sizeof(kp_lanes));
  t->sums = kp_scratch_take(scratch, groups, sizeof(kp_seam_sums));
  t->gweight = kp_scratch_take(scratch, C, sizeof(double));
  t->gbias = kp_scratch_take(scratch, C, sizeof(double));
  t->tile_gweight = kp_scratch_take(scratch, C, sizeof(float));
  t->tile_gbias = kp_scratch_take(scratch, C, sizeof(float));
  t->discarded = kp_scratch_take(scratch, C, sizeof(float));
}

void kp_seam_tangent_clear(kp_seam_tangent *t) {
  const size_t C = (size_t)t->seam->C;
  memset(t->gweight, 0, C * sizeof(double));
  memset(t->gbias, 0, C * sizeof(double));
  memset(t->tile_gweight, 0, C * sizeof(float));
  memset(t->tile_gbias, 0, C * sizeof(float));
  memset(t->discarded, 0, C * sizeof(float));
}

void kp_seam_tangent_flush(kp_seam_tangent *t) {
  const int64_t C = t->seam->C;
  double *gweight = t->gweight, *gbias = t->gbias;
  float *tile_gweight = t->tile_gweight, *tile_gbias = t->tile_gbias;
#pragma omp simd
  for (int64_t c = 0; c < C; c++) {
    gweight[c] += (double)tile_gweight[c];
    gbias[c] += (double)tile_gbias[c];
    tile_gweight[c] = 0;
    tile_gbias[c] = 0;
  }
}

static const float *reference_of(const kp_seam_tangent *t, int64_t n) {
  if (t->seam->arguments->own) return kp_seam_own(t->seam, t->stream, n, t->origin);
  return kp_seam_given(t->seam, n, t->origin);
}

/* ---- flat: z = x', or x' - r ---- */

typedef struct means {
  float g, gn; /* of gw and gw n */
} means;

typedef struct flat_sums {
  kp_floats g, gn;
} flat_sums;

static inline void flat_sums_step(const kp_seam_tangent *t, const float *h, const float *r, const float *gy,
                                  const float statistics[2], int64_t c, int64_t count, flat_sums *sums) {
  kp_floats z, from, g, weight, gweight, gbias;
  kp_load(h + c, count, &z), kp_load(r + c, count, &from);
  kp_load(gy + c, count, &g), kp_load(t->weight + c, count, &weight);
  kp_load(t->tile_gweight + c, count, &gweight), kp_load(t->tile_gbias + c, count, &gbias);
  const kp_floats normal = (z - from - statistics[0]) * statistics[1];
  gweight += g * normal, gbias += g;
  kp_store(&gweight, count, t->tile_gweight + c), kp_store(&gbias, count, t->tile_gbias + c);
  g *= weight;
  sums->g += g, sums->gn += g * normal;
}

/* The means over one row with z = h - r; adds to the tile's gradients of weight and bias. */
static means flat_means(const kp_seam_tangent *t, int64_t n, const float *r) {
  const int64_t C = t->seam->C, whole = C / KP_FLOATS * KP_FLOATS;
  const float *h = t->stream + n * C, *gy = t->gy + n * C, *statistics = t->statistics + 2 * n;
  const bool layer = t->seam->arguments->norm == KP_NORM_LAYER;
  const kp_seam_tangent own = *t; /* a copy that no store can change */
  flat_sums sums = {{0}, {0}};
  for (int64_t c = 0; c < whole; c += KP_FLOATS)
    flat_sums_step(&own, h, r, gy, statistics, c, KP_FLOATS, &sums);
  if (whole < C) flat_sums_step(&own, h, r, gy, statistics, whole, C - whole, &sums);
  return (means){layer ? kp_total_float(&sums.g) / (float)C : 0, kp_total_float(&sums.gn) / (float)C};
}

void kp_seam_plain_row(kp_seam_tangent *t, int64_t n, const float *direct, float *gx) {
  const int64_t C = t->seam->C;
  const float *h = t->stream + n * C, *gy = t->gy + n * C, *weight = t->weight;
  const float mean = t->statistics[2 * n], scale = t->statistics[2 * n + 1];
  const means m = flat_means(t, n, t->origin);
#pragma omp simd
  for (int64_t c = 0; c < C; c++)
    gx[c] = direct[c] + scale * (gy[c] * weight[c] - m.g - (h[c] - mean) * scale * m.gn);
}

static void flat_row(const kp_seam_tangent *t, int64_t n, float *to_stream, float *to_reference) {
  const int64_t C = t->seam->C;
  const float *h = t->stream + n * C, *gy = t->gy + n * C, *weight = t->weight;
  const float mean = t->statistics[2 * n], scale = t->statistics[2 * n + 1];
  const bool difference = t->seam->arguments->tangent >= 0;
  const float *r = difference ? reference_of(t, n) : t->origin;
  const means m = flat_means(t, n, r);
#pragma omp simd
  for (int64_t c = 0; c < C; c++) {
    const float normal = (h[c] - r[c] - mean) * scale;
    const float gz = scale * (gy[c] * weight[c] - m.g - normal * m.gn);
    to_stream[c] = gz;
    to_reference[c] = -gz;
  }
}

/* ---- curved ---- */

typedef struct curved_sums {
  kp_doubles rr, rd, dd, gr, gd, g, r, d;
} curved_sums;

static inline void curved_sums_step(const float *r, const float *h, const float *gy, const float *weight,
                                    int64_t count, curved_sums *sums) {
  kp_doubles a, b, g;
  kp_widen(r, count, &a), kp_widen(h, count, &b), kp_widen_product(gy, weight, count, &g);
  b -= a;
  sums->rr += a * a, sums->rd += a * b, sums->dd += b * b;
  sums->gr += g * a, sums->gd += g * b;
  sums->g += g, sums->r += a, sums->d += b;
}

static void sum_group(const float *r, const float *h, const float *gy, const float *weight, int64_t D,
                      int lane, kp_lanes *lanes, kp_seam_sums *to) {
  curved_sums sums = {{0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}};
  const int64_t whole = D / KP_DOUBLES * KP_DOUBLES;
  for (int64_t c = 0; c < whole; c += KP_DOUBLES)
    curved_sums_step(r + c, h + c, gy + c, weight + c, KP_DOUBLES, &sums);
  if (whole < D) curved_sums_step(r + whole, h + whole, gy + whole, weight + whole, D - whole, &sums);
  lanes->gram[0][lane] = kp_total(&sums.rr);
  lanes->gram[1][lane] = kp_total(&sums.rd);
  lanes->gram[2][lane] = kp_total(&sums.dd);
  to->gw_r[lane] = kp_total(&sums.gr);
  to->gw_d[lane] = kp_total(&sums.gd);
  to->gw[lane] = kp_total(&sums.g);
  to->r[lane] = kp_total(&sums.r);
  to->d[lane] = kp_total(&sums.d);
}

static void sum_row(kp_seam_tangent *t, int64_t n, int lane) {
  const kp_seam_call *s = t->seam;
  const int64_t groups = s->tangent.groups, D = s->C / groups;
  const float *r = reference_of(t, n), *h = t->stream + n * s->C, *gy = t->gy + n * s->C;
  for (int64_t group = 0; group < groups; group++) {
    const int64_t at = group * D;
    t->lanes[group].kappa[lane] = kp_curvature_of_row(&s->tangent, n, group);
    sum_group(r + at, h + at, gy + at, t->weight + at, D, lane, &t->lanes[group], &t->sums[group]);
  }
}

/* The means of gw and gw n over the whole row. */
static void curved_means(kp_seam_tangent *t, int64_t n, int lane) {
  const kp_seam_call *s = t->seam;
  const double mean = (double)t->statistics[2 * n], scale = (double)t->statistics[2 * n + 1];
  double sum_g = 0, sum_gn = 0;
  for (int64_t group = 0; group < s->tangent.groups; group++) {
    const kp_lanes *lanes = &t->lanes[group];
    const kp_seam_sums *sums = &t->sums[group];
    sum_g += sums->gw[lane];
    sum_gn += scale * (lanes->coefficients[0][lane] * sums->gw_r[lane] +
                       lanes->coefficients[1][lane] * sums->gw_d[lane] - mean * sums->gw[lane]);
  }
  t->mean_g[lane] = s->arguments->norm == KP_NORM_LAYER ? sum_g / (double)s->C : 0;
  t->mean_gn[lane] = sum_gn / (double)s->C;
}

/* <g z, r> and <g z, d> of each group. */
static void coefficient_gradients(kp_seam_tangent *t, int64_t n, int lane) {
  const double mean = (double)t->statistics[2 * n], scale = (double)t->statistics[2 * n + 1];
  for (int64_t group = 0; group < t->seam->tangent.groups; group++) {
    kp_lanes *lanes = &t->lanes[group];
    const kp_seam_sums *sums = &t->sums[group];
    const double first = lanes->coefficients[0][lane], second = lanes->coefficients[1][lane];
    const double rr = lanes->gram[0][lane], rd = lanes->gram[1][lane], dd = lanes->gram[2][lane];
    const double n_r = scale * (first * rr + second * rd - mean * sums->r[lane]);
    const double n_d = scale * (first * rd + second * dd - mean * sums->d[lane]);
    lanes->coefficients_bar[0][lane] =
        scale * (sums->gw_r[lane] - t->mean_g[lane] * sums->r[lane] - t->mean_gn[lane] * n_r);
    lanes->coefficients_bar[1][lane] =
        scale * (sums->gw_d[lane] - t->mean_g[lane] * sums->d[lane] - t->mean_gn[lane] * n_d);
  }
}

/* A linear combination of gw, 1, r and d. */
typedef struct combination {
  double gw, one, r, d;
} combination;

/* c g z + bar_r r + bar_d d, with g z itself a combination. */
static combination along(double c, combination gz, double bar_r, double bar_d) {
  return (combination){c * gz.gw, c * gz.one, c * gz.r + bar_r, c * gz.d + bar_d};
}

/* What one group of a row becomes, and where it stands. */
typedef struct group_work {
  combination to_stream, to_reference, normal;
  const float *r, *h, *gy, *weight;
  float *stream, *reference, *gweight, *gbias;
} group_work;

static inline void evaluate(combination f, const kp_doubles *g, const kp_doubles *r, const kp_doubles *d,
                            kp_doubles *out) {
  *out = f.gw * *g + f.r * *r + f.d * *d + f.one;
}

static inline void combine_step(const group_work *w, int64_t c, int64_t count) {
  kp_doubles r, d, g, out;
  kp_widen(w->r + c, count, &r), kp_widen(w->h + c, count, &d);
  kp_widen_product(w->gy + c, w->weight + c, count, &g);
  d -= r;
  evaluate(w->to_stream, &g, &r, &d, &out);
  kp_narrow(&out, count, w->stream + c);
  evaluate(w->to_reference, &g, &r, &d, &out);
  kp_narrow(&out, count, w->reference + c);
  out = w->normal.r * r + w->normal.d * d + w->normal.one;
  kp_half_floats gy, gweight, gbias;
  kp_load_half(w->gy + c, count, &gy);
  kp_load_half(w->gweight + c, count, &gweight), kp_load_half(w->gbias + c, count, &gbias);
  gweight += gy * __builtin_convertvector(out, kp_half_floats);
  gbias += gy;
  kp_store_half(&gweight, count, w->gweight + c), kp_store_half(&gbias, count, w->gbias + c);
}

static group_work group_work_of(const kp_seam_tangent *t, int64_t n, int64_t group, int lane,
                                float *to_stream, float *to_reference) {
  const kp_lanes *lanes = &t->lanes[group];
  const int64_t D = t->seam->C / t->seam->tangent.groups, at = n * t->seam->C + group * D;
  const double mean = (double)t->statistics[2 * n], scale = (double)t->statistics[2 * n + 1];
  const double first = lanes->coefficients[0][lane], second = lanes->coefficients[1][lane];
  const double fall = scale * scale * t->mean_gn[lane];
  const combination gz = {scale, fall * mean - scale * t->mean_g[lane], -fall * first, -fall * second};
  const combination gd = along(second, gz, lanes->gram_bar[1][lane], 2 * lanes->gram_bar[2][lane]);
  const combination all = along(first, gz, 2 * lanes->gram_bar[0][lane], lanes->gram_bar[1][lane]);
  return (group_work){.to_stream = gd,
                      .to_reference = {all.gw - gd.gw, all.one - gd.one, all.r - gd.r, all.d - gd.d},
                      .normal = {0, -scale * mean, scale * first, scale * second},
                      .r = reference_of(t, n) + group * D,
                      .h = t->stream + at,
                      .gy = t->gy + at,
                      .weight = t->weight + group * D,
                      .stream = to_stream + group * D,
                      .reference = to_reference + group * D,
                      .gweight = t->tile_gweight + group * D,
                      .gbias = t->tile_gbias + group * D};
}

static void combine_row(const kp_seam_tangent *t, int64_t n, int lane, float *to_stream,
                        float *to_reference) {
  const int64_t groups = t->seam->tangent.groups, D = t->seam->C / groups,
                whole = D / KP_DOUBLES * KP_DOUBLES;
  for (int64_t group = 0; group < groups; group++) {
    const group_work w = group_work_of(t, n, group, lane, to_stream, to_reference);
    for (int64_t c = 0; c < whole; c += KP_DOUBLES) combine_step(&w, c, KP_DOUBLES);
    if (whole < D) combine_step(&w, whole, D - whole);
  }
}

void kp_seam_tangent_programs(kp_seam_tangent *t, int64_t first, int count, double *bars) {
  const kp_seam_call *s = t->seam;
  const int64_t groups = s->tangent.groups;
  if (!kp_seam_tangent_is_curved(s)) return;
  if (count < KP_TILE) kp_lanes_clear(t->lanes, groups);
  for (int lane = 0; lane < count; lane++) sum_row(t, first + lane, lane);
  for (int64_t g = 0; g < groups; g++) KP_ISA_NAME(kp_lanes_forward)(s->arguments->tangent, 0, &t->lanes[g]);
  for (int lane = 0; lane < count; lane++) {
    curved_means(t, first + lane, lane);
    coefficient_gradients(t, first + lane, lane);
  }
  for (int64_t g = 0; g < groups; g++) {
    KP_ISA_NAME(kp_lanes_backward)(s->arguments->tangent, 0, &t->lanes[g]);
    for (int lane = 0; lane < count && bars != NULL; lane++)
      bars[(first + lane) * groups + g] = t->lanes[g].kappa_bar[lane];
  }
}

void kp_seam_tangent_row(kp_seam_tangent *t, int64_t n, int lane, float *to_stream, float *to_reference) {
  if (kp_seam_tangent_is_curved(t->seam))
    combine_row(t, n, lane, to_stream, to_reference);
  else
    flat_row(t, n, to_stream, to_reference);
}

void kp_seam_tangent_row_again(kp_seam_tangent *t, int64_t n, float *to_stream, float *to_reference) {
  kp_seam_tangent again = *t;
  again.tile_gweight = again.tile_gbias = t->discarded;
  kp_seam_tangent_programs(&again, n, 1, NULL);
  kp_seam_tangent_row(&again, n, 0, to_stream, to_reference);
}
