/* The memory plan against brute force: the lives of all tensors are worked out again here, by another rule,
 * and every pair that is alive at once is compared. */
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "core/plan.h"
#include "core/random.h"
#include "support/check.h"
#include "support/model_cases.h"

/* A region of the arena and the nodes, inclusive, during which it must not change owner. */
typedef struct region {
  const kp_tensor *tensor; /* NULL: scratch */
  int first, last;
  size_t begin, end;
} region;

typedef struct regions {
  region *list;
  int count;
} regions;

/* The first node that writes or reads the tensor, and the last; false where none does. */
static bool life_of(const kp_graph *graph, const kp_tensor *tensor, int *first, int *last) {
  bool used = false;
  for (int n = 0; n < graph->node_count; n++) {
    const kp_node *node = graph->nodes[n];
    bool here = false;
    for (int i = 0; i < node->inputs; i++) here |= node->input[i] == tensor;
    for (int i = 0; i < node->outputs; i++) here |= node->output[i] == tensor;
    if (!here) continue;
    if (!used) *first = n;
    *last = n;
    used = true;
  }
  if (tensor->keep) *last = graph->node_count;
  if (tensor->role != KP_ROLE_ACTIVATION) *first = 0, *last = graph->node_count;
  return used || tensor->role != KP_ROLE_ACTIVATION;
}

static regions regions_of(const kp_graph *graph, const kp_plan *plan, const kp_backend *backend,
                          int threads) {
  regions all = {calloc((size_t)(graph->tensor_count + graph->node_count), sizeof(region)), 0};
  assert_non_null(all.list);
  for (int i = 0; i < graph->tensor_count; i++) {
    const kp_tensor *tensor = graph->tensors[i];
    const bool planned = tensor->role == KP_ROLE_ACTIVATION || tensor->role == KP_ROLE_INPUT ||
                         tensor->role == KP_ROLE_CONSTANT;
    region r = {.tensor = tensor, .begin = plan->offset[i]};
    if (!planned || !life_of(graph, tensor, &r.first, &r.last)) continue;
    r.end = r.begin + (size_t)kp_tensor_count(tensor) * kp_type_size(backend, tensor->type);
    all.list[all.count++] = r;
  }
  for (int n = 0; n < graph->node_count; n++) {
    const kp_scratch_size size =
        backend->scratch == NULL ? NULL : backend->scratch[graph->nodes[n]->operation];
    const size_t bytes = size == NULL ? 0 : size(graph->nodes[n], threads);
    if (bytes > 0)
      all.list[all.count++] = (region){NULL, n, n, plan->scratch_offset[n], plan->scratch_offset[n] + bytes};
  }
  return all;
}

/* Whether `later` may take over the memory of `earlier`: the node that makes it says so in the table, and it
 * is the last and only reader. */
static bool may_take_over(const kp_graph *graph, const region *earlier, const region *later) {
  if (earlier->tensor == NULL || later->tensor == NULL || earlier->last != later->first) return false;
  if (earlier->tensor->role != KP_ROLE_ACTIVATION || earlier->last >= graph->node_count) return false;
  const kp_node *node = graph->nodes[earlier->last];
  const int output = node->row->inplace_output, input = node->row->inplace_input;
  if (output < 0 || node->output[output] != later->tensor || node->input[input] != earlier->tensor)
    return false;
  int readers = 0;
  for (int i = 0; i < node->inputs; i++) readers += node->input[i] == earlier->tensor;
  return readers == 1 && earlier->begin == later->begin && earlier->end == later->end;
}

static void check_pair(const kp_graph *graph, const region *a, const region *b) {
  const bool together = a->first <= b->last && b->first <= a->last;
  const bool overlap = a->begin < b->end && b->begin < a->end;
  if (!together || !overlap || may_take_over(graph, a, b) || may_take_over(graph, b, a)) return;
  fail_msg("%s and %s share memory while both are alive", a->tensor == NULL ? "scratch" : a->tensor->name,
           b->tensor == NULL ? "scratch" : b->tensor->name);
}

/* Checks a plan in full; returns arena / live peak. */
static double check_plan(const kp_graph *graph, const kp_backend *backend, int threads) {
  kp_plan *plan = kp_plan_create(graph, backend, threads);
  regions all = regions_of(graph, plan, backend, threads);
  size_t peak = 0;
  for (int i = 0; i < all.count; i++) {
    assert_int_equal(all.list[i].begin % 64, 0);
    assert_true(all.list[i].end <= plan->arena_bytes);
    for (int j = i + 1; j < all.count; j++) check_pair(graph, &all.list[i], &all.list[j]);
  }
  for (int n = 0; n < graph->node_count; n++) { /* what is alive between two nodes */
    size_t live = 0;
    for (int i = 0; i < all.count; i++)
      if (all.list[i].first <= n && n < all.list[i].last) live += all.list[i].end - all.list[i].begin;
    peak = live > peak ? live : peak;
  }
  assert_true(plan->arena_bytes >= plan->live_peak_bytes);
  assert_true(plan->live_peak_bytes >= peak);
  const double ratio = (double)plan->arena_bytes / (double)plan->live_peak_bytes;
  free(all.list);
  kp_plan_destroy(plan);
  return ratio;
}

/* ---- small graphs whose plan is known ---- */

static size_t arena_of(const kp_graph *graph) {
  kp_plan *plan = kp_plan_create(graph, kp_backend_ref(), 1);
  const size_t bytes = plan->arena_bytes;
  check_plan(graph, kp_backend_ref(), 1);
  kp_plan_destroy(plan);
  return bytes;
}

enum { COLUMN_BYTES = 8 * 8 }; /* eight doubles: one cache line */

static const int64_t line = 8;

static kp_tensor *line_input(kp_graph *graph) {
  return kp_graph_input(graph, "x", KP_TYPE_REAL, 1, &line);
}

/* A chain of scales needs the input and one more line, however long it is. */
static void test_in_place_chain(void **state) {
  (void)state;
  kp_graph *graph = kp_graph_create(kp_operator_table);
  kp_tensor *x = line_input(graph);
  for (int i = 0; i < 20; i++) x = kp_scale(graph, x, 2);
  assert_int_equal(arena_of(graph), 2 * COLUMN_BYTES);
  kp_graph_destroy(graph);
}

/* Not in place: an input of the caller, a kept tensor, one that is read later, one that is read twice. */
static void test_not_in_place(void **state) {
  (void)state;
  kp_graph *graph = kp_graph_create(kp_operator_table);
  kp_tensor *x = line_input(graph), *a = kp_scale(graph, x, 2), *b = kp_scale(graph, a, 3);
  kp_graph_keep(a);
  kp_add(graph, a, b);
  kp_plan *plan = kp_plan_create(graph, kp_backend_ref(), 1);
  assert_true(plan->offset[x->id] != plan->offset[a->id]);
  assert_true(plan->offset[a->id] != plan->offset[b->id]);
  kp_plan_destroy(plan);
  check_plan(graph, kp_backend_ref(), 1);
  kp_graph_destroy(graph);

  graph = kp_graph_create(kp_operator_table);
  a = kp_scale(graph, line_input(graph), 2);
  b = kp_add(graph, a, a);
  plan = kp_plan_create(graph, kp_backend_ref(), 1);
  assert_true(plan->offset[a->id] != plan->offset[b->id]);
  kp_plan_destroy(plan);
  kp_graph_destroy(graph);
}

static void test_in_place_pair(void **state) {
  (void)state;
  kp_graph *graph = kp_graph_create(kp_operator_table);
  kp_tensor *x = line_input(graph), *a = kp_scale(graph, x, 2), *b = kp_scale(graph, x, 3);
  kp_tensor *sum = kp_add(graph, a, b);
  kp_plan *plan = kp_plan_create(graph, kp_backend_ref(), 1);
  assert_int_equal(plan->offset[sum->id], plan->offset[a->id]);
  kp_plan_destroy(plan);
  assert_int_equal(arena_of(graph), 3 * COLUMN_BYTES);
  kp_graph_destroy(graph);
}

/* States are outside of the arena and are counted by themselves. */
static void test_states(void **state) {
  (void)state;
  kp_graph *graph = kp_graph_create(kp_operator_table);
  kp_tensor *kept = kp_graph_state(graph, "kept", KP_TYPE_REAL, 3, (int64_t[]){1, 2, 8});
  kp_tensor *x = kp_graph_input(graph, "x", KP_TYPE_REAL, 3, (int64_t[]){1, 1, 8});
  kp_store_rows(graph, x, kept, NULL, false);
  kp_plan *plan = kp_plan_create(graph, kp_backend_ref(), 1);
  assert_int_equal(plan->state_bytes, 2 * COLUMN_BYTES);
  assert_int_equal(plan->arena_bytes, COLUMN_BYTES);
  kp_plan_destroy(plan);
  kp_graph_destroy(graph);
}

static void test_empty_graph(void **state) {
  (void)state;
  kp_graph *graph = kp_graph_create(kp_operator_table);
  kp_plan *plan = kp_plan_create(graph, kp_backend_ref(), 1);
  assert_int_equal(plan->arena_bytes, 0);
  kp_plan_destroy(plan);
  kp_plan_destroy(NULL);
  kp_graph_destroy(graph);
}

/* ---- random graphs ---- */

static uint64_t below(uint64_t seed, uint64_t *index, uint64_t bound) {
  return kp_random_below(seed, 0, 0, (*index)++, bound);
}

/* A node of a random kind over random earlier tensors. */
static kp_tensor *random_node(kp_graph *graph, kp_tensor **made, int count, uint64_t seed, uint64_t *index) {
  kp_tensor *x = made[below(seed, index, (uint64_t)count)], *y = made[below(seed, index, (uint64_t)count)];
  switch (below(seed, index, 4)) {
  case 0: return kp_activation(graph, x, KP_SILU);
  case 1: return kp_scale(graph, x, 0.5);
  case 2:
    if (kp_tensor_same_shape(x, y)) return kp_add(graph, x, y);
    return kp_activation(graph, y, KP_GELU_ERF);
  default: {
    const int64_t shape[] = {1 + (int64_t)below(seed, index, 40), kp_tensor_columns(x)};
    return kp_linear(graph, x, kp_graph_parameter(graph, "w", 0, KP_TYPE_REAL, true, 2, shape), NULL);
  }
  }
}

static kp_graph *random_graph(uint64_t seed) {
  enum { NODES = 60 };
  kp_tensor *made[NODES + 2];
  uint64_t index = 0;
  kp_error error = {0};
  kp_graph *graph = kp_graph_create(kp_operator_table);
  made[0] = kp_graph_input(graph, "x", KP_TYPE_REAL, 2, (int64_t[]){3, 7});
  made[1] = kp_graph_input(graph, "y", KP_TYPE_REAL, 2, (int64_t[]){3, 20});
  for (int i = 2; i < NODES + 2; i++) {
    made[i] = random_node(graph, made, i, seed, &index);
    if (below(seed, &index, 10) == 0) kp_graph_keep(made[i]);
    made[i]->recompute = below(seed, &index, 3) == 0;
  }
  kp_tensor *out = made[NODES + 1];
  if (!out->needs_gradient || seed % 2 == 0) return graph;
  kp_tensor *gradient = kp_graph_input(graph, "seed", KP_TYPE_REAL, out->dimensions, out->shape);
  check_ok(kp_graph_backward(graph, out, gradient, &error), &error);
  return graph;
}

static void test_random_graphs(void **state) {
  (void)state;
  double worst = 0, sum = 0;
  enum { GRAPHS = 200 };
  for (uint64_t seed = 0; seed < GRAPHS; seed++) {
    kp_graph *graph = random_graph(seed);
    const double ratio = check_plan(graph, kp_backend_ref(), 1);
    worst = ratio > worst ? ratio : worst;
    sum += ratio / GRAPHS;
    kp_graph_destroy(graph);
  }
  print_message("random graphs: arena / live peak %.3f in the mean, %.3f at most\n", sum, worst);
  assert_true(worst <= 1.2);
}

/* ---- models ---- */

static double check_model(const kp_model_options *options, kp_build_mode mode, const kp_backend *backend,
                          int threads) {
  kp_error error = {0};
  const kp_build build = {.mode = mode, .batch = 3, .length = 8};
  kp_parameters *parameters = kp_parameters_create();
  kp_network *network;
  check_ok(kp_network_create(options, parameters, build, &network, &error), &error);
  const double ratio = check_plan(network->graph, backend, threads);
  kp_network_destroy(network);
  kp_parameters_destroy(parameters);
  return ratio;
}

static void test_models(void **state) {
  (void)state;
  double worst = 0;
  model_cases cases = model_cases_create();
  for (int i = 0; i < cases.count; i++) {
    kp_model_options options = cases.list[i].options;
    options.recompute = (kp_recompute)(i % (KP_RECOMPUTE_LINEARS + 1));
    const bool cacheable = kp_model_uncacheable(&options) == NULL;
    for (int mode = KP_BUILD_TRAIN; mode <= (cacheable ? KP_BUILD_DECODE : KP_BUILD_LOGITS); mode++) {
      const kp_backend *backend = i % 2 == 0 ? kp_backend_ref() : kp_backend_cpu();
      const double ratio = check_model(&options, (kp_build_mode)mode, backend, 1 + i % 4);
      worst = ratio > worst ? ratio : worst;
    }
  }
  model_cases_destroy(&cases);
  print_message("models: arena / live peak %.3f at most\n", worst);
  assert_true(worst <= 1.2);
}

/* ---- recomputation ---- */

typedef struct outcome {
  size_t arena, bytes;
  double loss;
  void *gradients;
} outcome;

static outcome train_with(const kp_model_options *base, kp_recompute recompute, const kp_backend *backend) {
  kp_model_options options = *base;
  options.recompute = recompute;
  model_run run = model_run_create(&options, backend, KP_BUILD_TRAIN);
  model_run_all(&run);
  outcome result = {.arena = kp_executor_plan(run.executor)->arena_bytes,
                    .bytes = (size_t)run.parameters->total * backend->real_size};
  kp_executor_read(run.executor, run.network->loss, &result.loss);
  result.gradients = malloc(result.bytes);
  assert_non_null(result.gradients);
  memcpy(result.gradients, run.parameters->gradients, result.bytes);
  model_run_destroy(&run);
  return result;
}

/* The same bits from less memory. */
static void check_recomputation(const char *settings, const kp_backend *backend) {
  kp_model_options options;
  outcome got[KP_RECOMPUTE_LINEARS + 1];
  if (!model_options_of(settings, &options)) fail_msg("refused: %s", settings);
  for (int r = KP_RECOMPUTE_NONE; r <= KP_RECOMPUTE_LINEARS; r++) {
    got[r] = train_with(&options, (kp_recompute)r, backend);
    assert_true(got[r].loss == got[0].loss);
    assert_memory_equal(got[r].gradients, got[0].gradients, got[0].bytes);
    if (r > 0 && got[r].arena >= got[r - 1].arena)
      fail_msg("%s: %zu bytes with recomputation %d, %zu with %d", settings, got[r].arena, r,
               got[r - 1].arena, r - 1);
  }
  for (int r = KP_RECOMPUTE_NONE; r <= KP_RECOMPUTE_LINEARS; r++) free(got[r].gradients);
  kp_model_options_destroy(&options);
}

static void test_recomputation(void **state) {
  (void)state;
  const kp_backend *backends[] = {kp_backend_ref(), kp_backend_cpu()};
  for (int b = 0; b < 2; b++) {
    check_recomputation("model.family=gpt model.layers=4 model.dropout=0.2", backends[b]);
    check_recomputation("model.family=gpt model.layers=4 model.positions=rotary", backends[b]);
    check_recomputation("model.family=mixed model.layers=4 model.curvature.mode=parametric", backends[b]);
    check_recomputation("model.family=mixed model.layers=4 model.curvature.dynamic=true", backends[b]);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_in_place_chain), cmocka_unit_test(test_not_in_place),
      cmocka_unit_test(test_in_place_pair),  cmocka_unit_test(test_states),
      cmocka_unit_test(test_empty_graph),    cmocka_unit_test(test_random_graphs),
      cmocka_unit_test(test_models),         cmocka_unit_test(test_recomputation),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
