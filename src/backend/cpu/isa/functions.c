/* Passes over flat buffers. */
#include "backend/cpu/functions.h"

#include <math.h>

#include "backend/cpu/isa/isa.h"

extern const kp_cpu_functions KP_ISA_NAME(kp_cpu_functions);

static void adamw(float *restrict value, const float *restrict gradient, float *restrict mean,
                  float *restrict square, int64_t count, const kp_adamw_factors *factors) {
  const kp_adamw_factors f = *factors;
#pragma omp simd
  for (int64_t i = 0; i < count; i++) {
    const float g = f.gradient_scale * gradient[i];
    const float m = mean[i] + f.new_mean * (g - mean[i]);
    const float v = f.old_square * square[i] + f.new_square * g * g;
    const float deviation = sqrtf(v) * f.inverse_root_correction + f.epsilon;
    mean[i] = m;
    square[i] = v;
    value[i] = f.keep * value[i] - f.step * m / deviation;
  }
}

static double square_sum(const float *x, int64_t count) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; i++) sum += (double)x[i] * (double)x[i];
  return sum;
}

static void copy(const float *restrict x, float *restrict y, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) y[i] = x[i];
}

/* Four sums, so that the additions' latency does not hide the memory's speed. */
static float read_all(const float *x, int64_t count) {
  const int64_t quarter = count / 4;
  const float *x1 = x + quarter, *x2 = x1 + quarter, *x3 = x2 + quarter;
  float sum0 = 0, sum1 = 0, sum2 = 0, sum3 = 0;
#pragma omp simd reduction(+ : sum0, sum1, sum2, sum3)
  for (int64_t i = 0; i < quarter; i++) {
    sum0 += x[i];
    sum1 += x1[i];
    sum2 += x2[i];
    sum3 += x3[i];
  }
  return (sum0 + sum1) + (sum2 + sum3);
}

const kp_cpu_functions KP_ISA_NAME(kp_cpu_functions) = {
    .adamw = adamw, .square_sum = square_sum, .copy = copy, .read = read_all};
