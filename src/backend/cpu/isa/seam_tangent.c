/* Norm and tangent of the seam, backward; see seam_tangent.h. */
#include "backend/cpu/isa/seam_tangent.h"

#include <math.h>
#include <string.h>

void kp_seam_tangent_lay_out(const kp_seam_call *seam, kp_scratch *scratch, kp_seam_tangent *t) {
  const size_t C = (size_t)seam->C, groups = (size_t)seam->tangent.groups;
  t->lanes = kp_scratch_take(scratch, groups, sizeof(kp_lanes));
  t->sums = kp_scratch_take(scratch, groups, sizeof(kp_seam_sums));
  t->to_stream = kp_scratch_take(scratch, KP_TILE * C, sizeof(float));
  t->to_reference = kp_scratch_take(scratch, KP_TILE * C, sizeof(float));
  t->gweight = kp_scratch_take(scratch, C, sizeof(double));
  t->gbias = kp_scratch_take(scratch, C, sizeof(double));
  t->tile_gweight = kp_scratch_take(scratch, C, sizeof(float));
  t->tile_gbias = kp_scratch_take(scratch, C, sizeof(float));
}

void kp_seam_tangent_clear(kp_seam_tangent *t) {
  const size_t C = (size_t)t->seam->C;
  memset(t->gweight, 0, C * sizeof(double));
  memset(t->gbias, 0, C * sizeof(double));
  memset(t->tile_gweight, 0, C * sizeof(float));
  memset(t->tile_gbias, 0, C * sizeof(float));
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

/* The means over one row; adds to the tile's gradients of weight and bias. */
static inline means flat_means(kp_seam_tangent *t, int64_t n, const float *reference) {
  const int64_t C = t->seam->C;
  const float *h = t->stream + n * C, *gy = t->gy + n * C, *weight = t->weight;
  const float mean = t->statistics[2 * n], scale = t->statistics[2 * n + 1];
  float *gweight = t->tile_gweight, *gbias = t->tile_gbias, sum_g = 0, sum_gn = 0;
#pragma omp simd reduction(+ : sum_g, sum_gn)
  for (int64_t c = 0; c < C; c++) {
    const float z = reference == NULL ? h[c] : h[c] - reference[c];
    const float normal = (z - mean) * scale, g = gy[c] * weight[c];
    gweight[c] += gy[c] * normal;
    gbias[c] += gy[c];
    sum_g += g;
    sum_gn += g * normal;
  }
  const bool layer = t->seam->arguments->norm == KP_NORM_LAYER;
  return (means){layer ? sum_g / (float)C : 0, sum_gn / (float)C};
}

void kp_seam_plain_row(kp_seam_tangent *t, int64_t n, const float *direct, float *gx) {
  const int64_t C = t->seam->C;
  const float *h = t->stream + n * C, *gy = t->gy + n * C, *weight = t->weight;
  const float mean = t->statistics[2 * n], scale = t->statistics[2 * n + 1];
  const means m = flat_means(t, n, NULL);
#pragma omp simd
  for (int64_t c = 0; c < C; c++)
    gx[c] = direct[c] + scale * (gy[c] * weight[c] - m.g - (h[c] - mean) * scale * m.gn);
}

static void flat_row(kp_seam_tangent *t, int64_t n, int lane) {
  const int64_t C = t->seam->C;
  const float *h = t->stream + n * C, *gy = t->gy + n * C, *weight = t->weight;
  const float mean = t->statistics[2 * n], scale = t->statistics[2 * n + 1];
  const bool difference = t->seam->arguments->tangent >= 0;
  const float *r = difference ? reference_of(t, n) : t->origin;
  float *to_stream = t->to_stream + lane * C, *to_reference = t->to_reference + lane * C;
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

static void sum_row(kp_seam_tangent *t, int64_t n, int lane) {
  const kp_seam_call *s = t->seam;
  const int64_t groups = s->tangent.groups, D = s->C / groups;
  const float *reference = reference_of(t, n);
  for (int64_t group = 0; group < groups; group++) {
    const float *r = reference + group * D, *h = t->stream + n * s->C + group * D;
    const float *gy = t->gy + n * s->C + group * D, *weight = t->weight + group * D;
    double rr = 0, rd = 0, dd = 0, gr = 0, gd = 0, sum_g = 0, sum_r = 0, sum_d = 0;
#pragma omp simd reduction(+ : rr, rd, dd, gr, gd, sum_g, sum_r, sum_d)
    for (int64_t c = 0; c < D; c++) {
      const double a = (double)r[c], b = (double)h[c] - a, g = (double)(gy[c] * weight[c]);
      rr += a * a, rd += a * b, dd += b * b, gr += g * a, gd += g * b;
      sum_g += g, sum_r += a, sum_d += b;
    }
    kp_lanes *lanes = &t->lanes[group];
    kp_seam_sums *sums = &t->sums[group];
    lanes->kappa[lane] = kp_curvature_of_row(&s->tangent, n, group);
    lanes->gram[0][lane] = rr, lanes->gram[1][lane] = rd, lanes->gram[2][lane] = dd;
    sums->gw_r[lane] = gr, sums->gw_d[lane] = gd, sums->gw[lane] = sum_g;
    sums->r[lane] = sum_r, sums->d[lane] = sum_d;
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

static void combine_row(kp_seam_tangent *t, int64_t n, int lane) {
  const kp_seam_call *s = t->seam;
  const int64_t groups = s->tangent.groups, D = s->C / groups;
  const double mean = (double)t->statistics[2 * n], scale = (double)t->statistics[2 * n + 1];
  const float *reference = reference_of(t, n);
  for (int64_t group = 0; group < groups; group++) {
    const kp_lanes *lanes = &t->lanes[group];
    const double first = lanes->coefficients[0][lane], second = lanes->coefficients[1][lane];
    const double fall = scale * scale * t->mean_gn[lane];
    const combination gz = {scale, fall * mean - scale * t->mean_g[lane], -fall * first, -fall * second};
    const combination gd = along(second, gz, lanes->gram_bar[1][lane], 2 * lanes->gram_bar[2][lane]);
    const combination all = along(first, gz, 2 * lanes->gram_bar[0][lane], lanes->gram_bar[1][lane]);
    const combination gr = {all.gw - gd.gw, all.one - gd.one, all.r - gd.r, all.d - gd.d};
    const double n_r = scale * first, n_d = scale * second, n_one = -scale * mean;
    const float *r = reference + group * D, *h = t->stream + n * s->C + group * D;
    const float *gy = t->gy + n * s->C + group * D, *weight = t->weight + group * D;
    float *to_stream = t->to_stream + lane * s->C + group * D;
    float *to_reference = t->to_reference + lane * s->C + group * D;
    float *gweight = t->tile_gweight + group * D, *gbias = t->tile_gbias + group * D;
#pragma omp simd
    for (int64_t c = 0; c < D; c++) {
      const double a = (double)r[c], b = (double)h[c] - a, g = (double)(gy[c] * weight[c]);
      to_stream[c] = (float)(gd.gw * g + gd.one + gd.r * a + gd.d * b);
      to_reference[c] = (float)(gr.gw * g + gr.one + gr.r * a + gr.d * b);
      gweight[c] += gy[c] * (float)(n_r * a + n_d * b + n_one);
      gbias[c] += gy[c];
    }
  }
}

static void curved_rows(kp_seam_tangent *t, int64_t first, int count, double *bars) {
  const kp_seam_call *s = t->seam;
  const int64_t groups = s->tangent.groups;
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
  for (int lane = 0; lane < count; lane++) combine_row(t, first + lane, lane);
}

void kp_seam_tangent_rows(kp_seam_tangent *t, int64_t first, int count, double *bars) {
  if (kp_seam_tangent_is_curved(t->seam)) {
    curved_rows(t, first, count, bars);
    return;
  }
  for (int lane = 0; lane < count; lane++) flat_row(t, first + lane, lane);
}

void kp_seam_tangent_rows_again(kp_seam_tangent *t, int64_t n) {
  const size_t C = (size_t)t->seam->C;
  kp_seam_tangent_rows(t, n, 1, NULL);
  memset(t->tile_gweight, 0, C * sizeof(float));
  memset(t->tile_gbias, 0, C * sizeof(float));
}
