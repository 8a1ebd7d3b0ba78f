/* Products with few rows, for decoding: y = x Wᵀ + b where the weights are read once and nothing is reused.
 */
#ifndef KAPPA_BACKEND_CPU_LINEAR_FEW_H
#define KAPPA_BACKEND_CPU_LINEAR_FEW_H

#include "backend/cpu/isa/isa.h"

/* Up to this many rows of x the time is that of reading W, and a matrix product would only add copies of W.
 */
enum { KP_FEW_ROWS = 8 };

/* x (rows, depth), w (columns, depth), bias (columns) or NULL, time (rows, groups) and time_weight (columns,
 * groups) or NULL -> y (rows, columns), whole. */
typedef struct kp_few_rows {
  const float *x, *w, *bias, *time, *time_weight;
  float *y;
  int64_t rows, columns, depth, groups;
} kp_few_rows;

void KP_ISA_NAME(kp_cpu_linear_few)(const kp_few_rows *call, int threads);

#endif
