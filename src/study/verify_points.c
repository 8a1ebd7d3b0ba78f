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
  for (int i = 0; i < 2; i++) free(p->cotangents[i]);
  for (int i = 0; i < p->result_count; i++) free(p->results[i].cotangent);
  for (int i = 0; i < p->integer_count; i++) free(p->integers[i].values);
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
  return kp_graph_parameter(p->graph, name, index, KP_TYPE_REAL, true, dimensions, shape);
}

/* Adds `values`, rows of `columns` numbers, as an operand of the given leading shape; takes none over. */
static kp_status add_operand(kp_point_case *p, const char *name, const double *values, int dimensions,
                             const int64_t *shape, int ambient, kp_point *point, kp_error *error) {
  char part[176];
  int64_t rows = 1, space[KP_MAX_DIMENSIONS], time[KP_MAX_DIMENSIONS];
  for (int i = 0; i < dimensions; i++) rows *= i + 1 < dimensions ? shape[i] : 1;
  const int64_t columns = shape[dimensions - 1], points = ambient > 0 ? ambient : 1;
  const int64_t width = columns / points - (ambient > 0);
  if (rows < 1 || columns % points != 0 || width < 1)
    return kp_fail(error, KP_ERR_INPUT, "tensor %s has no rows of points", name);
  memcpy(space, shape, sizeof space);
  memcpy(time, shape, sizeof time);
  space[dimensions - 1] = width * points;
  time[dimensions - 1] = points;
  if (ambient > 0) {
    snprintf(part, sizeof part, "%s.time", name);
    point->time =
        operand(p, part, columns_of(values, rows * points, columns / points, 0, 1), dimensions, time);
  }
  point->space = operand(p, name, columns_of(values, rows * points, columns / points, ambient > 0, width),
                         dimensions, space);
  kp_assert(p->count < KP_POINT_OPERANDS, "more than %d operands in a case", KP_POINT_OPERANDS);
  p->operands[p->count++] = (kp_point_operand){.point = *point, .ambient = ambient};
  return KP_OK;
}

kp_status kp_point_case_read(kp_point_case *p, const char *from, const char *gradient, const char *name,
                             int ambient, bool optional, kp_point *point, kp_error *error) {
  char full[64];
  double *values;
  *point = (kp_point){NULL, NULL};
  snprintf(full, sizeof full, "%s/%s", from, name);
  KP_TRY(kp_case_values(p->c, full, optional, &values, NULL, error));
  if (values == NULL) return KP_OK;
  const kp_safetensors_entry *entry = kp_safetensors_find(p->c->file, full);
  const int64_t columns = entry->rank == 0 ? 1 : entry->shape[entry->rank - 1];
  const int64_t shape[KP_MAX_DIMENSIONS] = {columns == 0 ? 0 : entry->elements / columns, columns};
  kp_status status = add_operand(p, full, values, 2, shape, ambient, point, error);
  free(values);
  KP_TRY(status);
  snprintf(p->operands[p->count - 1].name, sizeof p->operands->name, "%s/%s", gradient, name);
  return KP_OK;
}

/* How many tensors of that name there are, and the first of them. */
static int count_copies(const kp_case *c, const char *prefix, const char *suffix,
                        const kp_safetensors_entry **first) {
  char name[160];
  for (int e = 0;; e++) {
    snprintf(name, sizeof name, "param/%s%d%s", prefix, e, suffix);
    const kp_safetensors_entry *entry = kp_safetensors_find(c->file, name);
    if (entry == NULL) return e;
    if (e == 0) *first = entry;
  }
}

kp_status kp_point_case_stack(kp_point_case *p, const char *prefix, const char *suffix, int ambient,
                              bool optional, kp_point *point, kp_error *error) {
  char name[160];
  const kp_safetensors_entry *first = NULL;
  const int copies = count_copies(p->c, prefix, suffix, &first);
  *point = (kp_point){NULL, NULL};
  if (copies == 0 && optional) return KP_OK;
  if (copies == 0) return kp_fail(error, KP_ERR_INPUT, "there is no tensor param/%s0%s", prefix, suffix);
  double *all = allocate(copies * first->elements);
  kp_status status = KP_OK;
  for (int e = 0; e < copies && status == KP_OK; e++) {
    double *values = NULL;
    int64_t count;
    snprintf(name, sizeof name, "param/%s%d%s", prefix, e, suffix);
    status = kp_case_values(p->c, name, false, &values, &count, error);
    if (status == KP_OK && count != first->elements)
      status = kp_fail(error, KP_ERR_INPUT, "tensor %s has another size than its siblings", name);
    if (status == KP_OK) memcpy(all + e * count, values, (size_t)count * sizeof *all);
    free(values);
  }
  const int64_t rows = first->rank == 2 ? first->shape[0] : copies;
  const int64_t columns = first->rank == 2 ? first->shape[1] : first->elements;
  const int64_t matrices[KP_MAX_DIMENSIONS] = {copies, rows, columns},
                vectors[KP_MAX_DIMENSIONS] = {copies, columns};
  snprintf(name, sizeof name, "%s%s", prefix, suffix);
  if (status == KP_OK)
    status = add_operand(p, name, all, first->rank == 2 ? 3 : 2, first->rank == 2 ? matrices : vectors,
                         ambient, point, error);
  free(all);
  KP_TRY(status);
  kp_point_operand *added = &p->operands[p->count - 1];
  snprintf(added->name, sizeof added->name, "grad/%s", prefix);
  snprintf(added->suffix, sizeof added->suffix, "%s", suffix);
  added->copies = copies;
  return KP_OK;
}

kp_status kp_point_case_integers(kp_point_case *p, const char *name, double *values, int64_t count,
                                 kp_tensor **tensor, kp_error *error) {
  int64_t found = count;
  if (values == NULL) KP_TRY(kp_case_values(p->c, name, false, &values, &found, error));
  if (found != count) {
    free(values);
    return kp_fail(error, KP_ERR_INPUT, "tensor %s has %lld elements, not %lld", name, (long long)found,
                   (long long)count);
  }
  kp_assert(p->integer_count < KP_POINT_INTEGERS, "more than %d tensors of whole numbers", KP_POINT_INTEGERS);
  *tensor = kp_graph_input(p->graph, name, KP_TYPE_INT32, 1, &count);
  p->integers[p->integer_count++] = (kp_point_integers){*tensor, values};
  return KP_OK;
}

kp_status kp_point_case_result(kp_point_case *p, const char *name, kp_tensor *tensor, const char *cotangent,
                               kp_error *error) {
  kp_assert(p->result_count < KP_POINT_RESULTS, "more than %d further results", KP_POINT_RESULTS);
  kp_point_result *r = &p->results[p->result_count++];
  int64_t count;
  *r = (kp_point_result){.name = name, .tensor = tensor};
  kp_graph_keep(tensor);
  if (cotangent == NULL) return KP_OK;
  KP_TRY(kp_case_values(p->c, cotangent, false, &r->cotangent, &count, error));
  if (count != kp_tensor_count(tensor))
    return kp_fail(error, KP_ERR_INPUT, "tensor %s has %lld elements, not %lld", cotangent, (long long)count,
                   (long long)kp_tensor_count(tensor));
  r->seed = kp_graph_input(p->graph, "cotangent", tensor->type, tensor->dimensions, tensor->shape);
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

static double *joined(const kp_point_case *p, kp_point point, int ambient,
                      double *(*read)(const kp_point_case *p, const kp_tensor *tensor)) {
  double *space = read(p, point.space);
  if (ambient == 0) return space;
  const int64_t rows = kp_tensor_count(point.time);
  double *time = read(p, point.time);
  double *both = join(time, space, rows, kp_tensor_count(point.space) / rows);
  free(time);
  free(space);
  return both;
}

static kp_status compare_operand(const kp_point_case *p, const kp_point_operand *o, kp_error *error) {
  const int64_t count = kp_tensor_count(o->point.space) + (o->ambient ? kp_tensor_count(o->point.time) : 0);
  double *all = joined(p, o->point, o->ambient, gradient_of);
  if (o->copies == 0) return compare(p->c, o->name, all, count, false, error);
  kp_status status = KP_OK;
  for (int e = 0; e < o->copies && status == KP_OK; e++) {
    char name[160];
    const int64_t one = count / o->copies;
    double *values = allocate(one);
    memcpy(values, all + e * one, (size_t)one * sizeof *values);
    snprintf(name, sizeof name, "%s%d%s", o->name, e, o->suffix);
    status = compare(p->c, name, values, one, false, error);
  }
  free(all);
  return status;
}

static kp_status compare_all(const kp_point_case *p, kp_point y, kp_error *error) {
  if (y.space != NULL) {
    const int64_t count = kp_tensor_count(y.space) + (y.time == NULL ? 0 : kp_tensor_count(y.time));
    KP_TRY(compare(p->c, "out/y", joined(p, y, y.time != NULL, value_of), count, true, error));
  }
  for (int i = 0; i < p->result_count; i++) {
    const kp_point_result *r = &p->results[i];
    KP_TRY(compare(p->c, r->name, value_of(p, r->tensor), kp_tensor_count(r->tensor), true, error));
  }
  for (int i = 0; i < p->count; i++) KP_TRY(compare_operand(p, &p->operands[i], error));
  return KP_OK;
}

static kp_status start(kp_point_case *p, kp_error *error) {
  const kp_executor_options options = {.threads = p->c->threads, .poison = true};
  KP_TRY(kp_parameters_allocate(p->parameters, p->c->backend, true, error));
  KP_TRY(kp_executor_create(p->graph, p->c->backend, p->parameters, options, &p->executor, error));
  for (int i = 0; i < p->parameters->count; i++)
    kp_parameters_write(p->parameters, p->parameters->values, i, p->initial[i]);
  for (int i = 0; i < p->integer_count; i++)
    kp_executor_write(p->executor, p->integers[i].tensor, p->integers[i].values);
  for (int i = 0; i < p->result_count; i++)
    if (p->results[i].seed != NULL)
      kp_executor_write(p->executor, p->results[i].seed, p->results[i].cotangent);
  return KP_OK;
}

/* The gradients of y's space and time, which are the columns of in/cotangent. */
static kp_status add_cotangent(kp_point_case *p, kp_point y, kp_error *error) {
  const int64_t rows = kp_tensor_rows(y.space), width = kp_tensor_columns(y.space) + (y.time != NULL);
  kp_tensor *parts[] = {y.space, y.time};
  double *cotangent;
  int64_t count;
  KP_TRY(kp_case_values(p->c, "in/cotangent", false, &cotangent, &count, error));
  if (count != rows * width) {
    free(cotangent);
    return kp_fail(error, KP_ERR_INPUT, "in/cotangent has %lld elements, not %lld", (long long)count,
                   (long long)(rows * width));
  }
  for (int i = 0; i < 2; i++) {
    if (parts[i] == NULL) continue;
    const int64_t columns = i == 0 ? width - (y.time != NULL) : 1;
    p->seeds[i] =
        kp_graph_input(p->graph, "cotangent", parts[i]->type, parts[i]->dimensions, parts[i]->shape);
    p->cotangents[i] = columns_of(cotangent, rows, width, i == 0 && y.time != NULL, columns);
    kp_graph_keep(parts[i]);
  }
  free(cotangent);
  return KP_OK;
}

kp_status kp_point_case_run(kp_point_case *p, kp_point y, kp_error *error) {
  kp_tensor *first = y.space, *seed;
  if (y.space != NULL) KP_TRY(add_cotangent(p, y, error));
  seed = p->seeds[0];
  if (y.time != NULL) kp_gradient_give(p->graph, y.time, p->seeds[1]);
  for (int i = 0; i < p->result_count; i++) {
    const kp_point_result *r = &p->results[i];
    if (r->seed == NULL) continue;
    if (first == NULL) {
      first = r->tensor;
      seed = r->seed;
    } else {
      kp_gradient_give(p->graph, r->tensor, r->seed);
    }
  }
  KP_TRY(kp_graph_backward(p->graph, first, seed, error));
  KP_TRY(start(p, error));
  for (int i = 0; i < 2; i++)
    if (p->seeds[i] != NULL) kp_executor_write(p->executor, p->seeds[i], p->cotangents[i]);
  KP_TRY(kp_executor_run(p->executor, 0, p->graph->node_count, error));
  return compare_all(p, y, error);
}
