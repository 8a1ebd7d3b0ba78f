#include "optim/manifold.h"

#include <math.h>

#include "core/assert.h"
#include "optim/element.h"

kp_matrices kp_matrices_of(const kp_parameter *parameter) {
  kp_matrices m = {.count = 1, .columns = parameter->shape[parameter->dimensions - 1]};
  for (int i = 0; i + 2 < parameter->dimensions; i++) m.count *= parameter->shape[i];
  m.rows = parameter->dimensions < 2 ? 1 : parameter->shape[parameter->dimensions - 2];
  return m;
}

/* Σ a[i] b[i] over elements [first, first + count). */
static double dot(const void *a, const void *b, bool wide, int64_t first, int64_t count) {
  double sum = 0;
  if (wide) {
    const double *x = (const double *)a + first, *y = (const double *)b + first;
    for (int64_t i = 0; i < count; i++) sum += x[i] * y[i];
    return sum;
  }
  const float *x = (const float *)a + first, *y = (const float *)b + first;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; i++) sum += (double)x[i] * (double)y[i];
  return sum;
}

static void scale(void *x, bool wide, int64_t first, int64_t count, double factor) {
  for (int64_t i = first; i < first + count; i++) kp_element_set(x, wide, i, kp_element(x, wide, i) * factor);
}

/* What brings a vector of this squared norm to length 1; a zero vector has no direction to keep. */
static double to_unit(double square) {
  return square > 0 ? 1 / sqrt(square) : 1;
}

/* ---- rows ---- */

static void retract_row(const kp_parameters *parameters, const kp_parameter *parameter, int64_t at,
                        int64_t columns) {
  const bool wide = kp_is_wide(parameters);
  void *values = parameters->values;
  double square;
  switch (parameter->manifold) {
  case KP_MANIFOLD_UNIT_ROWS:
    square = dot(values, values, wide, at, columns);
    scale(values, wide, at, columns, to_unit(square));
    break;
  case KP_MANIFOLD_LORENTZ:
    square = dot(values, values, wide, at + 1, columns - 1);
    kp_element_set(values, wide, at, sqrt(square - 1 / parameter->curvature));
    break;
  case KP_MANIFOLD_STEREOGRAPHIC:
    square = -parameter->curvature * dot(values, values, wide, at, columns);
    if (square > (1 - KP_BALL_MARGIN) * (1 - KP_BALL_MARGIN))
      scale(values, wide, at, columns, (1 - KP_BALL_MARGIN) / sqrt(square));
    break;
  case KP_MANIFOLD_UNIT_COLUMNS:
  case KP_MANIFOLD_NONE: break;
  }
}

void kp_retract_rows(const kp_parameters *parameters, const kp_parameter *parameter, int64_t first,
                     int64_t last) {
  const int64_t columns = kp_matrices_of(parameter).columns;
  kp_assert(parameter->manifold != KP_MANIFOLD_LORENTZ || parameter->curvature < 0,
            "%s lives on a hyperboloid of curvature %g", parameter->name, parameter->curvature);
  for (int64_t row = first; row < last; row++)
    retract_row(parameters, parameter, parameter->offset + row * columns, columns);
}

void kp_tangent_rows(const kp_parameters *parameters, const kp_parameter *parameter, int64_t first,
                     int64_t last) {
  const bool wide = kp_is_wide(parameters);
  const int64_t columns = kp_matrices_of(parameter).columns;
  for (int64_t row = first; row < last; row++) {
    const int64_t at = parameter->offset + row * columns;
    const double along = dot(parameters->values, parameters->gradients, wide, at, columns);
    for (int64_t i = at; i < at + columns; i++)
      kp_element_set(parameters->gradients, wide, i,
                     kp_element(parameters->gradients, wide, i) -
                         along * kp_element(parameters->values, wide, i));
  }
}

/* ---- columns: a stripe of them at a time, so that it stays in the cache between the passes ---- */

/* Σ over rows of a[row, column] b[row, column] for the columns of a stripe. */
static void column_dots(const void *a, const void *b, bool wide, int64_t at, const kp_matrices *m,
                        int64_t columns, double dots[KP_COLUMN_STRIPE]) {
  kp_assert(columns <= KP_COLUMN_STRIPE, "a stripe of %lld columns", (long long)columns);
  for (int64_t c = 0; c < columns; c++) dots[c] = 0;
  for (int64_t row = 0; row < m->rows; row++)
    for (int64_t c = 0; c < columns; c++)
      dots[c] +=
          kp_element(a, wide, at + row * m->columns + c) * kp_element(b, wide, at + row * m->columns + c);
}

void kp_retract_columns(const kp_parameters *parameters, const kp_parameter *parameter, int64_t matrix,
                        int64_t first, int64_t last) {
  const kp_matrices m = kp_matrices_of(parameter);
  const bool wide = kp_is_wide(parameters);
  const int64_t at = parameter->offset + matrix * m.rows * m.columns + first;
  void *values = parameters->values;
  double factor[KP_COLUMN_STRIPE];
  column_dots(values, values, wide, at, &m, last - first, factor);
  for (int64_t c = 0; c < last - first; c++) factor[c] = to_unit(factor[c]);
  for (int64_t row = 0; row < m.rows; row++)
    for (int64_t c = 0; c < last - first; c++) {
      const int64_t i = at + row * m.columns + c;
      kp_element_set(values, wide, i, kp_element(values, wide, i) * factor[c]);
    }
}

void kp_tangent_columns(const kp_parameters *parameters, const kp_parameter *parameter, int64_t matrix,
                        int64_t first, int64_t last) {
  const kp_matrices m = kp_matrices_of(parameter);
  const bool wide = kp_is_wide(parameters);
  const int64_t at = parameter->offset + matrix * m.rows * m.columns + first;
  double along[KP_COLUMN_STRIPE];
  column_dots(parameters->values, parameters->gradients, wide, at, &m, last - first, along);
  for (int64_t row = 0; row < m.rows; row++)
    for (int64_t c = 0; c < last - first; c++) {
      const int64_t i = at + row * m.columns + c;
      kp_element_set(parameters->gradients, wide, i,
                     kp_element(parameters->gradients, wide, i) -
                         along[c] * kp_element(parameters->values, wide, i));
    }
}

/* ---- all parameters ---- */

static void retract_parameter(const kp_parameters *parameters, const kp_parameter *parameter) {
  const kp_matrices m = kp_matrices_of(parameter);
  if (parameter->manifold != KP_MANIFOLD_UNIT_COLUMNS) {
    kp_retract_rows(parameters, parameter, 0, m.count * m.rows);
    return;
  }
  for (int64_t matrix = 0; matrix < m.count; matrix++)
    for (int64_t first = 0; first < m.columns; first += KP_COLUMN_STRIPE) {
      const int64_t last = first + KP_COLUMN_STRIPE;
      kp_retract_columns(parameters, parameter, matrix, first, last < m.columns ? last : m.columns);
    }
}

void kp_parameters_retract(kp_parameters *parameters, int threads) {
#pragma omp parallel for schedule(dynamic) num_threads(kp_thread_count(threads))
  for (int p = 0; p < parameters->count; p++)
    if (parameters->list[p].used && parameters->list[p].manifold != KP_MANIFOLD_NONE)
      retract_parameter(parameters, &parameters->list[p]);
}
