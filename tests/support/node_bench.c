#include "support/node_bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "ops/ops.h"
#include "support/check.h"
#include "support/isa.h"
#include "support/random_rows.h"

node_bench node_bench_create(void) {
  return (node_bench){.graph = kp_graph_create(kp_operator_table)};
}

void node_bench_destroy(node_bench *b) {
  for (int i = 0; i < KP_MAX_INPUTS; i++) free(b->value[i]);
  for (int i = 0; i < KP_MAX_OUTPUTS; i++) free(b->start[i]), free(b->expected[i]), free(b->actual[i]);
  kp_graph_destroy(b->graph);
}

static double *numbers(int64_t count) {
  double *memory = calloc((size_t)count + 1, sizeof *memory);
  assert_non_null(memory);
  return memory;
}

double *node_bench_give(node_bench *b, int slot, kp_type type, int dimensions, const int64_t *shape) {
  b->input[slot] = kp_graph_input(b->graph, "input", type, dimensions, shape);
  b->value[slot] = numbers(kp_tensor_count(b->input[slot]));
  return b->value[slot];
}

double *node_bench_give_matrix(node_bench *b, int slot, kp_type type, int64_t rows, int64_t columns) {
  return node_bench_give(b, slot, type, 2, (int64_t[]){rows, columns});
}

void node_bench_want(node_bench *b, int slot, kp_type type, int64_t rows, int64_t columns) {
  b->output[slot] = kp_graph_activation(b->graph, "output", type, 2, (int64_t[]){rows, columns});
  kp_graph_keep(b->output[slot]);
}

void node_bench_want_sum(node_bench *b, int slot, const kp_tensor *like) {
  b->output[slot] = kp_graph_state(b->graph, "sum", like->type, like->dimensions, like->shape);
  const int64_t count = kp_tensor_count(like);
  b->start[slot] = numbers(count);
  for (int64_t i = 0; i < count; i++) b->start[slot][i] = (double)(float)random_between(-1, 1);
}

void node_bench_round(node_bench *b) {
  for (int i = 0; i < KP_MAX_INPUTS; i++)
    for (int64_t j = 0; b->value[i] != NULL && j < kp_tensor_count(b->input[i]); j++)
      b->value[i][j] = (double)(float)b->value[i][j];
}

void node_bench_run(node_bench *b, const kp_backend *backend, int threads, double *result[KP_MAX_OUTPUTS]) {
  kp_error error = {0};
  kp_executor *executor;
  kp_executor_options options = {.threads = threads, .poison = true};
  check_ok(kp_executor_create(b->graph, backend, NULL, options, &executor, &error), &error);
  for (int i = 0; i < KP_MAX_INPUTS; i++)
    if (b->value[i] != NULL) kp_executor_write(executor, b->input[i], b->value[i]);
  for (int i = 0; i < KP_MAX_INPUTS; i++)
    if (b->input[i] != NULL && b->input[i]->type == KP_TYPE_INT32)
      kp_executor_write_int32(executor, b->input[i], b->tokens);
  for (int i = 0; i < KP_MAX_OUTPUTS; i++)
    if (b->start[i] != NULL) kp_executor_write(executor, b->output[i], b->start[i]);
  check_ok(kp_executor_run(executor, 0, b->graph->node_count, &error), &error);
  for (int i = 0; i < KP_MAX_OUTPUTS; i++) {
    if (b->output[i] == NULL) continue;
    if (result[i] == NULL) result[i] = numbers(kp_tensor_count(b->output[i]));
    kp_executor_read(executor, b->output[i], result[i]);
  }
  kp_executor_destroy(executor);
}

/* The size of a sum is at least that of what it started from, whose last digit it has even where both cancel.
 */
static void compare(const node_bench *b, int slot, double tolerance, const char *what) {
  double largest = 0, worst = 0;
  const int64_t count = kp_tensor_count(b->output[slot]);
  for (int64_t i = 0; i < count; i++) {
    const double expected = b->expected[slot][i], actual = b->actual[slot][i];
    if (isnan(expected) != isnan(actual))
      fail_msg("%s: output %d element %lld is %g, not %g", what, slot, (long long)i, actual, expected);
    if (isnan(expected)) continue;
    largest = fmax(largest, fabs(expected));
    if (b->start[slot] != NULL) largest = fmax(largest, fabs(b->start[slot][i]));
    worst = fmax(worst, fabs(actual - expected));
  }
  if (worst > tolerance * largest)
    fail_msg("%s: output %d is off by %.2g of %.3g", what, slot, worst / largest, largest);
}

static void check_thread_count(node_bench *b, const kp_backend *backend, const char *what) {
  double *alone[KP_MAX_OUTPUTS] = {NULL};
  node_bench_run(b, backend, 1, alone);
  for (int slot = 0; slot < KP_MAX_OUTPUTS; slot++) {
    if (b->output[slot] == NULL) continue;
    const size_t size = (size_t)kp_tensor_count(b->output[slot]) * sizeof(double);
    if (memcmp(alone[slot], b->actual[slot], size) != 0)
      fail_msg("%s, %s: output %d depends on the number of threads", what, backend->name, slot);
    free(alone[slot]);
  }
}

void node_bench_check(node_bench *b, node_outputs outputs, unsigned exact, unsigned skip, const char *what) {
  const double tolerance = outputs == NODE_RESULTS ? 2e-6 : 1e-5;
  kp_test_isa isas[KP_TEST_ISAS];
  const int count = kp_test_isas(isas);
  node_bench_run(b, kp_backend_ref(), 1, b->expected);
  for (int i = 0; i < count; i++) {
    for (int threads = 1; threads <= 2; threads++) {
      char name[512];
      snprintf(name, sizeof name, "%s, %s, %d threads", what, isas[i].name, threads);
      node_bench_run(b, isas[i].backend, threads, b->actual);
      for (int slot = 0; slot < KP_MAX_OUTPUTS; slot++)
        if (b->output[slot] != NULL && (skip >> slot & 1) == 0)
          compare(b, slot, (exact >> slot & 1) != 0 ? 0 : tolerance, name);
    }
    if (outputs == NODE_RESULTS) check_thread_count(b, isas[i].backend, what);
  }
}
