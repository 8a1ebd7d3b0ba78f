#include "ops/row_apply.h"

#include "core/assert.h"

kp_curvature_table kp_curvature_table_of(const void *values, const kp_tensor *tensor, int64_t rows) {
  if (tensor == NULL) return (kp_curvature_table){NULL, 1, rows};
  kp_assert(rows % kp_tensor_rows(tensor) == 0, "%lld rows over %lld curvatures", (long long)rows,
            (long long)kp_tensor_rows(tensor));
  return (kp_curvature_table){values, kp_tensor_columns(tensor), rows / kp_tensor_rows(tensor)};
}

/* The vectors from channel `from` on; those that are NULL stay so. */
static void shift(const double *const v[3], int64_t from, const double *out[3]) {
  for (int i = 0; i < 3; i++) out[i] = v[i] == NULL ? NULL : v[i] + from;
}

int kp_row_apply(const kp_row_program *program, const double *const v[3], int64_t C,
                 const kp_curvature_table *table, int64_t n, double parameter, double *out) {
  const int64_t D = C / table->groups;
  int events = 0;
  for (int64_t group = 0; group < table->groups; group++) {
    const double *part[3];
    shift(v, group * D, part);
    events += kp_row_program_apply(program, (size_t)D, part, kp_curvature_at(table, n, group), parameter,
                                   out + (program->scalar ? group : group * D));
  }
  return events;
}

void kp_row_apply_backward(const kp_row_program *program, const double *const v[3], int64_t C,
                           const kp_curvature_table *table, int64_t n, double parameter, const double *gout,
                           double *const gv[3], double *gkappa) {
  const int64_t D = C / table->groups;
  for (int64_t group = 0; group < table->groups; group++) {
    const double *part[3], *g = gout + (program->scalar ? group : group * D);
    double *gpart[3];
    shift(v, group * D, part);
    for (int i = 0; i < 3; i++) gpart[i] = gv[i] == NULL ? NULL : gv[i] + group * D;
    kp_row_program_apply_backward(program, (size_t)D, part, kp_curvature_at(table, n, group), parameter, g,
                                  gpart, gkappa == NULL ? NULL : gkappa + kp_curvature_index(table, n, group),
                                  NULL);
  }
}
