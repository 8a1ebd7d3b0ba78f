/* Row programs on one row, in double: what every ref kernel of geometry is made of.
 *
 * A row of C channels falls into G groups of C/G channels, each with its own
 * curvature; the program acts on each group alone.  Vectors that are NULL
 * stand for the origin. */
#ifndef KAPPA_OPS_ROW_APPLY_H
#define KAPPA_OPS_ROW_APPLY_H

#include "core/graph.h"
#include "geometry/row_program.h"

/* A curvature tensor (K, G) seen from N rows: row n reads table row n / (N / K).  Without a tensor κ = 0, G
 * = 1. */
typedef struct kp_curvature_table {
  const double *values;
  int64_t groups, rows_per_entry;
} kp_curvature_table;

kp_curvature_table kp_curvature_table_of(const void *values, const kp_tensor *tensor, int64_t rows);

/* Where row n's κ of one group stands in the table, and its value. */
static inline int64_t kp_curvature_index(const kp_curvature_table *table, int64_t n, int64_t group) {
  return n / table->rows_per_entry * table->groups + group;
}

static inline double kp_curvature_at(const kp_curvature_table *table, int64_t n, int64_t group) {
  return table->values == NULL ? 0 : table->values[kp_curvature_index(table, n, group)];
}

/* out (C), or (G) for a scalar program, of row n whose inputs are v_1 … v_m.  Returns the number of boundary
 * events. */
int kp_row_apply(const kp_row_program *program, const double *const v[3], int64_t C,
                 const kp_curvature_table *table, int64_t n, double parameter, double *out);

/* Adds the gradients to gv[i] (NULL: not wanted; may alias each other) and to `gkappa`, which is laid out as
 * the table (or NULL). */
void kp_row_apply_backward(const kp_row_program *program, const double *const v[3], int64_t C,
                           const kp_curvature_table *table, int64_t n, double parameter, const double *gout,
                           double *const gv[3], double *gkappa);

#endif
