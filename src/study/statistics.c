#include "study/statistics.h"

#include <math.h>
#include <stdlib.h>

#include "core/assert.h"

kp_statistic kp_statistic_of(const double *values, int count) {
  kp_statistic s = {.mean = NAN, .spread = NAN};
  double sum = 0, squares = 0;
  for (int i = 0; i < count; i++) {
    if (!isfinite(values[i])) continue;
    sum += values[i];
    s.count++;
  }
  if (s.count == 0) return s;
  s.mean = sum / s.count;
  for (int i = 0; i < count; i++)
    if (isfinite(values[i])) squares += (values[i] - s.mean) * (values[i] - s.mean);
  if (s.count > 1) s.spread = sqrt(squares / (s.count - 1));
  return s;
}

/* ---- Student's distribution ---- */

/* The continued fraction of the incomplete beta function, by Lentz' method (DLMF 8.17.22). */
static double beta_fraction(double a, double b, double x) {
  const double tiny = 1e-300;
  double c = 1, d = 1 / fmax(1 - (a + b) * x / (a + 1), tiny), value = d;
  for (int m = 1; m < 1000; m++) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    double factor = 1;
    for (int half = 0; half < 2; half++) {
      const double term = half == 0 ? even : odd;
      d = 1 + term * d;
      c = 1 + term / c;
      if (fabs(d) < tiny) d = tiny;
      if (fabs(c) < tiny) c = tiny;
      d = 1 / d;
      factor = c * d;
      value *= factor;
    }
    if (fabs(factor - 1) < 1e-15) break;
  }
  return value;
}

/* I_x(a, b), the regularised incomplete beta function. */
static double incomplete_beta(double a, double b, double x) {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  const double front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x));
  if (x < (a + 1) / (a + b + 2)) return front * beta_fraction(a, b, x) / a;
  return 1 - front * beta_fraction(b, a, 1 - x) / b;
}

double kp_student_tail(double t, double freedom) {
  if (!(freedom > 0) || isnan(t)) return (double)NAN;
  return incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t));
}

double kp_student_quantile(double p, double freedom) {
  double low = 0, high = 1;
  if (!(freedom > 0) || !(p > 0 && p < 1)) return (double)NAN;
  while (kp_student_tail(high, freedom) > p && high < 1e15) high *= 2;
  for (int i = 0; i < 200 && high - low > 1e-14 * high; i++) {
    const double middle = (low + high) / 2;
    if (kp_student_tail(middle, freedom) > p)
      low = middle;
    else
      high = middle;
  }
  return (low + high) / 2;
}

/* ---- differences ---- */

static kp_difference difference_of(double value, double error, double freedom) {
  kp_difference d = {.value = value, .error = error, .freedom = freedom, .low = NAN, .high = NAN, .p = NAN};
  if (!isfinite(value) || !isfinite(error)) return d;
  if (error == 0) {
    d.low = d.high = value;
    d.p = value == 0 ? 1 : 0;
    return d;
  }
  const double reach = error * kp_student_quantile(0.05, freedom);
  d.low = value - reach;
  d.high = value + reach;
  d.p = kp_student_tail(value / error, freedom);
  return d;
}

kp_difference kp_welch(kp_statistic a, kp_statistic b) {
  const double value = a.mean - b.mean;
  if (a.count < 2 || b.count < 2) return difference_of(value, (double)NAN, (double)NAN);
  const double x = a.spread * a.spread / a.count, y = b.spread * b.spread / b.count;
  const double freedom = (x + y) * (x + y) / (x * x / (a.count - 1) + y * y / (b.count - 1));
  return difference_of(value, sqrt(x + y), freedom);
}

kp_difference kp_paired(const double *a, const double *b, int count) {
  double *differences = malloc(((size_t)count + 1) * sizeof *differences);
  kp_assert(differences != NULL, "out of memory");
  for (int i = 0; i < count; i++) differences[i] = a[i] - b[i];
  const kp_statistic s = kp_statistic_of(differences, count);
  free(differences);
  return difference_of(s.mean, s.spread / sqrt(s.count), s.count - 1);
}

kp_verdict kp_verdict_of(const kp_difference *difference) {
  if (isnan(difference->low)) return KP_VERDICT_UNKNOWN;
  if (difference->high < 0) return KP_VERDICT_LOWER;
  return difference->low > 0 ? KP_VERDICT_HIGHER : KP_VERDICT_SAME;
}

/* ---- ranks ---- */

typedef struct ranked {
  double value;
  int64_t place;
} ranked;

static int ascending(const void *a, const void *b) {
  const double x = ((const ranked *)a)->value, y = ((const ranked *)b)->value;
  return (x > y) - (x < y);
}

/* Ranks from 1; equal values share their mean rank. */
static void rank(const double *values, int64_t count, ranked *sorted, double *ranks) {
  for (int64_t i = 0; i < count; i++) sorted[i] = (ranked){values[i], i};
  qsort(sorted, (size_t)count, sizeof *sorted, ascending);
  for (int64_t first = 0, next; first < count; first = next) {
    for (next = first + 1; next < count && sorted[next].value == sorted[first].value;) next++;
    for (int64_t i = first; i < next; i++) ranks[sorted[i].place] = (double)(first + next + 1) / 2;
  }
}

kp_correlation kp_spearman(const double *x, const double *y, int64_t count) {
  kp_correlation result = {NAN, NAN};
  const double middle = (double)(count + 1) / 2;
  double xx = 0, yy = 0, xy = 0;
  if (count < 3) return result;
  ranked *sorted = malloc((size_t)count * sizeof *sorted);
  double *ranks = malloc(2 * (size_t)count * sizeof *ranks);
  kp_assert(sorted != NULL && ranks != NULL, "out of memory");
  rank(x, count, sorted, ranks);
  rank(y, count, sorted, ranks + count);
  for (int64_t i = 0; i < count; i++) {
    const double a = ranks[i] - middle, b = ranks[count + i] - middle;
    xx += a * a;
    yy += b * b;
    xy += a * b;
  }
  free(sorted);
  free(ranks);
  if (xx == 0 || yy == 0) return result;
  result.value = fmin(fmax(xy / sqrt(xx * yy), -1), 1);
  const double freedom = (double)(count - 2), rest = 1 - result.value * result.value;
  result.p = rest > 0 ? kp_student_tail(result.value * sqrt(freedom / rest), freedom) : 0;
  return result;
}
