#include "ops/row_apply.h"

#include "core/assert.h"

kp_curvature_table kp_curvature_table_of(const void *values, const kp_tensor *tensor, int64_t rows) {
  if (tensor == NULL) return (kp_curvature_table){NULL, 1, rows};
  kp_assert(rows % kp_tensor_rows(tensor) == 0, "%lld rows over %lld curvatures", (long long)rows,
            (long long)kp_tensor_rows(tensor));
  return (kp_curvature_table){values, kp_tensor_columns(tensor), rows / kp_tensor_rows(tensor)};
}

static double curvature_at(const kp_curvature_table *table, int64_t n, int64_t group) {
  return table->values == NULL ? 0 : table->values[n / table->rows_per_entry * table->groups + group];
}

/* Element d of basis vector i: the input itself, or for the last one of a difference program v_m - v_1. */
static double basis(const kp_row_program *program, const double *const v[3], int i, int64_t d) {
  const double value = v[i] == NULL ? 0 : v[i][d];
  if (!program->difference || i + 1 < program->inputs) return value;
  return value - (v[0] == NULL ? 0 : v[0][d]);
}

/* Gram entries of the basis over channels [from, to), packed by rows of the upper triangle. */
static void gram_of(const kp_row_program *program, const double *const v[3], int64_t from, int64_t to, double gram[6]) {
  int entry = 0;
  for (int i = 0; i < program->inputs; i++)
    for (int j = i; j < program->inputs; j++, entry++) {
      gram[entry] = 0;
      for (int64_t d = from; d < to; d++) gram[entry] += basis(program, v, i, d) * basis(program, v, j, d);
    }
}

int kp_row_apply(const kp_row_program *program, const double *const v[3], int64_t C, const kp_curvature_table *table,
                 int64_t n, double parameter, double *out) {
  const int64_t D = C / table->groups;
  int events = 0;
  for (int64_t group = 0; group < table->groups; group++) {
    double gram[6], coefficients[3];
    gram_of(program, v, group * D, (group + 1) * D, gram);
    events += program->forward(gram, curvature_at(table, n, group), parameter, coefficients);
    if (program->scalar) {
      out[group] = coefficients[0];
      continue;
    }
    for (int64_t d = group * D; d < (group + 1) * D; d++) {
      double sum = 0;
      for (int i = 0; i < program->inputs; i++) sum += coefficients[i] * basis(program, v, i, d);
      out[d] = sum;
    }
  }
  return events;
}

/* Adds one basis vector's gradient element to the inputs that it is made of. */
static void give(const kp_row_program *program, double *const gv[3], int i, int64_t d, double g) {
  if (gv[i] != NULL) gv[i][d] += g;
  if (program->difference && i + 1 == program->inputs && gv[0] != NULL) gv[0][d] -= g;
}

void kp_row_apply_backward(const kp_row_program *program, const double *const v[3], int64_t C,
                           const kp_curvature_table *table, int64_t n, double parameter, const double *gout,
                           double *const gv[3], double *gkappa) {
  const int64_t D = C / table->groups;
  const int m = program->inputs;
  for (int64_t group = 0; group < table->groups; group++) {
    const int64_t from = group * D, to = from + D;
    const double kappa = curvature_at(table, n, group);
    double gram[6], coefficients[3], coefficients_bar[3] = {0, 0, 0}, gram_bar[6], kappa_bar, parameter_bar;
    gram_of(program, v, from, to, gram);
    program->forward(gram, kappa, parameter, coefficients);
    if (program->scalar) coefficients_bar[0] = gout[group];
    for (int i = 0; i < m && !program->scalar; i++)
      for (int64_t d = from; d < to; d++) coefficients_bar[i] += gout[d] * basis(program, v, i, d);
    program->backward(gram, kappa, parameter, coefficients_bar, gram_bar, &kappa_bar, &parameter_bar);
    if (gkappa != NULL) gkappa[n / table->rows_per_entry * table->groups + group] += kappa_bar;
    for (int64_t d = from; d < to; d++) {
      double b[3], gb[3];
      for (int i = 0; i < m; i++) {
        b[i] = basis(program, v, i, d);
        gb[i] = program->scalar ? 0 : coefficients[i] * gout[d];
      }
      int entry = 0;
      for (int i = 0; i < m; i++)
        for (int j = i; j < m; j++, entry++) { /* for i = j both lines add: d<b,b> = 2<b,db> */
          gb[i] += gram_bar[entry] * b[j];
          gb[j] += gram_bar[entry] * b[i];
        }
      for (int i = 0; i < m; i++) give(program, gv, i, d, gb[i]);
    }
  }
}
