/* A block of weight rows is read from memory by the first row of x and from
 * the cache by the others, so W streams through once.  Each thread owns a
 * contiguous part of W's rows. */
#include "backend/cpu/isa/linear_few.h"

#include "backend/cpu/isa/split.h"

enum { BLOCK = 4 };

/* Four dot products at once: enough independent sums to hide the latency of the additions. */
static inline void dot_block(const float *restrict w, const float *restrict x, int64_t depth,
                             float dot[BLOCK]) {
  const float *w1 = w + depth, *w2 = w1 + depth, *w3 = w2 + depth;
  float sum0 = 0, sum1 = 0, sum2 = 0, sum3 = 0;
#pragma omp simd reduction(+ : sum0, sum1, sum2, sum3)
  for (int64_t k = 0; k < depth; k++) {
    sum0 += w[k] * x[k];
    sum1 += w1[k] * x[k];
    sum2 += w2[k] * x[k];
    sum3 += w3[k] * x[k];
  }
  dot[0] = sum0;
  dot[1] = sum1;
  dot[2] = sum2;
  dot[3] = sum3;
}

static inline float dot_single(const float *restrict w, const float *restrict x, int64_t depth) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t k = 0; k < depth; k++) sum += w[k] * x[k];
  return sum;
}

void KP_ISA_NAME(kp_cpu_linear_few)(const float *x, const float *w, const float *bias, float *y, int64_t rows,
                                    int64_t columns, int64_t depth, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; part++) {
    const kp_range range = kp_split(columns, 16, part, threads);
    int64_t m = range.first;
    for (; m + BLOCK <= range.last; m += BLOCK)
      for (int64_t n = 0; n < rows; n++) {
        float dot[BLOCK];
        dot_block(w + m * depth, x + n * depth, depth, dot);
        for (int i = 0; i < BLOCK; i++) y[n * columns + m + i] = dot[i] + (bias != NULL ? bias[m + i] : 0.0f);
      }
    for (; m < range.last; m++)
      for (int64_t n = 0; n < rows; n++)
        y[n * columns + m] =
            dot_single(w + m * depth, x + n * depth, depth) + (bias != NULL ? bias[m] : 0.0f);
  }
}
