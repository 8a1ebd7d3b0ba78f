/* Sums over all rows, one for each column, from kernels that go through the rows in parts.
 *
 * Each part adds to columns of its own in scratch memory, in double; the parts are added in their order, so
 * that the sums do not depend on timing. */
#ifndef KAPPA_BACKEND_CPU_COLUMN_SUMS_H
#define KAPPA_BACKEND_CPU_COLUMN_SUMS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline size_t kp_column_sums_bytes(int64_t columns, int parts) {
  return (size_t)columns * (size_t)parts * sizeof(double);
}

/* The zeroed sums of one part. */
static inline double *kp_column_sums_part(void *scratch, int64_t columns, int part) {
  double *sums = (double *)scratch + columns * part;
  memset(sums, 0, (size_t)columns * sizeof *sums);
  return sums;
}

/* The sum of column `column` over all parts. */
static inline double kp_column_sum(const void *scratch, int64_t columns, int parts, int64_t column) {
  const double *sums = scratch;
  double total = 0;
  for (int part = 0; part < parts; part++) total += sums[part * columns + column];
  return total;
}

#endif
