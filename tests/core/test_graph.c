/* Building graphs and differentiating them. */
#include <stdlib.h>
#include <string.h>

#include "core/executor.h"
#include "ops/ops.h"
#include "support/check_fails.h"

/* ---- building ---- */

static void test_shapes(void **state) {
  (void)state;
  char text[64];
  kp_graph *graph = kp_graph_create(kp_operator_table);
  kp_tensor *x = kp_graph_input(graph, "x", KP_TYPE_REAL, 3, (int64_t[]){2, 3, 5});
  kp_tensor *y = kp_graph_input(graph, "y", KP_TYPE_REAL, 2, (int64_t[]){6, 5});
  kp_tensor *huge =
      kp_graph_input(graph, "huge", KP_TYPE_REAL, 4, (int64_t[]){INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX});
  assert_int_equal(kp_tensor_count(x), 30);
  assert_int_equal(kp_tensor_rows(x), 6);
  assert_int_equal(kp_tensor_columns(x), 5);
  assert_string_equal(kp_tensor_shape_text(x, text), "(2, 3, 5)");
  assert_true(strlen(kp_tensor_shape_text(huge, text)) < sizeof text);
  assert_false(kp_tensor_same_shape(x, y));
  assert_true(kp_tensor_same_shape(y, y));
  kp_graph_destroy(graph);
  kp_graph_destroy(NULL);
}

static void test_nodes(void **state) {
  (void)state;
  const int64_t shape[] = {2, 4};
  kp_scale_arguments arguments = {3};
  kp_graph *graph = kp_graph_create(kp_operator_table);
  kp_tensor *x = kp_graph_input(graph, "x", KP_TYPE_REAL, 2, shape);
  kp_tensor *out = kp_graph_activation(graph, "out", KP_TYPE_REAL, 2, shape);
  assert_null(out->producer);
  kp_graph_scope(graph, "block %d", 7);
  kp_node *node = kp_graph_node(graph, KP_OP_SCALE, &arguments, sizeof arguments, 1, &x, 1, &out);
  arguments.scale = 0; /* the node has its own copy */
  kp_graph_scope(graph, "elsewhere");
  assert_ptr_equal(out->producer, node);
  assert_string_equal(node->scope, "block 7");
  assert_true(((const kp_scale_arguments *)node->arguments)->scale == 3);
  assert_ptr_equal(node->row, &kp_operator_table[KP_OP_SCALE]);
  assert_int_equal(graph->node_count, 1);
  assert_int_equal(graph->forward_count, 1);
  for (int i = 0; i < graph->tensor_count; i++) assert_int_equal(graph->tensors[i]->id, i);
  kp_graph_destroy(graph);
}

/* More nodes than the first arrays hold. */
static void test_growth(void **state) {
  (void)state;
  const int64_t size = 3;
  kp_graph *graph = kp_graph_create(kp_operator_table);
  kp_tensor *x = kp_graph_input(graph, "x", KP_TYPE_REAL, 1, &size);
  for (int i = 0; i < 1000; i++) x = kp_scale(graph, x, 2);
  assert_int_equal(graph->node_count, 1000);
  for (int i = 0; i < 1000; i++) assert_int_equal(graph->nodes[i]->index, i);
  kp_graph_destroy(graph);
}

static void test_needs_gradient(void **state) {
  (void)state;
  const int64_t size = 3;
  kp_graph *graph = kp_graph_create(kp_operator_table);
  kp_tensor *data = kp_graph_input(graph, "data", KP_TYPE_REAL, 1, &size);
  kp_tensor *frozen = kp_graph_parameter(graph, "frozen", 0, KP_TYPE_REAL, false, 1, &size);
  kp_tensor *learned = kp_graph_parameter(graph, "learned", 1, KP_TYPE_REAL, true, 1, &size);
  assert_false(kp_add(graph, data, frozen)->needs_gradient);
  kp_tensor *sum = kp_add(graph, data, learned);
  assert_true(sum->needs_gradient);
  assert_true(kp_scale(graph, sum, 2)->needs_gradient);
  kp_graph_destroy(graph);
}

/* ---- differentiation ---- */

enum { SIZE = 4 };

/* A graph over parameters of SIZE elements, differentiated from `out` with a seed of ones and run in ref. */
typedef struct trial {
  kp_graph *graph;
  kp_parameters *parameters;
} trial;

static trial trial_create(void) {
  return (trial){kp_graph_create(kp_operator_table), kp_parameters_create()};
}

static kp_tensor *trial_parameter(trial *t, const char *name, int dimensions, const int64_t *shape) {
  const int index = kp_parameters_add(t->parameters, name, dimensions, shape,
                                      (kp_initial){.kind = KP_INITIAL_NORMAL, .b = 1}, KP_GROUP_DECAY, true);
  return kp_graph_parameter(t->graph, name, index, KP_TYPE_REAL, true, dimensions, shape);
}

/* Gradients are not cleared between runs: `runs` of them add up. */
static void trial_run(trial *t, kp_tensor *out, int runs) {
  kp_error error = {0};
  kp_executor *executor;
  kp_tensor *seed = kp_graph_input(t->graph, "seed", KP_TYPE_REAL, out->dimensions, out->shape);
  double *ones = malloc((size_t)kp_tensor_count(seed) * sizeof *ones);
  assert_non_null(ones);
  for (int64_t i = 0; i < kp_tensor_count(seed); i++) ones[i] = 1;
  check_ok(kp_graph_backward(t->graph, out, seed, &error), &error);
  check_ok(kp_parameters_allocate(t->parameters, kp_backend_ref(), true, &error), &error);
  kp_parameters_initialise(t->parameters, 1);
  check_ok(kp_executor_create(t->graph, kp_backend_ref(), t->parameters,
                              (kp_executor_options){.threads = 1, .poison = true}, &executor, &error),
           &error);
  kp_executor_write(executor, seed, ones);
  for (int i = 0; i < runs; i++) check_ok(kp_executor_run(executor, 0, t->graph->node_count, &error), &error);
  kp_executor_destroy(executor);
  free(ones);
}

static const double *trial_gradient(const trial *t, int parameter) {
  return (const double *)t->parameters->gradients + t->parameters->list[parameter].offset;
}

static void trial_destroy(trial *t) {
  kp_graph_destroy(t->graph);
  kp_parameters_destroy(t->parameters);
}

/* 3 x + (x + x) + (x + 3 x) = 9 x, through parameters and activations that several operators read. */
static void test_several_uses(void **state) {
  (void)state;
  const int64_t size = SIZE;
  for (int wrapped = 0; wrapped < 2; wrapped++) {
    trial t = trial_create();
    kp_tensor *x = trial_parameter(&t, "x", 1, &size);
    if (wrapped) x = kp_scale(t.graph, x, 1);
    kp_tensor *thrice = kp_scale(t.graph, x, 3), *twice = kp_add(t.graph, x, x);
    trial_run(&t, kp_add(t.graph, kp_add(t.graph, thrice, twice), kp_add(t.graph, x, thrice)), 1);
    for (int i = 0; i < SIZE; i++) assert_true(trial_gradient(&t, 0)[i] == 9);
    trial_destroy(&t);
  }
}

/* Runs add to the gradients of parameters: micro batches. */
static void test_runs_accumulate(void **state) {
  (void)state;
  const int64_t size = SIZE;
  trial t = trial_create();
  trial_run(&t, kp_scale(t.graph, trial_parameter(&t, "x", 1, &size), 2), 3);
  for (int i = 0; i < SIZE; i++) assert_true(trial_gradient(&t, 0)[i] == 6);
  trial_destroy(&t);
}

enum { TOKENS = 3, VOCABULARY = 5 };

/* Logits of an embedding by the same or by another matrix, as a tied and an untied model have them. */
static void build_tied(trial *t, bool tied) {
  const int64_t table[] = {VOCABULARY, SIZE}, tokens = TOKENS;
  double *values;
  kp_error error = {0};
  kp_executor *executor;
  kp_tensor *index = kp_graph_input(t->graph, "tokens", KP_TYPE_INT32, 1, &tokens);
  kp_tensor *first = trial_parameter(t, "table", 2, table);
  kp_tensor *second = tied ? trial_parameter(t, "table", 2, table) : trial_parameter(t, "head", 2, table);
  kp_tensor *x = kp_embedding(t->graph, index, first, NULL, NULL);
  kp_tensor *out = kp_linear(t->graph, x, second, NULL);
  kp_tensor *seed = kp_graph_input(t->graph, "seed", KP_TYPE_REAL, out->dimensions, out->shape);
  check_ok(kp_graph_backward(t->graph, out, seed, &error), &error);
  check_ok(kp_parameters_allocate(t->parameters, kp_backend_ref(), true, &error), &error);
  values = t->parameters->values;
  for (int p = 0; p < t->parameters->count; p++) /* the same numbers in both tables */
    for (int i = 0; i < VOCABULARY * SIZE; i++) values[t->parameters->list[p].offset + i] = 0.1 * i - 0.7;
  check_ok(kp_executor_create(t->graph, kp_backend_ref(), t->parameters,
                              (kp_executor_options){.threads = 1, .poison = true}, &executor, &error),
           &error);
  kp_executor_write_int32(executor, index, (int32_t[]){1, 4, 1});
  kp_executor_write(executor, seed,
                    (double[TOKENS * VOCABULARY]){1, -2, 3, 0.5, 1, 2, -1, 0, 1, 3, 1, 1, -4, 2, 2});
  check_ok(kp_executor_run(executor, 0, t->graph->node_count, &error), &error);
  kp_executor_destroy(executor);
}

static void test_tied_parameters(void **state) {
  (void)state;
  trial tied = trial_create(), untied = trial_create();
  build_tied(&tied, true);
  build_tied(&untied, false);
  assert_int_equal(tied.parameters->count, 1);
  assert_int_equal(untied.parameters->count, 2);
  double largest = 0;
  for (int i = 0; i < VOCABULARY * SIZE; i++) {
    const double sum = trial_gradient(&untied, 0)[i] + trial_gradient(&untied, 1)[i];
    const double error = trial_gradient(&tied, 0)[i] - sum;
    assert_true(error < 1e-13 && error > -1e-13);
    if (sum > largest) largest = sum;
  }
  assert_true(largest > 1);
  trial_destroy(&tied);
  trial_destroy(&untied);
}

static int count_operations(const kp_graph *graph, kp_operation operation) {
  int count = 0;
  for (int i = 0; i < graph->node_count; i++) count += graph->nodes[i]->operation == (int)operation;
  return count;
}

/* What nobody needs is not computed: no input gradient for data, no weight gradient for a frozen matrix. */
static void test_only_what_is_needed(void **state) {
  (void)state;
  kp_error error = {0};
  kp_graph *graph = kp_graph_create(kp_operator_table);
  kp_tensor *x = kp_graph_input(graph, "x", KP_TYPE_REAL, 2, (int64_t[]){3, 4});
  kp_tensor *learned = kp_graph_parameter(graph, "learned", 0, KP_TYPE_REAL, true, 2, (int64_t[]){5, 4});
  kp_tensor *frozen = kp_graph_parameter(graph, "frozen", 1, KP_TYPE_REAL, false, 2, (int64_t[]){2, 5});
  kp_tensor *out = kp_linear(graph, kp_linear(graph, x, learned, NULL), frozen, NULL);
  kp_tensor *seed = kp_graph_input(graph, "seed", KP_TYPE_REAL, 2, (int64_t[]){3, 2});
  check_ok(kp_graph_backward(graph, out, seed, &error), &error);
  assert_int_equal(count_operations(graph, KP_OP_LINEAR_BACKWARD_INPUT), 1);
  assert_int_equal(count_operations(graph, KP_OP_LINEAR_BACKWARD_WEIGHT), 1);
  assert_null(x->gradient);
  assert_null(frozen->gradient);
  assert_int_equal(graph->forward_count, 2);
  kp_graph_destroy(graph);
}

static void test_backward_scope(void **state) {
  (void)state;
  const int64_t size = SIZE;
  kp_error error = {0};
  kp_graph *graph = kp_graph_create(kp_operator_table);
  kp_tensor *x = kp_graph_parameter(graph, "x", 0, KP_TYPE_REAL, true, 1, &size);
  kp_graph_scope(graph, "first");
  x = kp_activation(graph, x, KP_SILU);
  kp_graph_scope(graph, "second");
  x = kp_activation(graph, x, KP_SILU);
  check_ok(kp_graph_backward(graph, x, kp_graph_input(graph, "seed", KP_TYPE_REAL, 1, &size), &error),
           &error);
  assert_string_equal(graph->nodes[2]->scope, "second");
  assert_string_equal(graph->nodes[3]->scope, "first");
  kp_graph_destroy(graph);
}

static void test_not_differentiable(void **state) {
  (void)state;
  const int64_t size = SIZE;
  kp_error error = {0};
  kp_graph *graph = kp_graph_create(kp_operator_table);
  kp_tensor *x = kp_graph_parameter(graph, "x", 0, KP_TYPE_REAL, true, 1, &size);
  kp_tensor *out = kp_graph_activation(graph, "out", KP_TYPE_REAL, 1, &size);
  kp_graph_scope(graph, "here");
  kp_graph_node(graph, KP_OP_SELECT_ROW_BACKWARD, NULL, 0, 1, &x, 1, &out);
  kp_tensor *seed = kp_graph_input(graph, "seed", KP_TYPE_REAL, 1, &size);
  check_fails(kp_graph_backward(graph, out, seed, &error), &error, KP_ERR_UNSUPPORTED,
              "select_row_backward (here)");
  kp_graph_destroy(graph);
}

/* A chain of marked tensors is produced again from the last one that was kept, once. */
static void test_recomputed_chain(void **state) {
  (void)state;
  const int64_t size = SIZE;
  kp_error error = {0};
  kp_graph *graph = kp_graph_create(kp_operator_table);
  kp_tensor *x = kp_graph_parameter(graph, "x", 0, KP_TYPE_REAL, true, 1, &size);
  kp_tensor *a = kp_activation(graph, x, KP_SILU), *b = kp_activation(graph, a, KP_SILU);
  kp_tensor *c = kp_activation(graph, b, KP_SILU);
  a->recompute = b->recompute = true;
  check_ok(kp_graph_backward(graph, c, kp_graph_input(graph, "seed", KP_TYPE_REAL, 1, &size), &error),
           &error);
  assert_int_equal(count_operations(graph, KP_OP_ACTIVATION), 5);
  assert_int_equal(count_operations(graph, KP_OP_ACTIVATION_BACKWARD), 3);
  for (int i = graph->forward_count; i < graph->node_count; i++)
    for (int j = 0; j < graph->nodes[i]->inputs; j++)
      assert_true(graph->nodes[i]->input[j] != a && graph->nodes[i]->input[j] != b);
  kp_graph_destroy(graph);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_shapes),           cmocka_unit_test(test_nodes),
      cmocka_unit_test(test_growth),           cmocka_unit_test(test_needs_gradient),
      cmocka_unit_test(test_several_uses),     cmocka_unit_test(test_runs_accumulate),
      cmocka_unit_test(test_tied_parameters),  cmocka_unit_test(test_only_what_is_needed),
      cmocka_unit_test(test_backward_scope),   cmocka_unit_test(test_not_differentiable),
      cmocka_unit_test(test_recomputed_chain),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
