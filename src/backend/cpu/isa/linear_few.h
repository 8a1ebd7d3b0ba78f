/* Products with few rows, for decoding: y = x Wᵀ + b where the weights are read once and nothing is reused.
 */
#ifndef KAPPA_BACKEND_CPU_LINEAR_FEW_H
#define KAPPA_BACKEND_CPU_LINEAR_FEW_H

#include "backend/cpu/isa/isa.h"

/* Up to this many rows of x the time is that of reading W, and a matrix product would only add copies of W.
 */
enum { KP_FEW_ROWS = 8 };

/* x (rows, depth), w (columns, depth), bias (columns) or NULL -> y (rows, columns), whole. */
void KP_ISA_NAME(kp_cpu_linear_few)(const float *x, const float *w, const float *bias, float *y, int64_t rows,
                                    int64_t columns, int64_t depth, int threads);

#endif
