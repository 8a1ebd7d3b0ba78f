/* A curvature tensor (K, G) as the kernels of geometry see it from N rows: row n reads row n / (N / K) of it.
 * Without a tensor κ = 0 and G = 1. */
#ifndef KAPPA_BACKEND_CPU_CURVATURE_TABLE_H
#define KAPPA_BACKEND_CPU_CURVATURE_TABLE_H

#include "core/graph.h"

typedef struct kp_curvature_rows {
  const float *values;
  int64_t groups, rows_per_entry, entries;
} kp_curvature_rows;

static inline kp_curvature_rows kp_curvature_rows_of(const void *values, const kp_tensor *tensor,
                                                     int64_t rows) {
  if (tensor == NULL) return (kp_curvature_rows){NULL, 1, rows, 1};
  const int64_t entries = kp_tensor_rows(tensor);
  return (kp_curvature_rows){values, kp_tensor_columns(tensor), rows / entries, entries};
}

static inline double kp_curvature_of_row(const kp_curvature_rows *table, int64_t row, int64_t group) {
  if (table->values == NULL) return 0;
  return (double)table->values[row / table->rows_per_entry * table->groups + group];
}

/* Adds each row's gradient of κ, bars (N, G), to the table's: row after row, so that the sum does not depend
 * on how the rows were shared.  `sums` holds G numbers. */
static inline void kp_curvature_rows_reduce(const kp_curvature_rows *table, const double *bars, double *sums,
                                            float *gradient) {
  const int64_t groups = table->groups;
  for (int64_t entry = 0; entry < table->entries; entry++) {
    for (int64_t g = 0; g < groups; g++) sums[g] = 0;
    for (int64_t row = 0; row < table->rows_per_entry; row++, bars += groups)
      for (int64_t g = 0; g < groups; g++) sums[g] += bars[g];
    for (int64_t g = 0; g < groups; g++) gradient[entry * groups + g] += (float)sums[g];
  }
}

#endif
