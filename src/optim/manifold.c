#include "optim/manifold.h"

#include <math.h>
#include <stdlib.h>

#include "core/assert.h"
#include "ops/ops.h"
#include "optim/element.h"
#include "optim/passes.h"

kp_matrices kp_matrices_of(const kp_parameter *parameter) {
  kp_matrices m = {.count = 1, .columns = parameter->shape[parameter->dimensions - 1]};
  for (int i = 0; i + 2 < parameter->dimensions; i++) m.count *= parameter->shape[i];
  m.rows = parameter->dimensions < 2 ? 1 : parameter->shape[parameter->dimensions - 2];
  return m;
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
    square = kp_pass_dot(values, values, wide, at, columns);
    kp_pass_scale(values, wide, at, columns, to_unit(square));
    break;
  case KP_MANIFOLD_LORENTZ:
    square = kp_pass_dot(values, values, wide, at + 1, columns - 1);
    kp_element_set(values, wide, at, sqrt(square - 1 / parameter->curvature));
    break;
  case KP_MANIFOLD_STEREOGRAPHIC:
    square = -parameter->curvature * kp_pass_dot(values, values, wide, at, columns);
    if (square > (1 - KP_BALL_MARGIN) * (1 - KP_BALL_MARGIN))
      kp_pass_scale(values, wide, at, columns, (1 - KP_BALL_MARGIN) / sqrt(square));
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
    const double along = kp_pass_dot(parameters->values, parameters->gradients, wide, at, columns);
    kp_pass_add(parameters->gradients, parameters->values, wide, at, columns, -along);
  }
}

/* ---- columns: a stripe of them at a time, so that it stays in the cache between the passes ---- */

/* Σ over rows of a[row, column] b[row, column] for the columns of a stripe. */
static void column_dots(const void *a, const void *b, bool wide, int64_t at, const kp_matrices *m,
                        int64_t columns, double dots[KP_COLUMN_STRIPE]) {
  kp_assert(columns <= KP_COLUMN_STRIPE, "a stripe of %lld columns", (long long)columns);
  for (int64_t c = 0; c < columns; c++) dots[c] = 0;
  for (int64_t row = 0; row < m->rows; row++)
    kp_pass_dot_each(a, b, wide, at + row * m->columns, columns, dots);
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
    kp_pass_scale_each(values, wide, at + row * m.columns, last - first, factor);
}

void kp_tangent_columns(const kp_parameters *parameters, const kp_parameter *parameter, int64_t matrix,
                        int64_t first, int64_t last) {
  const kp_matrices m = kp_matrices_of(parameter);
  const bool wide = kp_is_wide(parameters);
  const int64_t at = parameter->offset + matrix * m.rows * m.columns + first;
  double along[KP_COLUMN_STRIPE];
  column_dots(parameters->values, parameters->gradients, wide, at, &m, last - first, along);
  for (int64_t c = 0; c < last - first; c++) along[c] = -along[c];
  for (int64_t row = 0; row < m.rows; row++)
    kp_pass_add_each(parameters->gradients, parameters->values, wide, at + row * m.columns, last - first,
                     along);
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

/* A device's parameter, brought to the host and back. */
static void retract_by_copy(kp_parameters *parameters, int index) {
  kp_parameter parameter = parameters->list[index];
  double *values = malloc((size_t)parameter.count * sizeof *values + 1);
  kp_assert(values != NULL, "out of memory for a copy of %s", parameter.name);
  const kp_parameters copy = {.list = &parameter, .count = 1, .backend = kp_backend_ref(), .values = values};
  kp_parameters_read(parameters, parameters->values, index, values);
  parameter.offset = 0;
  retract_parameter(&copy, &parameter);
  kp_parameters_write(parameters, parameters->values, index, values);
  free(values);
}

static bool leaves_its_manifold(const kp_parameter *parameter, bool frozen) {
  return parameter->used && parameter->manifold != KP_MANIFOLD_NONE && (frozen || !parameter->frozen);
}

/* With `frozen` the frozen ones too. */
static void retract(kp_parameters *parameters, bool frozen, int threads) {
  if (parameters->backend->device != NULL) {
    for (int p = 0; p < parameters->count; p++)
      if (leaves_its_manifold(&parameters->list[p], frozen)) retract_by_copy(parameters, p);
    return;
  }
#pragma omp parallel for schedule(dynamic) num_threads(kp_thread_count(threads))
  for (int p = 0; p < parameters->count; p++)
    if (leaves_its_manifold(&parameters->list[p], frozen))
      retract_parameter(parameters, &parameters->list[p]);
}

void kp_parameters_retract(kp_parameters *parameters, int threads) {
  retract(parameters, true, threads);
}

void kp_parameters_retract_learned(kp_parameters *parameters, int threads) {
  retract(parameters, false, threads);
}
