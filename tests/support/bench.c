#include "support/bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/random.h"
#include "optim/gradients.h"
#include "support/check.h"

enum { SEED_STREAM = 100, STATE_STREAM = 200, RANDOM_SEED = 20 };

bench *bench_create(bool wrap) {
  bench *b = calloc(1, sizeof *b);
  assert_non_null(b);
  b->graph = kp_graph_create(kp_operator_table);
  b->parameters = kp_parameters_create();
  b->wrap = wrap;
  return b;
}

void bench_destroy(bench *b) {
  kp_executor_destroy(b->executor);
  kp_graph_destroy(b->graph);
  kp_parameters_destroy(b->parameters);
  for (int i = 0; i < BENCH_OPERANDS; i++) free(b->value[i]);
  for (int i = 0; i < BENCH_INDICES; i++) free(b->index_value[i]);
  for (int i = 0; i < BENCH_OUTPUTS; i++) free(b->seed_value[i]);
  for (int i = 0; i < BENCH_STATES; i++) free(b->state_value[i]);
  free(b);
}

static double *normal_values(int64_t count, int stream, double centre, double deviation) {
  double *values = malloc((size_t)count * sizeof *values);
  assert_non_null(values);
  for (int64_t i = 0; i < count; i++)
    values[i] =
        (double)(float)(centre + deviation * kp_random_normal(RANDOM_SEED, (uint32_t)stream, 0, (uint64_t)i));
  return values;
}

/* As models have them: matrices are real, all else is kept wide. */
static kp_type type_of(const char *name, int dimensions) {
  const bool wide = dimensions < 2 || strcmp(name, "time") == 0 || strcmp(name, "scores") == 0 ||
                    strcmp(name, "weights") == 0 || strstr(name, "bias") != NULL ||
                    strstr(name, "curvature") != NULL;
  return wide ? KP_TYPE_STATISTIC : KP_TYPE_REAL;
}

static kp_tensor *operand(bench *b, const char *name, double centre, double deviation, int dimensions,
                          const int64_t *shape, bool trainable) {
  assert_true(b->operands < BENCH_OPERANDS);
  const int index =
      kp_parameters_add(b->parameters, name, dimensions, shape, (kp_initial){0}, KP_GROUP_DECAY, trainable);
  assert_int_equal(index, b->operands);
  b->value[b->operands++] = normal_values(b->parameters->list[index].count, index, centre, deviation);
  kp_tensor *tensor =
      kp_graph_parameter(b->graph, name, index, type_of(name, dimensions), trainable, dimensions, shape);
  return b->wrap ? kp_scale(b->graph, tensor, 1) : tensor;
}

kp_tensor *bench_operand(bench *b, const char *name, double centre, double deviation, int dimensions,
                         const int64_t *shape) {
  return operand(b, name, centre, deviation, dimensions, shape, true);
}

kp_tensor *bench_frozen(bench *b, const char *name, double centre, double deviation, int dimensions,
                        const int64_t *shape) {
  return operand(b, name, centre, deviation, dimensions, shape, false);
}

kp_tensor *bench_index(bench *b, const char *name, int dimensions, const int64_t *shape,
                       const int32_t *values) {
  assert_true(b->indices < BENCH_INDICES);
  kp_tensor *tensor = kp_graph_input(b->graph, name, KP_TYPE_INT32, dimensions, shape);
  const size_t bytes = (size_t)kp_tensor_count(tensor) * sizeof *values;
  b->index[b->indices] = tensor;
  b->index_value[b->indices] = malloc(bytes);
  assert_non_null(b->index_value[b->indices]);
  memcpy(b->index_value[b->indices++], values, bytes);
  return tensor;
}

kp_tensor *bench_state(bench *b, const char *name, double deviation, int dimensions, const int64_t *shape) {
  assert_true(b->states < BENCH_STATES);
  kp_tensor *tensor = kp_graph_state(b->graph, name, KP_TYPE_REAL, dimensions, shape);
  b->state[b->states] = tensor;
  b->state_value[b->states] = normal_values(kp_tensor_count(tensor), STATE_STREAM + b->states, 0, deviation);
  b->states++;
  return tensor;
}

kp_tensor *bench_next_seed(bench *b) {
  assert_true(b->outputs < BENCH_OUTPUTS);
  return b->seed[b->outputs] = kp_graph_input(b->graph, "seed", KP_TYPE_STATISTIC, 1, (int64_t[]){1});
}

void bench_output(bench *b, kp_tensor *tensor) {
  if (tensor == NULL) return;
  assert_true(b->outputs < BENCH_OUTPUTS);
  if (b->wrap && tensor->type == KP_TYPE_REAL) tensor = kp_scale(b->graph, tensor, 1);
  const int i = b->outputs++;
  kp_graph_keep(tensor);
  b->output[i] = tensor;
  if (b->seed[i] == NULL)
    b->seed[i] = kp_graph_input(b->graph, "seed", tensor->type, tensor->dimensions, tensor->shape);
  assert_true(b->seed[i]->type == tensor->type && kp_tensor_same_shape(b->seed[i], tensor));
  b->seed_value[i] = normal_values(kp_tensor_count(tensor), SEED_STREAM + i, 0, 1);
}

void bench_differentiate(bench *b) {
  kp_error error = {0};
  for (int i = 1; i < b->outputs; i++) kp_gradient_give(b->graph, b->output[i], b->seed[i]);
  check_ok(kp_graph_backward(b->graph, b->output[0], b->seed[0], &error), &error);
}

kp_status bench_start(bench *b, const kp_backend *backend, int threads, kp_error *error) {
  const kp_executor_options options = {.threads = threads, .seed = 3, .poison = true};
  KP_TRY(kp_parameters_allocate(b->parameters, backend, true, error));
  KP_TRY(kp_executor_create(b->graph, backend, b->parameters, options, &b->executor, error));
  for (int i = 0; i < b->operands; i++)
    kp_parameters_write(b->parameters, b->parameters->values, i, b->value[i]);
  for (int i = 0; i < b->indices; i++) kp_executor_write_int32(b->executor, b->index[i], b->index_value[i]);
  for (int i = 0; i < b->outputs; i++) kp_executor_write(b->executor, b->seed[i], b->seed_value[i]);
  return KP_OK;
}

static kp_status run(bench *b, int last, kp_error *error) {
  for (int i = 0; i < b->states; i++) kp_executor_write(b->executor, b->state[i], b->state_value[i]);
  KP_TRY(kp_executor_run(b->executor, 0, last, error));
  return kp_executor_wait(b->executor, error);
}

kp_status bench_run(bench *b, kp_error *error) {
  kp_gradient_zero(b->parameters, 1);
  return run(b, b->graph->node_count, error);
}

kp_status bench_forward(bench *b, kp_error *error) {
  return run(b, b->graph->forward_count, error);
}

static double *read(const bench *b, const kp_tensor *tensor) {
  double *values = malloc((size_t)kp_tensor_count(tensor) * sizeof *values);
  assert_non_null(values);
  kp_executor_read(b->executor, tensor, values);
  return values;
}

double *bench_read_output(const bench *b, int output) {
  return read(b, b->output[output]);
}

double *bench_read_state(const bench *b, int state) {
  return read(b, b->state[state]);
}

double *bench_read_gradient(const bench *b, int index) {
  double *values = malloc((size_t)b->parameters->list[index].count * sizeof *values);
  assert_non_null(values);
  kp_parameters_read(b->parameters, b->parameters->gradients, index, values);
  return values;
}

double bench_objective(const bench *b) {
  double sum = 0;
  for (int i = 0; i < b->outputs; i++) {
    double *values = bench_read_output(b, i);
    for (int64_t j = 0; j < kp_tensor_count(b->output[i]); j++) sum += b->seed_value[i][j] * values[j];
    free(values);
  }
  return sum;
}

double *bench_element(bench *b, int index, int64_t i) {
  assert_int_equal(b->parameters->backend->real_size, sizeof(double));
  return (double *)b->parameters->values + b->parameters->list[index].offset + i;
}

double bench_largest(const double *values, int64_t count) {
  double largest = 0;
  for (int64_t i = 0; i < count; i++) largest = fmax(largest, fabs(values[i]));
  return largest;
}
