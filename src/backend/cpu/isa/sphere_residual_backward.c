/* The residual step on the unit sphere, backward.
 *
 * The scalars that go back through a row are sums of products of A, B (or w), λ and g.  They are all taken in
 * one pass, before any of them is needed, so that the last pass writes both gradients: the lines of
 * ops/sphere_residual.c with their inner products expanded. */
#include "backend/cpu/isa/column_sums.h"
#include "backend/cpu/isa/isa.h"
#include "backend/cpu/isa/split.h"
#include "backend/cpu/isa/sphere_row.h"

/* Where one row's gradients go; gh may be g. */
typedef struct row_gradients {
  const float *g;
  float *gh, *gu;
  double *rate; /* (C) adds: that of λ */
} row_gradients;

/* ---- lerp: r = A + λ (B - A), r̄ = (g - k r)/|r| with k = <r,g>/|r|²; Ā = (1 - λ) r̄, B̄ = λ r̄ ---- */

/* 1/|r|, k, <A,Ā> and <B,B̄> of a row. */
typedef struct lerp_scalars {
  double inverse, along, a, b;
} lerp_scalars;

static lerp_scalars lerp_scalars_of(const kp_sphere_row *row, const kp_sphere_units *units, const float *g) {
  const float inverse_h = (float)units->inverse_h, inverse_u = (float)units->inverse_u, factor = row->factor;
  const float *h = row->h, *u = row->u, *rate = row->rate;
  double rr = 0, rg = 0, ag = 0, ar = 0, bg = 0, br = 0; /* with A as (1 - λ) A and B as λ B */
#pragma omp simd reduction(+ : rr, rg, ag, ar, bg, br)
  for (int64_t i = 0; i < row->C; i++) {
    const float a = inverse_h * h[i], b = inverse_u * u[i], l = kp_sphere_rate(rate[i], factor);
    const double share_b = (double)(l * b), share_a = (double)(a - l * a);
    const double r = (double)(a + l * (b - a)), bar = (double)g[i];
    rr += r * r, rg += r * bar;
    ag += share_a * bar, ar += share_a * r;
    bg += share_b * bar, br += share_b * r;
  }
  const double inverse = kp_sphere_inverse_length(rr), along = rg * inverse * inverse;
  return (lerp_scalars){inverse, along, inverse * (ag - along * ar), inverse * (bg - along * br)};
}

static void lerp_row(const kp_sphere_row *row, const kp_sphere_units *units, const row_gradients *to) {
  const lerp_scalars scalars = lerp_scalars_of(row, units, to->g);
  const float inverse_h = (float)units->inverse_h, inverse_u = (float)units->inverse_u, factor = row->factor;
  const float inverse = (float)scalars.inverse, along = (float)scalars.along;
  const float along_a = (float)scalars.a, along_b = (float)scalars.b;
  const float *h = row->h, *u = row->u, *rate = row->rate, *g = to->g;
  float *gh = to->gh, *gu = to->gu;
  double *rate_bar = to->rate;
#pragma omp simd
  for (int64_t i = 0; i < row->C; i++) {
    const float a = inverse_h * h[i], b = inverse_u * u[i], l = kp_sphere_rate(rate[i], factor);
    const float difference = b - a, r_bar = inverse * (g[i] - along * (a + l * difference));
    const float b_bar = l * r_bar;
    rate_bar[i] += (double)(difference * r_bar);
    gh[i] = inverse_h * (r_bar - b_bar - along_a * a);
    gu[i] = inverse_u * (b_bar - along_b * b);
  }
}

/* ---- slerp: m = λ w, w = B - c A, s = ρ m, p = s - n A, h' = cos|p| A + S p ---- */

/* The inner products that the scalars are made of. */
typedef struct slerp_sums {
  double ww, ma, mm, ag, mg, lma, laa, lag;
} slerp_sums;

static slerp_sums slerp_sums_of(const kp_sphere_row *row, const kp_sphere_units *units, const float *g) {
  const double inverse_h = units->inverse_h, inverse_u = units->inverse_u, cosine = units->cosine;
  const float *h = row->h, *u = row->u, *rate = row->rate, factor = row->factor;
  double ww = 0, ma = 0, mm = 0, ag = 0, mg = 0, lma = 0, laa = 0, lag = 0;
#pragma omp simd reduction(+ : ww, ma, mm, ag, mg, lma, laa, lag)
  for (int64_t i = 0; i < row->C; i++) {
    const double a = inverse_h * (double)h[i], w = inverse_u * (double)u[i] - cosine * a;
    const double l = (double)kp_sphere_rate(rate[i], factor), m = l * w, bar = (double)g[i], la = l * a;
    ww += w * w, ma += m * a, mm += m * m, ag += a * bar, mg += m * bar;
    lma += la * m, laa += la * a, lag += la * bar;
  }
  return (slerp_sums){ww, ma, mm, ag, mg, lma, laa, lag};
}

/* s̄ = of_g g + of_m m + of_a A;  B̄ = ρ λ s̄ + of_w w + c̄ A;  Ā = a_of_g g + a_of_m m + a_of_a A - c (B̄ - c̄ A)
 * + c̄ B. */
typedef struct slerp_scalars {
  double ratio, cosine;
  double of_g, of_m, of_a;
  double of_w, cosine_bar;
  double a_of_g, a_of_m, a_of_a;
  double a, b; /* <A,Ā>, <B,B̄> */
} slerp_scalars;

static slerp_scalars slerp_scalars_of(const slerp_sums *sums, double cosine) {
  const kp_sphere_log log = kp_sphere_log_of(sums->ww, cosine);
  const double ratio = log.ratio, normal = ratio * sums->ma;
  const kp_sine_cosine exp = kp_sine_cosine_of(kp_max(ratio * ratio * sums->mm - normal * normal, 0));
  const double sine = exp.sine_ratio.value;
  const double twice = 2 * (sums->ag * exp.cosine.derivative +
                            (ratio * sums->mg - normal * sums->ag) * exp.sine_ratio.derivative);
  const double normal_bar = -sine * sums->ag;
  slerp_scalars s = {.ratio = ratio, .cosine = cosine, .of_g = sine, .of_m = twice * ratio};
  s.of_a = normal_bar - twice * normal;
  const double ratio_bar = s.of_g * sums->mg + s.of_m * sums->mm + s.of_a * sums->ma;
  const double w_bar_a = ratio * (s.of_g * sums->lag + s.of_m * sums->lma + s.of_a * sums->laa);
  s.of_w = 2 * ratio_bar * log.by_square;
  s.cosine_bar = ratio_bar * log.by_cosine - w_bar_a;
  s.a_of_g = exp.cosine.value - normal * sine;
  s.a_of_m = ratio * (normal_bar - normal * twice);
  s.a_of_a = normal * normal * twice;
  s.a = exp.cosine.value * sums->ag + 2 * normal * normal_bar - cosine * w_bar_a + s.cosine_bar * cosine;
  s.b = ratio * ratio_bar + s.of_w * sums->ww + cosine * w_bar_a + s.cosine_bar * cosine;
  return s;
}

static void slerp_row(const kp_sphere_row *row, const kp_sphere_units *units, const row_gradients *to) {
  const slerp_sums sums = slerp_sums_of(row, units, to->g);
  const slerp_scalars s = slerp_scalars_of(&sums, units->cosine);
  const double inverse_h = units->inverse_h, inverse_u = units->inverse_u;
  const float *h = row->h, *u = row->u, *rate = row->rate, factor = row->factor, *g = to->g;
  float *gh = to->gh, *gu = to->gu;
  double *rate_bar = to->rate;
#pragma omp simd
  for (int64_t i = 0; i < row->C; i++) {
    const double a = inverse_h * (double)h[i], b = inverse_u * (double)u[i], w = b - s.cosine * a;
    const double l = (double)kp_sphere_rate(rate[i], factor), m = l * w, bar = (double)g[i];
    const double s_bar = s.ratio * (s.of_g * bar + s.of_m * m + s.of_a * a);
    const double w_bar = l * s_bar + s.of_w * w;
    const double a_bar = s.a_of_g * bar + s.a_of_m * m + s.a_of_a * a - s.cosine * w_bar + s.cosine_bar * b;
    rate_bar[i] += s_bar * w;
    gh[i] = (float)(inverse_h * (a_bar - s.a * a));
    gu[i] = (float)(inverse_u * (w_bar + s.cosine_bar * a - s.b * b));
  }
}

/* ---- all rows ---- */

size_t KP_SCRATCH(sphere_residual_backward)(const kp_node *node, int threads) {
  return kp_column_sums_bytes(kp_tensor_columns(node->input[0]), threads);
}

static void rows_backward(const kp_call *call, kp_range range, double *rate_bar) {
  const kp_sphere_arguments *arguments = call->node->arguments;
  for (int64_t n = range.first; n < range.last; n++) {
    const kp_sphere_row row = kp_sphere_row_of(call, n);
    const kp_sphere_units units = kp_sphere_units_of(&row);
    const int64_t at = n * row.C;
    const row_gradients to = {(const float *)call->input[3] + at, (float *)call->output[0] + at,
                              (float *)call->output[1] + at, rate_bar};
    if (arguments->step == KP_SPHERE_LERP)
      lerp_row(&row, &units, &to);
    else
      slerp_row(&row, &units, &to);
  }
}

kp_status KP_KERNEL(sphere_residual_backward)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_sphere_arguments *arguments = call->node->arguments;
  const int64_t rows = kp_tensor_rows(call->node->input[0]), C = kp_tensor_columns(call->node->input[0]);
  const int threads = kp_threads_for(call, 8 * rows * C);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; part++)
    rows_backward(call, kp_split(rows, 1, part, threads), kp_column_sums_part(call->scratch, C, part));
  const float *rate = call->input[2];
  float *grate = call->output[2];
  for (int64_t i = 0; i < C && grate != NULL; i++) {
    const double total = arguments->factor * kp_column_sum(call->scratch, C, threads, i);
    grate[i] += (float)((double)rate[i] * arguments->factor < 0 ? -total : total);
  }
  return KP_OK;
}
