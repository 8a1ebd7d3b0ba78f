/* The residual step on the unit sphere, forward.
 *
 * A row is read once from memory: the passes over it after the first find it in the nearest cache.  Sums are
 * in double, and all of slerp is: near the antipode it divides by the length of a difference. */
#include "backend/cpu/isa/isa.h"
#include "backend/cpu/isa/split.h"
#include "backend/cpu/isa/sphere_row.h"

/* y = r/|r|, r = A + λ (B - A); y may be h. */
static void lerp_row(const kp_sphere_row *row, const kp_sphere_units *units, float *y) {
  const float inverse_h = (float)units->inverse_h, inverse_u = (float)units->inverse_u;
  const float *h = row->h, *u = row->u, *rate = row->rate, factor = row->factor;
  double square = 0;
#pragma omp simd reduction(+ : square)
  for (int64_t i = 0; i < row->C; i++) {
    const float a = inverse_h * h[i], b = inverse_u * u[i];
    const float r = a + kp_sphere_rate(rate[i], factor) * (b - a);
    square += (double)r * (double)r;
    y[i] = r;
  }
  const float inverse = (float)kp_sphere_inverse_length(square);
#pragma omp simd
  for (int64_t i = 0; i < row->C; i++) y[i] *= inverse;
}

/* y = cos|p| A + S p with p = ρ λ w - <A, ρ λ w> A, w = B - cos t A, ρ = t / sin t; y may be h. */
static void slerp_row(const kp_sphere_row *row, const kp_sphere_units *units, float *y) {
  const double inverse_h = units->inverse_h, inverse_u = units->inverse_u, cosine = units->cosine;
  const float *h = row->h, *u = row->u, *rate = row->rate, factor = row->factor;
  double ww = 0, ma = 0, mm = 0; /* of w and of m = λ w */
#pragma omp simd reduction(+ : ww, ma, mm)
  for (int64_t i = 0; i < row->C; i++) {
    const double a = inverse_h * (double)h[i], w = inverse_u * (double)u[i] - cosine * a;
    const double m = (double)kp_sphere_rate(rate[i], factor) * w;
    ww += w * w, ma += m * a, mm += m * m;
  }
  const double ratio = kp_sphere_log_of(ww, cosine).ratio, normal = ratio * ma;
  const kp_sine_cosine exp = kp_sine_cosine_of(kp_max(ratio * ratio * mm - normal * normal, 0));
  const double of_a = exp.cosine.value - exp.sine_ratio.value * normal, of_m = exp.sine_ratio.value * ratio;
#pragma omp simd
  for (int64_t i = 0; i < row->C; i++) {
    const double a = inverse_h * (double)h[i], w = inverse_u * (double)u[i] - cosine * a;
    y[i] = (float)(of_a * a + of_m * (double)kp_sphere_rate(rate[i], factor) * w);
  }
}

kp_status KP_KERNEL(sphere_residual)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_sphere_arguments *arguments = call->node->arguments;
  const int64_t rows = kp_tensor_rows(call->node->input[0]), C = kp_tensor_columns(call->node->input[0]);
  const bool lerp = arguments->step == KP_SPHERE_LERP;
#pragma omp parallel for schedule(static) num_threads(kp_threads_for(call, 4 * rows * C))
  for (int64_t n = 0; n < rows; n++) {
    const kp_sphere_row row = kp_sphere_row_of(call, n);
    const kp_sphere_units units = kp_sphere_units_of(&row);
    float *y = (float *)call->output[0] + n * C;
    if (lerp)
      lerp_row(&row, &units, y);
    else
      slerp_row(&row, &units, y);
  }
  return KP_OK;
}
