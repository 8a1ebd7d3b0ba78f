/* The seam of a Lorentz network, forward: normalised sum of two points, RMSNorm and lift in one pass.
 *
 * For each row, inner products of x and u in double (a Lorentz norm is the difference of large squares), the
 * scalars of the row in double, then x' and y in float while the row is in the cache. */
#include <math.h>

#include "backend/cpu/isa/lorentz_seam.h"
#include "backend/cpu/isa/row_sums.h"
#include "backend/cpu/isa/split.h"

typedef struct outputs {
  float *stream, *stream_time, *y, *y_time, *statistics;
} outputs;

/* κ = s √c / N(a) of row n, and its statistics; *squares: |a|². */
static double residual_scalars(const kp_lorentz_call *k, int64_t n, float *statistics, double *squares) {
  const kp_gram gram = kp_gram_of(k->x + n * k->C, k->u + n * k->C, k->C);
  const double w = kp_lorentz_branch_weight(k, n);
  const double tx = k->x_time != NULL ? (double)k->x_time[n] : sqrt(gram.aa + k->c);
  const double tu = k->u_time != NULL ? (double)k->u_time[n] : sqrt(gram.bb + k->c);
  const double time = tx + w * tu, floor = fmax(k->arguments->floor, KP_LORENTZ_LEAST_SQUARE);
  *squares = gram.aa + w * (2 * gram.ab + w * gram.bb);
  const double square = time * time - *squares;
  const bool floored = fabs(square) < floor;
  const double factor = sqrt(k->c / (floored ? floor : fabs(square)));
  statistics[KP_LORENTZ_FACTOR] = (float)factor;
  statistics[KP_LORENTZ_INVERSE_SQUARE] = floored ? 0 : (float)(1 / square);
  statistics[KP_LORENTZ_STREAM_TIME] = (float)tx;
  statistics[KP_LORENTZ_BRANCH_TIME] = (float)tu;
  return k->s * factor;
}

/* out = first x + second u. */
static void add_row(const float *x, const float *u, float first, float second, int64_t C, float *out) {
#pragma omp simd
  for (int64_t i = 0; i < C; i++) out[i] = first * x[i] + second * u[i];
}

/* y = scale weight z; returns |y|². */
static double norm_row(const float *z, float scale, const float *weight, int64_t C, float *y) {
  float squares = 0;
  if (weight == NULL) {
#pragma omp simd
    for (int64_t i = 0; i < C; i++) y[i] = scale * z[i];
    return kp_square_sum(y, C);
  }
#pragma omp simd reduction(+ : squares)
  for (int64_t i = 0; i < C; i++) {
    const float value = scale * z[i] * weight[i];
    y[i] = value;
    squares += value * value;
  }
  return isfinite(squares) ? (double)squares : kp_square_sum(y, C);
}

static void row(const kp_lorentz_call *k, const outputs *out, int64_t n) {
  const int64_t C = k->C;
  float *statistics = out->statistics + n * KP_LORENTZ_STATISTICS;
  const float *z = k->x + n * C;
  double squares;
  for (int i = 0; i < KP_LORENTZ_STATISTICS; i++) statistics[i] = 0;
  if (k->u != NULL) {
    const double kappa = residual_scalars(k, n, statistics, &squares);
    add_row(z, k->u + n * C, (float)kappa, (float)(kappa * kp_lorentz_branch_weight(k, n)), C,
            out->stream + n * C);
    squares *= kappa * kappa;
    out->stream_time[n] = (float)sqrt(squares + k->c);
    z = out->stream + n * C;
  } else {
    squares = kp_square_sum(z, C);
  }
  if (out->y == NULL) return;
  const double inverse = 1 / sqrt(squares / (double)C + k->arguments->epsilon);
  statistics[KP_LORENTZ_INVERSE_DEVIATION] = (float)inverse;
  out->y_time[n] = (float)sqrt(norm_row(z, (float)inverse, k->weight, C, out->y + n * C) + k->c);
}

kp_status KP_KERNEL(lorentz_residual)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_lorentz_call k = kp_lorentz_call_of(call);
  const outputs out = {call->output[0], call->output[1], call->output[2], call->output[3], call->output[4]};
  const int threads = kp_threads_for(call, k.rows * k.C);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t n = 0; n < k.rows; n++) row(&k, &out, n);
  return KP_OK;
}
