/* Each pass once for doubles and once for floats, so that both loops are vector code. */
#include "optim/passes.h"

double kp_pass_dot(const void *a, const void *b, bool wide, int64_t at, int64_t count) {
  double sum = 0;
  if (wide) {
    const double *x = (const double *)a + at, *y = (const double *)b + at;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) sum += x[i] * y[i];
    return sum;
  }
  const float *x = (const float *)a + at, *y = (const float *)b + at;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; i++) sum += (double)x[i] * (double)y[i];
  return sum;
}

void kp_pass_scale(void *x, bool wide, int64_t at, int64_t count, double factor) {
  if (wide) {
    double *d = (double *)x + at;
    for (int64_t i = 0; i < count; i++) d[i] *= factor;
    return;
  }
  float *f = (float *)x + at;
#pragma omp simd
  for (int64_t i = 0; i < count; i++) f[i] = (float)((double)f[i] * factor);
}

void kp_pass_add(void *y, const void *x, bool wide, int64_t at, int64_t count, double factor) {
  if (wide) {
    double *to = (double *)y + at;
    const double *from = (const double *)x + at;
    for (int64_t i = 0; i < count; i++) to[i] += factor * from[i];
    return;
  }
  float *to = (float *)y + at;
  const float *from = (const float *)x + at;
#pragma omp simd
  for (int64_t i = 0; i < count; i++) to[i] = (float)((double)to[i] + factor * (double)from[i]);
}

void kp_pass_dot_each(const void *a, const void *b, bool wide, int64_t at, int64_t count, double *sums) {
  if (wide) {
    const double *x = (const double *)a + at, *y = (const double *)b + at;
    for (int64_t i = 0; i < count; i++) sums[i] += x[i] * y[i];
    return;
  }
  const float *x = (const float *)a + at, *y = (const float *)b + at;
#pragma omp simd
  for (int64_t i = 0; i < count; i++) sums[i] += (double)x[i] * (double)y[i];
}

void kp_pass_scale_each(void *x, bool wide, int64_t at, int64_t count, const double *factors) {
  if (wide) {
    double *d = (double *)x + at;
    for (int64_t i = 0; i < count; i++) d[i] *= factors[i];
    return;
  }
  float *f = (float *)x + at;
#pragma omp simd
  for (int64_t i = 0; i < count; i++) f[i] = (float)((double)f[i] * factors[i]);
}

void kp_pass_add_each(void *y, const void *x, bool wide, int64_t at, int64_t count, const double *factors) {
  if (wide) {
    double *to = (double *)y + at;
    const double *from = (const double *)x + at;
    for (int64_t i = 0; i < count; i++) to[i] += factors[i] * from[i];
    return;
  }
  float *to = (float *)y + at;
  const float *from = (const float *)x + at;
#pragma omp simd
  for (int64_t i = 0; i < count; i++) to[i] = (float)((double)to[i] + factors[i] * (double)from[i]);
}
