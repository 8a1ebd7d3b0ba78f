/* W is read row after row, as one stream: several rows side by side would halve the speed of the prefetchers.
 * A row of W is read from memory by the first rows of x and from the cache by the others.  Each thread owns a
 * contiguous part of W's rows. */
#include "backend/cpu/isa/linear_few.h"

#include "backend/cpu/isa/split.h"

enum { GROUP = 4 };

/* Successive calls overlap in the processor, so that one sum is enough. */
static inline float dot(const float *restrict w, const float *restrict x, int64_t depth) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t k = 0; k < depth; k++) sum += w[k] * x[k];
  return sum;
}

/* A row of W with four rows of x. */
static inline void dot_group(const float *restrict w, const float *restrict x, int64_t depth,
                             float sum[GROUP]) {
  const float *x1 = x + depth, *x2 = x1 + depth, *x3 = x2 + depth;
  float sum0 = 0, sum1 = 0, sum2 = 0, sum3 = 0;
#pragma omp simd reduction(+ : sum0, sum1, sum2, sum3)
  for (int64_t k = 0; k < depth; k++) {
    sum0 += w[k] * x[k];
    sum1 += w[k] * x1[k];
    sum2 += w[k] * x2[k];
    sum3 += w[k] * x3[k];
  }
  sum[0] = sum0;
  sum[1] = sum1;
  sum[2] = sum2;
  sum[3] = sum3;
}

/* Column m of y. */
static void multiply_column(const kp_few_rows *f, int64_t m) {
  const float *w = f->w + m * f->depth, bias = f->bias != NULL ? f->bias[m] : 0.0f;
  float *y = f->y + m;
  int64_t n = 0;
  for (; n + GROUP <= f->rows; n += GROUP) {
    float sum[GROUP];
    dot_group(w, f->x + n * f->depth, f->depth, sum);
    for (int i = 0; i < GROUP; i++) y[(n + i) * f->columns] = sum[i] + bias;
  }
  for (; n < f->rows; n++) y[n * f->columns] = dot(w, f->x + n * f->depth, f->depth) + bias;
  if (f->time == NULL) return;
  for (n = 0; n < f->rows; n++)
    y[n * f->columns] += dot(f->time_weight + m * f->groups, f->time + n * f->groups, f->groups);
}

void KP_ISA_NAME(kp_cpu_linear_few)(const kp_few_rows *call, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; part++) {
    const kp_range range = kp_split(call->columns, 16, part, threads);
    for (int64_t m = range.first; m < range.last; m++) multiply_column(call, m);
  }
}
