#include "study/verify_graph.h"

#include <math.h>
#include <stdlib.h>

#include "core/assert.h"
#include "core/executor.h"

kp_case_graph kp_case_graph_create(const kp_case *c) {
  return (kp_case_graph){
      .c = c, .graph = kp_graph_create(kp_operator_table), .parameters = kp_parameters_create()};
}

void kp_case_graph_destroy(kp_case_graph *b) {
  for (int i = 0; i < b->parameters->count; i++) free(b->initial[i]);
  free(b->index_values);
  kp_graph_destroy(b->graph);
  kp_parameters_destroy(b->parameters);
}

kp_tensor *kp_case_graph_operand(kp_case_graph *b, const char *name, double *values, int dimensions,
                                 const int64_t *shape) {
  int index =
      kp_parameters_add(b->parameters, name, dimensions, shape, (kp_initial){0}, KP_GROUP_NO_DECAY, true);
  b->initial[index] = values;
  return kp_graph_parameter(b->graph, name, index, KP_TYPE_REAL, true, dimensions, shape);
}

kp_status kp_case_graph_read(kp_case_graph *b, const char *name, int dimensions, const int64_t *shape,
                             kp_tensor **operand, kp_error *error) {
  double *values;
  int64_t count, wanted = 1;
  KP_TRY(kp_case_values(b->c, name, false, &values, &count, error));
  for (int i = 0; i < dimensions; i++) wanted *= shape[i];
  if (count != wanted) {
    free(values);
    return kp_fail(error, KP_ERR_INPUT, "tensor %s has %lld elements, not %lld", name, (long long)count,
                   (long long)wanted);
  }
  *operand = kp_case_graph_operand(b, name, values, dimensions, shape);
  return KP_OK;
}

kp_tensor *kp_case_graph_index(kp_case_graph *b, const char *name, double *values, int64_t count) {
  kp_assert(b->index == NULL, "a second index in a case's graph: %s", name);
  b->index_values = values;
  return b->index = kp_graph_input(b->graph, name, KP_TYPE_INT32, 1, &count);
}

/* Memory for the finished graph, with all inputs in it. */
static kp_status start(kp_case_graph *b, bool gradients, kp_executor **executor, kp_error *error) {
  const kp_executor_options options = {.threads = b->c->threads, .poison = true};
  KP_TRY(kp_parameters_allocate(b->parameters, b->c->backend, gradients, error));
  KP_TRY(kp_executor_create(b->graph, b->c->backend, b->parameters, options, executor, error));
  for (int i = 0; i < b->parameters->count; i++)
    kp_parameters_write(b->parameters, b->parameters->values, i, b->initial[i]);
  if (b->index != NULL) kp_executor_write(*executor, b->index, b->index_values);
  return KP_OK;
}

static kp_status compare(kp_case_graph *b, kp_executor *executor, kp_tensor *out, const kp_expectation *e,
                         kp_error *error) {
  double *want, *got;
  int64_t count;
  KP_TRY(kp_case_values(b->c, e->name, true, &want, &count, error));
  if (want == NULL) return KP_OK;
  const int64_t size = e->operand == NULL ? kp_tensor_count(out) : kp_tensor_count(e->operand);
  if (size != count) {
    free(want);
    return kp_fail(error, KP_ERR_INPUT, "tensor %s has %lld elements, not %lld", e->name, (long long)count,
                   (long long)size);
  }
  got = malloc((size_t)size * sizeof *got);
  kp_assert(got != NULL, "out of memory");
  if (e->operand == NULL)
    kp_executor_read(executor, out, got);
  else
    kp_parameters_read(b->parameters, b->parameters->gradients, e->operand->parameter, got);
  for (int64_t i = 0; i < size; i++) got[i] *= e->sign;
  const double scale = fmax(kp_case_largest(want, count), 1e-30);
  kp_case_check(b->c, kp_case_worst(got, want, count) / scale, e->tolerance, "%s", e->name);
  free(got);
  free(want);
  return KP_OK;
}

kp_status kp_case_graph_run(kp_case_graph *b, kp_tensor *out, const double *gout,
                            const kp_expectation *expected, int count, kp_error *error) {
  kp_tensor *seed = kp_graph_input(b->graph, "gout", out->type, out->dimensions, out->shape);
  kp_executor *executor = NULL;
  kp_graph_keep(out);
  KP_TRY(kp_graph_backward(b->graph, out, seed, error));
  KP_TRY(start(b, true, &executor, error));
  kp_executor_write(executor, seed, gout);
  kp_status status = kp_executor_run(executor, 0, b->graph->node_count, error);
  for (int i = 0; i < count && status == KP_OK; i++) status = compare(b, executor, out, &expected[i], error);
  kp_executor_destroy(executor);
  return status;
}

kp_status kp_case_graph_evaluate(kp_case_graph *b, kp_tensor *out, double *values, kp_error *error) {
  kp_executor *executor = NULL;
  kp_graph_keep(out);
  KP_TRY(start(b, false, &executor, error));
  kp_status status = kp_executor_run(executor, 0, b->graph->node_count, error);
  if (status == KP_OK) kp_executor_read(executor, out, values);
  kp_executor_destroy(executor);
  return status;
}
