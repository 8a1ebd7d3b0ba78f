#include "study/verify_points.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"

kp_point_case kp_point_case_create(const kp_case *c) {
  return (kp_point_case){
      .c = c, .graph = kp_graph_create(kp_operator_table), .parameters = kp_parameters_create()};
}

void kp_point_case_destroy(kp_point_case *p) {
  kp_executor_destroy(p->executor);
  for (int i = 0; i < KP_POINT_OPERANDS; i++) free(p->initial[i]);
  kp_graph_destroy(p->graph);
  kp_parameters_destroy(p->parameters);
}

/* ---- ambient rows ---- */

static double *allocate(int64_t count) {
  double *values = malloc((size_t)(count + 1) * sizeof *values);
  kp_assert(values != NULL, "out of memory");
  return values;
}

/* Columns [first, first + width) of rows of `columns`. */
static double *columns_of(const double *values, int64_t rows, int64_t columns, int64_t first, int64_t width) {
  double *out = allocate(rows * width);
  for (int64_t n = 0; n < rows; n++)
    memcpy(out + n * width, values + n * columns + first, (size_t)width * sizeof *out);
  return out;
}

static double *join(const double *time, const double *space, int64_t rows, int64_t width) {
  double *out = allocate(rows * (width + 1));
  for (int64_t n = 0; n < rows; n++) {
    out[n * (width + 1)] = time[n];
    memcpy(out + n * (width + 1) + 1, space + n * width, (size_t)width * sizeof *out);
  }
  return out;
}

/* ---- inputs ---- */

/* Takes over `values`. */
static kp_tensor *operand(kp_point_case *p, const char *name, double *values, int dimensions,
                          const int64_t *shape) {
  const int index =
      kp_parameters_add(p->parameters, name, dimensions, shape, (kp_initial){0}, KP_GROUP_NO_DECAY, true);
  kp_assert(index < KP_POINT_OPERANDS, "more than %d operands in a case", KP_POINT_OPERANDS);
  p->initial[index] = values;
  return kp_graph_parameter(p->graph, name, index, true, dimensions, shape);
}

kp_status kp_point_case_read(kp_point_case *p, const char *from, const char *gradient, const char *name,
                             bool ambient, bool optional, kp_point *point, kp_error *error) {
  char full[64], part[80];
  double *values;
  *point = (kp_point){NULL, NULL};
  snprintf(full, sizeof full, "%s/%s", from, name);
  KP_TRY(kp_case_values(p->c, full, optional, &values, NULL, error));
  if (values == NULL) return KP_OK;
  const kp_safetensors_entry *entry = kp_safetensors_find(p->c->file, full);
  const int64_t columns = entry->rank == 0 ? 1 : entry->shape[entry->rank - 1];
  const int64_t rows = columns == 0 ? 0 : entry->elements / columns, space = columns - ambient;
  if (rows == 0 || space < 1) {
    free(values);
    return kp_fail(error, KP_ERR_INPUT, "tensor %s has no rows of points", full);
  }
  if (ambient) {
    snprintf(part, sizeof part, "%s.time", full);
    point->time = operand(p, part, columns_of(values, rows, columns, 0, 1), 2, (int64_t[]){rows, 1});
  }
  point->space =
      operand(p, full, columns_of(values, rows, columns, ambient, space), 2, (int64_t[]){rows, space});
  kp_point_operand *added = &p->operands[p->count++];
  *added = (kp_point_operand){.point = *point, .ambient = ambient};
  snprintf(added->name, sizeof added->name, "%s/%s", gradient, name);
  free(values);
  return KP_OK;
}

kp_status kp_point_case_parameter(kp_point_case *p, const char *name, int64_t count, bool optional,
                                  kp_tensor **tensor, kp_error *error) {
  kp_point point;
  KP_TRY(kp_point_case_read(p, "param", "grad", name, false, optional, &point, error));
  *tensor = point.space;
  if (*tensor == NULL || kp_tensor_count(*tensor) == count) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "tensor param/%s has %lld elements, not %lld", name,
                 (long long)kp_tensor_count(*tensor), (long long)count);
}

kp_status kp_point_case_number(const kp_point_case *p, const char *name, double fallback, double *value,
                               kp_error *error) {
  double *values;
  int64_t count;
  KP_TRY(kp_case_values(p->c, name, true, &values, &count, error));
  *value = values == NULL || count < 1 ? fallback : values[0];
  free(values);
  return KP_OK;
}

kp_status kp_point_case_is_ambient(const kp_point_case *p, int64_t columns, bool *ambient, kp_error *error) {
  const kp_safetensors_entry *entry;
  KP_TRY(kp_safetensors_require(p->c->file, "in/cotangent", &entry, error));
  const int64_t found = entry->rank == 0 ? 0 : entry->shape[entry->rank - 1];
  *ambient = found == columns + 1;
  if (found == columns || *ambient) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "in/cotangent has %lld columns, not %lld or one more", (long long)found,
                 (long long)columns);
}

/* ---- running and comparing ---- */

/* What is allowed: outputs, gradients of tensors, and gradients of single numbers, which are sums that
 * cancel. Expectations stored in float32 bound what double can show. */
static double tolerance(const kp_case *c, const char *name, int64_t count, bool output) {
  const kp_safetensors_entry *entry = kp_safetensors_find(c->file, name);
  if (kp_case_is_double(c)) return entry->dtype == KP_F32 ? 1e-6 : 1e-9;
  return output ? 1e-5 : count == 1 ? 1e-3 : 1e-4;
}

/* Compares and frees `got`. */
static kp_status compare(const kp_case *c, const char *name, double *got, int64_t count, bool output,
                         kp_error *error) {
  double *want;
  int64_t found;
  kp_status status = kp_case_values(c, name, true, &want, &found, error);
  if (status == KP_OK && want != NULL && found != count)
    status = kp_fail(error, KP_ERR_INPUT, "tensor %s has %lld elements, not %lld", name, (long long)found,
                     (long long)count);
  else if (status == KP_OK && want != NULL)
    kp_case_check(c, kp_case_worst(got, want, count) / fmax(kp_case_largest(want, count), 1e-30),
                  tolerance(c, name, count, output), "%s", name);
  free(got);
  free(want);
  return status;
}

static double *gradient_of(const kp_point_case *p, const kp_tensor *tensor) {
  double *values = allocate(kp_tensor_count(tensor));
  kp_parameters_read(p->parameters, p->parameters->gradients, tensor->parameter, values);
  return values;
}

static double *value_of(const kp_point_case *p, const kp_tensor *tensor) {
  double *values = allocate(kp_tensor_count(tensor));
  kp_executor_read(p->executor, tensor, values);
  return values;
}

static double *joined(const kp_point_case *p, kp_point point, bool ambient,
                      double *(*read)(const kp_point_case *p, const kp_tensor *tensor)) {
  double *space = read(p, point.space);
  if (!ambient) return space;
  double *time = read(p, point.time);
  double *both = join(time, space, kp_tensor_rows(point.space), kp_tensor_columns(point.space));
  free(time);
  free(space);
  return both;
}

static kp_status compare_all(const kp_point_case *p, kp_point y, kp_error *error) {
  const int64_t rows = kp_tensor_rows(y.space), width = kp_tensor_columns(y.space) + (y.time != NULL);
  KP_TRY(compare(p->c, "out/y", joined(p, y, y.time != NULL, value_of), rows * width, true, error));
  for (int i = 0; i < p->count; i++) {
    const kp_point_operand *o = &p->operands[i];
    const int64_t count = kp_tensor_count(o->point.space) + (o->ambient ? kp_tensor_count(o->point.time) : 0);
    KP_TRY(compare(p->c, o->name, joined(p, o->point, o->ambient, gradient_of), count, false, error));
  }
  return KP_OK;
}

static kp_status start(kp_point_case *p, kp_tensor *const seed[2], const double *cotangent, int64_t rows,
                       int64_t width, kp_error *error) {
  const kp_executor_options options = {.threads = p->c->threads, .poison = true};
  KP_TRY(kp_parameters_allocate(p->parameters, p->c->backend, true, error));
  KP_TRY(kp_executor_create(p->graph, p->c->backend, p->parameters, options, &p->executor, error));
  for (int i = 0; i < p->parameters->count; i++)
    kp_parameters_write(p->parameters, p->parameters->values, i, p->initial[i]);
  const bool ambient = seed[1] != NULL;
  double *space = columns_of(cotangent, rows, width, ambient, width - ambient);
  kp_executor_write(p->executor, seed[0], space);
  free(space);
  if (ambient) {
    double *time = columns_of(cotangent, rows, width, 0, 1);
    kp_executor_write(p->executor, seed[1], time);
    free(time);
  }
  return KP_OK;
}

kp_status kp_point_case_run(kp_point_case *p, kp_point y, kp_error *error) {
  const int64_t rows = kp_tensor_rows(y.space), width = kp_tensor_columns(y.space) + (y.time != NULL);
  kp_tensor *seed[2] = {
      kp_graph_input(p->graph, "cotangent", y.space->type, y.space->dimensions, y.space->shape), NULL};
  double *cotangent;
  int64_t count;
  kp_graph_keep(y.space);
  if (y.time != NULL) {
    seed[1] = kp_graph_input(p->graph, "time cotangent", y.time->type, y.time->dimensions, y.time->shape);
    kp_graph_keep(y.time);
    kp_gradient_give(p->graph, y.time, seed[1]);
  }
  KP_TRY(kp_graph_backward(p->graph, y.space, seed[0], error));
  KP_TRY(kp_case_values(p->c, "in/cotangent", false, &cotangent, &count, error));
  kp_status status = count == rows * width
                         ? start(p, seed, cotangent, rows, width, error)
                         : kp_fail(error, KP_ERR_INPUT, "in/cotangent has %lld elements, not %lld",
                                   (long long)count, (long long)(rows * width));
  free(cotangent);
  KP_TRY(status);
  KP_TRY(kp_executor_run(p->executor, 0, p->graph->node_count, error));
  return compare_all(p, y, error);
}
