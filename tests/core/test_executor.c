/* The executor on an operator table and a backend of its own, whose kernels misbehave on purpose. */
#include <math.h>
#include <string.h>

#include "core/executor.h"
#include "support/check_fails.h"

/* ---- a small operator table: the first two rows are those that differentiation emits ---- */

enum {
  OP_ADD,
  OP_ZERO,
  OP_DOUBLE,
  OP_HALF,
  OP_SPOIL,
  OP_FAIL,
  OP_COUNT_UP,
  OP_MISSING,
  OP_SCRATCH,
  OP_COUNT
};

static const kp_operator operators[OP_COUNT] = {
    [OP_ADD] = {"add", NULL, 0, 0},           [OP_ZERO] = {"zero", NULL, -1, -1},
    [OP_DOUBLE] = {"double", NULL, 0, 0},     [OP_HALF] = {"half", NULL, -1, -1},
    [OP_SPOIL] = {"spoil", NULL, -1, -1},     [OP_FAIL] = {"fail", NULL, -1, -1},
    [OP_COUNT_UP] = {"count", NULL, -1, -1},  [OP_MISSING] = {"missing", NULL, -1, -1},
    [OP_SCRATCH] = {"scratch", NULL, -1, -1},
};

static kp_status twice(const kp_call *call, kp_error *error) {
  (void)error;
  const double *x = call->input[0];
  double *y = call->output[0];
  for (int64_t i = 0; i < kp_tensor_count(call->node->output[0]); i++) y[i] = 2 * x[i];
  return KP_OK;
}

/* Forgets the second half of its output. */
static kp_status half(const kp_call *call, kp_error *error) {
  (void)error;
  double *y = call->output[0];
  for (int64_t i = 0; i < kp_tensor_count(call->node->output[0]) / 2; i++) y[i] = 1;
  return KP_OK;
}

typedef struct spoil_arguments {
  int64_t index;
  double value;
} spoil_arguments;

/* Ones, but for one element. */
static kp_status spoil(const kp_call *call, kp_error *error) {
  (void)error;
  const spoil_arguments *arguments = call->node->arguments;
  double *y = call->output[0];
  for (int64_t i = 0; i < kp_tensor_count(call->node->output[0]); i++) y[i] = 1;
  y[arguments->index] = arguments->value;
  return KP_OK;
}

static kp_status refuse(const kp_call *call, kp_error *error) {
  (void)call;
  return kp_fail(error, KP_ERR_INPUT, "row 3 is wrong");
}

/* Adds one to a state; writes the run's seed, step and threads. */
static kp_status count_up(const kp_call *call, kp_error *error) {
  (void)error;
  double *state = call->input[0], *seen = call->output[0];
  *state += 1;
  seen[0] = (double)call->run->seed;
  seen[1] = (double)call->run->step;
  seen[2] = call->run->threads;
  return KP_OK;
}

enum { SCRATCH_BYTES = 1000 };

static size_t scratch_size(const kp_node *node, int threads) {
  (void)node;
  return (size_t)(SCRATCH_BYTES * threads);
}

/* Overwrites all of its scratch, then copies its input. */
static kp_status use_scratch(const kp_call *call, kp_error *error) {
  (void)error;
  memset(call->scratch, 0x55, (size_t)(SCRATCH_BYTES * call->run->threads));
  memcpy(call->output[0], call->input[0], (size_t)kp_tensor_count(call->node->output[0]) * sizeof(double));
  return KP_OK;
}

static const kp_kernel kernels[OP_COUNT] = {
    [OP_DOUBLE] = twice, [OP_HALF] = half,         [OP_SPOIL] = spoil,
    [OP_FAIL] = refuse,  [OP_COUNT_UP] = count_up, [OP_SCRATCH] = use_scratch,
};
static const kp_scratch_size scratch[OP_COUNT] = {[OP_SCRATCH] = scratch_size};
static const kp_backend backend = {.name = "fake",
                                   .real_size = sizeof(double),
                                   .wide_size = sizeof(double),
                                   .kernels = kernels,
                                   .scratch = scratch};
static const kp_backend narrow = {
    .name = "narrow", .real_size = sizeof(float), .wide_size = sizeof(float), .kernels = kernels};

/* ---- helpers ---- */

static kp_tensor *node_over(kp_graph *graph, int operation, kp_tensor *input, const char *name,
                            int dimensions, const int64_t *shape, const void *arguments, size_t size) {
  kp_tensor *out = kp_graph_activation(graph, name, KP_TYPE_REAL, dimensions, shape);
  kp_graph_node(graph, operation, arguments, size, input == NULL ? 0 : 1, &input, 1, &out);
  return out;
}

static kp_executor *executor_of(const kp_graph *graph, kp_executor_options options) {
  kp_executor *executor;
  kp_error error = {0};
  options.threads = options.threads == 0 ? 1 : options.threads;
  check_ok(kp_executor_create(graph, &backend, NULL, options, &executor, &error), &error);
  return executor;
}

static const int64_t six = 6;

/* ---- poison ---- */

static void test_poison_finds_unwritten(void **state) {
  (void)state;
  for (int poison = 0; poison < 2; poison++) {
    double values[6];
    kp_error error = {0};
    kp_graph *graph = kp_graph_create(operators);
    kp_tensor *out = node_over(graph, OP_HALF, NULL, "out", 1, &six, NULL, 0);
    kp_graph_keep(out);
    kp_executor *executor = executor_of(graph, (kp_executor_options){.poison = poison});
    check_ok(kp_executor_run(executor, 0, 1, &error), &error);
    kp_executor_read(executor, out, values);
    for (int i = 0; i < 6; i++) assert_int_equal(isnan(values[i]) != 0, poison && i >= 3);
    kp_executor_destroy(executor);
    kp_graph_destroy(graph);
  }
}

/* With the trap the unwritten element is an error that says where. */
static void test_poison_and_trap(void **state) {
  (void)state;
  kp_error error = {0};
  kp_graph *graph = kp_graph_create(operators);
  node_over(graph, OP_HALF, NULL, "out", 2, (int64_t[]){2, 4}, NULL, 0);
  kp_executor *executor = executor_of(graph, (kp_executor_options){.poison = true, .trap = true});
  check_fails(kp_executor_run(executor, 0, 1, &error), &error, KP_ERR_NUMERIC, "operator half");
  assert_non_null(strstr(error.message, "out (2, 4) at row 1, column 0"));
  kp_executor_destroy(executor);
  kp_graph_destroy(graph);
}

/* An operator that works in place keeps its input. */
static void test_poison_in_place(void **state) {
  (void)state;
  double values[6];
  kp_error error = {0};
  kp_graph *graph = kp_graph_create(operators);
  kp_tensor *x = kp_graph_input(graph, "x", KP_TYPE_REAL, 1, &six);
  kp_tensor *out = node_over(graph, OP_DOUBLE, x, "a", 1, &six, NULL, 0);
  out = node_over(graph, OP_DOUBLE, out, "b", 1, &six, NULL, 0);
  kp_graph_keep(out);
  kp_executor *executor = executor_of(graph, (kp_executor_options){.poison = true});
  kp_executor_write(executor, x, (double[]){1, 2, 3, 4, 5, 6});
  check_ok(kp_executor_run(executor, 0, 2, &error), &error);
  kp_executor_read(executor, out, values);
  for (int i = 0; i < 6; i++) assert_true(values[i] == 4 * (i + 1));
  kp_executor_destroy(executor);
  kp_graph_destroy(graph);
}

/* ---- trap ---- */

static void test_trap_names_the_place(void **state) {
  (void)state;
  const spoil_arguments arguments = {5, -HUGE_VAL}; /* of (4, 3): row 1, column 2 */
  kp_error error = {0};
  kp_graph *graph = kp_graph_create(operators);
  kp_tensor *x = kp_graph_input(graph, "stream", KP_TYPE_REAL, 2, (int64_t[]){4, 2});
  kp_tensor *kappa = kp_graph_input(graph, "curvature", KP_TYPE_STATISTIC, 2, (int64_t[]){2, 1});
  kp_tensor *tokens = kp_graph_input(graph, "tokens", KP_TYPE_INT32, 1, (int64_t[]){4});
  kp_tensor *out = kp_graph_activation(graph, "result", KP_TYPE_REAL, 2, (int64_t[]){4, 3});
  kp_graph_scope(graph, "transformer.h.3.ln_1");
  kp_graph_node(graph, OP_SPOIL, &arguments, sizeof arguments, 4, (kp_tensor *[]){x, NULL, kappa, tokens}, 1,
                &out);
  kp_executor *executor = executor_of(graph, (kp_executor_options){.trap = true});
  kp_executor_write(executor, x, (double[]){0, 0, 3, 4, 0, 0, 0, 0});
  kp_executor_write(executor, kappa, (double[]){-0.25, 7});
  check_fails(kp_executor_run(executor, 0, 1, &error), &error, KP_ERR_NUMERIC,
              "operator spoil (transformer.h.3.ln_1) wrote -inf to result (4, 3) at row 1, column 2");
  assert_non_null(strstr(error.message, "|stream| = 5"));
  assert_non_null(strstr(error.message, "curvature = -0.25"));
  kp_executor_set_trap(executor, false);
  check_ok(kp_executor_run(executor, 0, 1, &error), &error);
  kp_executor_destroy(executor);
  kp_graph_destroy(graph);
}

/* Many inputs with long names: the message is cut, not the stack. */
static void test_trap_with_long_names(void **state) {
  (void)state;
  const spoil_arguments arguments = {0, (double)NAN};
  for (int length = 60; length < 240; length++) {
    char name[256] = "curvature";
    kp_error error = {0};
    kp_tensor *inputs[KP_MAX_INPUTS];
    kp_graph *graph = kp_graph_create(operators);
    memset(name + 9, 'n', (size_t)length - 9);
    for (int i = 0; i < KP_MAX_INPUTS; i++) inputs[i] = kp_graph_input(graph, name, KP_TYPE_REAL, 1, &six);
    kp_tensor *out = kp_graph_activation(graph, "out", KP_TYPE_REAL, 1, &six);
    kp_graph_node(graph, OP_SPOIL, &arguments, sizeof arguments, KP_MAX_INPUTS, inputs, 1, &out);
    kp_executor *executor = executor_of(graph, (kp_executor_options){.trap = true});
    check_fails(kp_executor_run(executor, 0, 1, &error), &error, KP_ERR_NUMERIC, "operator spoil");
    kp_executor_destroy(executor);
    kp_graph_destroy(graph);
  }
}

/* ---- errors ---- */

static void test_missing_kernel(void **state) {
  (void)state;
  kp_error error = {0};
  kp_executor *executor = NULL;
  kp_graph *graph = kp_graph_create(operators);
  kp_graph_scope(graph, "lm_head");
  node_over(graph, OP_MISSING, NULL, "out", 1, &six, NULL, 0);
  check_fails(kp_executor_create(graph, &backend, NULL, (kp_executor_options){0}, &executor, &error), &error,
              KP_ERR_UNSUPPORTED, "backend fake has no kernel for operator missing (lm_head)");
  assert_null(executor);
  kp_executor_destroy(NULL);
  kp_graph_destroy(graph);
}

static void test_kernel_error(void **state) {
  (void)state;
  kp_error error = {0};
  kp_graph *graph = kp_graph_create(operators);
  kp_graph_scope(graph, "transformer.wte");
  node_over(graph, OP_FAIL, NULL, "out", 1, &six, NULL, 0);
  kp_executor *executor = executor_of(graph, (kp_executor_options){0});
  check_fails(kp_executor_run(executor, 0, 1, &error), &error, KP_ERR_INPUT,
              "operator fail (transformer.wte): row 3 is wrong");
  kp_executor_destroy(executor);
  kp_graph_destroy(graph);
}

/* ---- memory ---- */

static void test_states_persist(void **state) {
  (void)state;
  double values[3], bound = 40;
  const int64_t one = 1, three = 3;
  kp_error error = {0};
  kp_graph *graph = kp_graph_create(operators);
  kp_tensor *kept = kp_graph_state(graph, "kept", KP_TYPE_REAL, 1, &one);
  kp_tensor *out = node_over(graph, OP_COUNT_UP, kept, "out", 1, &three, NULL, 0);
  kp_graph_keep(out);
  kp_executor *executor = executor_of(graph, (kp_executor_options){.seed = 11, .threads = 2, .poison = true});
  for (int step = 1; step <= 3; step++) {
    kp_executor_set_step(executor, (uint64_t)step * 10);
    check_ok(kp_executor_run(executor, 0, 1, &error), &error);
    assert_true(*(double *)kp_executor_memory(executor, kept) == step);
    kp_executor_read(executor, out, values);
    assert_true(values[0] == 11 && values[1] == 10 * step && values[2] == 2);
  }
  kp_executor_bind(executor, kept, &bound);
  check_ok(kp_executor_run(executor, 0, 1, &error), &error);
  assert_true(bound == 41);
  kp_executor_destroy(executor);
  kp_graph_destroy(graph);
}

static void test_bound_input(void **state) {
  (void)state;
  double values[6], mine[] = {1, 2, 3, 4, 5, 6};
  kp_error error = {0};
  kp_graph *graph = kp_graph_create(operators);
  kp_tensor *x = kp_graph_input(graph, "x", KP_TYPE_REAL, 1, &six);
  kp_tensor *out = node_over(graph, OP_DOUBLE, x, "out", 1, &six, NULL, 0);
  kp_graph_keep(out);
  kp_executor *executor = executor_of(graph, (kp_executor_options){0});
  kp_executor_bind(executor, x, mine);
  check_ok(kp_executor_run(executor, 0, 1, &error), &error);
  kp_executor_read(executor, out, values);
  for (int i = 0; i < 6; i++) assert_true(values[i] == 2 * mine[i]);
  kp_executor_destroy(executor);
  kp_graph_destroy(graph);
}

/* A caller's arena is used, if it is large enough, and left alone afterwards; scratch spoils nothing that
 * lives. */
static void test_given_arena_and_scratch(void **state) {
  (void)state;
  void *arena;
  double values[6];
  kp_error error = {0};
  kp_graph *graph = kp_graph_create(operators);
  kp_tensor *x = kp_graph_input(graph, "x", KP_TYPE_REAL, 1, &six);
  kp_tensor *a = node_over(graph, OP_SCRATCH, x, "a", 1, &six, NULL, 0);
  kp_tensor *out = node_over(graph, OP_SCRATCH, a, "out", 1, &six, NULL, 0);
  kp_graph_keep(a);
  kp_graph_keep(out);
  kp_plan *plan = kp_plan_create(graph, &backend, 3);
  const size_t bytes = plan->arena_bytes;
  kp_plan_destroy(plan);
  check_ok(kp_buffer_create(bytes, "an arena", &arena, &error), &error);
  kp_executor *executor =
      executor_of(graph, (kp_executor_options){.threads = 3, .arena = arena, .arena_bytes = bytes});
  assert_int_equal(kp_executor_plan(executor)->arena_bytes, bytes);
  kp_executor_write(executor, x, (double[]){1, 2, 3, 4, 5, 6});
  check_ok(kp_executor_run(executor, 0, 2, &error), &error);
  kp_executor_read(executor, out, values);
  for (int i = 0; i < 6; i++) assert_true(values[i] == i + 1);
  const char *place = kp_executor_memory(executor, out);
  assert_true(place >= (char *)arena && place < (char *)arena + bytes);
  assert_ptr_equal(kp_executor_arena(executor), arena);
  kp_executor_destroy(executor);
  executor =
      executor_of(graph, (kp_executor_options){.threads = 3, .arena = arena, .arena_bytes = bytes - 1});
  assert_ptr_not_equal(kp_executor_arena(executor), arena);
  kp_executor_destroy(executor);
  kp_buffer_destroy(arena);
  kp_graph_destroy(graph);
}

static void test_conversions(void **state) {
  (void)state;
  const kp_backend *backends[] = {&backend, &narrow};
  const double written[] = {0.1, -2, 1e-3, 4, 5, 1e30}, constant[] = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6};
  for (int b = 0; b < 2; b++) {
    double read[6];
    kp_error error = {0};
    kp_executor *executor;
    kp_graph *graph = kp_graph_create(operators);
    kp_tensor *x = kp_graph_input(graph, "x", KP_TYPE_REAL, 1, &six);
    kp_tensor *tokens = kp_graph_input(graph, "tokens", KP_TYPE_INT32, 1, &six);
    kp_tensor *fixed = kp_graph_constant(graph, "fixed", 1, &six, constant);
    check_ok(
        kp_executor_create(graph, backends[b], NULL, (kp_executor_options){.threads = 1}, &executor, &error),
        &error);
    kp_executor_write(executor, x, written);
    kp_executor_read(executor, x, read);
    for (int i = 0; i < 6; i++) assert_true(read[i] == (b == 0 ? written[i] : (double)(float)written[i]));
    kp_executor_read(executor, fixed, read);
    for (int i = 0; i < 6; i++) assert_true(read[i] == (b == 0 ? constant[i] : (double)(float)constant[i]));
    kp_executor_write(executor, tokens, (double[]){1, -1, 2147483647, 0, 5, 6});
    assert_int_equal(((int32_t *)kp_executor_memory(executor, tokens))[2], 2147483647);
    kp_executor_write_int32(executor, tokens, (int32_t[]){9, 8, 7, 6, 5, -4});
    kp_executor_read(executor, tokens, read);
    assert_true(read[0] == 9 && read[5] == -4);
    kp_executor_destroy(executor);
    kp_graph_destroy(graph);
  }
}

/* ---- running ---- */

static void test_ranges_and_profile(void **state) {
  (void)state;
  double values[6];
  kp_error error = {0};
  kp_graph *graph = kp_graph_create(operators);
  kp_tensor *x = kp_graph_input(graph, "x", KP_TYPE_REAL, 1, &six);
  kp_tensor *a = node_over(graph, OP_DOUBLE, x, "a", 1, &six, NULL, 0);
  kp_tensor *b = node_over(graph, OP_DOUBLE, a, "b", 1, &six, NULL, 0);
  kp_graph_keep(a);
  kp_graph_keep(b);
  kp_executor *executor = executor_of(graph, (kp_executor_options){0});
  assert_null(kp_executor_node_seconds(executor));
  kp_executor_profile(executor, true);
  kp_executor_write(executor, x, (double[]){1, 1, 1, 1, 1, 1});
  check_ok(kp_executor_run(executor, 0, 1, &error), &error);
  kp_executor_write(executor, a, (double[]){5, 5, 5, 5, 5, 5});
  check_ok(kp_executor_run(executor, 1, 2, &error), &error);
  kp_executor_read(executor, b, values);
  assert_true(values[0] == 10);
  assert_true(kp_executor_node_seconds(executor)[0] >= 0);
  kp_executor_profile(executor, false);
  assert_null(kp_executor_node_seconds(executor));
  kp_executor_destroy(executor);
  kp_graph_destroy(graph);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_poison_finds_unwritten),
      cmocka_unit_test(test_poison_and_trap),
      cmocka_unit_test(test_poison_in_place),
      cmocka_unit_test(test_trap_names_the_place),
      cmocka_unit_test(test_trap_with_long_names),
      cmocka_unit_test(test_missing_kernel),
      cmocka_unit_test(test_kernel_error),
      cmocka_unit_test(test_states_persist),
      cmocka_unit_test(test_bound_input),
      cmocka_unit_test(test_given_arena_and_scratch),
      cmocka_unit_test(test_conversions),
      cmocka_unit_test(test_ranges_and_profile),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
