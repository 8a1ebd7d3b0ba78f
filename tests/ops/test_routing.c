/* What a routing promises beyond its gradients, on every backend: distinct experts in descending order of
 * score, the lower number first where scores tie; rows sorted by expert, stably; counts without padding; a
 * score that is not a number chosen first. */
#include <math.h>
#include <stdlib.h>

#include "support/bench.h"
#include "support/check.h"
#include "support/isa.h"

enum { TOKENS = 23, EXPERTS = 6, CHOICES = 3 };

typedef struct result {
  double indices[TOKENS * CHOICES], order[TOKENS * CHOICES], slot[TOKENS * CHOICES], offsets[EXPERTS + 1],
      counts[EXPERTS], weights[TOKENS * CHOICES];
} result;

/* Small whole numbers, so that many tie. */
static double logit(int n, int e) {
  return (n * 7 + e * e * 3) % 4;
}

static bool is_padding(int n) {
  return n % 5 == 4;
}

static void run(const kp_backend *backend, kp_route_arguments arguments, double spoiled, result *out) {
  kp_error error = {0};
  int32_t documents[TOKENS];
  const int64_t count = TOKENS;
  bench *b = bench_create(false);
  kp_tensor *logits = bench_operand(b, "logits", 0, 1, 2, (int64_t[]){TOKENS, EXPERTS});
  for (int n = 0; n < TOKENS; n++) {
    documents[n] = is_padding(n) ? -1 : n / 3;
    for (int e = 0; e < EXPERTS; e++) b->value[0][n * EXPERTS + e] = logit(n, e);
  }
  b->value[0][2 * EXPERTS + 4] += spoiled;
  kp_tensor *marks = bench_index(b, "documents", 1, &count, documents);
  arguments.experts = EXPERTS;
  arguments.choices = CHOICES;
  arguments.scale = 1;
  const kp_routing r = kp_route_tokens(b->graph, logits, NULL, marks, arguments);
  kp_tensor *const tensors[] = {r.indices, r.order, r.slot, r.offsets, r.counts, r.weights};
  double *const values[] = {out->indices, out->order, out->slot, out->offsets, out->counts, out->weights};
  for (int i = 0; i < 6; i++) kp_graph_keep(tensors[i]);
  check_ok(bench_start(b, backend, 2, &error), &error);
  check_ok(kp_executor_run(b->executor, 0, b->graph->node_count, &error), &error);
  for (int i = 0; i < 6; i++) kp_executor_read(b->executor, tensors[i], values[i]);
  bench_destroy(b);
}

static bool comes_before(int n, int a, int b) {
  return logit(n, a) > logit(n, b) || (logit(n, a) == logit(n, b) && a < b);
}

/* The place of expert e in token n's order of preference among the experts [first, last). */
static int place_of(int n, int e, int first, int last) {
  int place = 0;
  for (int other = first; other < last; other++) place += comes_before(n, other, e);
  return place;
}

static void check_sorted(const result *r) {
  double counts[EXPERTS] = {0};
  assert_int_equal(r->offsets[0], 0);
  assert_int_equal(r->offsets[EXPERTS], TOKENS * CHOICES);
  for (int i = 0; i < TOKENS * CHOICES; i++) {
    const int e = (int)r->indices[i], row = (int)r->slot[i];
    assert_in_range(row, (int)r->offsets[e], (int)r->offsets[e + 1] - 1);
    assert_int_equal(r->order[row], i / CHOICES);
    if (row > r->offsets[e]) assert_true(r->order[row - 1] <= r->order[row]);
    counts[e] += !is_padding(i / CHOICES);
  }
  for (int e = 0; e < EXPERTS; e++) assert_int_equal(r->counts[e], counts[e]);
}

static void check_order(const kp_backend *backend, kp_gate_score score) {
  result r;
  run(backend, (kp_route_arguments){.score = score}, 0, &r);
  for (int n = 0; n < TOKENS; n++)
    for (int j = 0; j < CHOICES; j++)
      assert_int_equal(place_of(n, (int)r.indices[n * CHOICES + j], 0, EXPERTS), j);
  check_sorted(&r);
}

/* Two groups of three experts, of which one is kept: all of it is chosen. */
static void check_groups(const kp_backend *backend) {
  result r;
  run(backend, (kp_route_arguments){.groups = 2, .limited_groups = 1}, 0, &r);
  for (int n = 0; n < TOKENS; n++) {
    const int first = (int)r.indices[n * CHOICES] / 3 * 3;
    double sum[2] = {0};
    for (int e = 0; e < EXPERTS; e++)
      if (place_of(n, e, e / 3 * 3, e / 3 * 3 + 3) < 2) sum[e / 3] += exp(logit(n, e));
    for (int j = 0; j < CHOICES; j++)
      assert_int_equal(place_of(n, (int)r.indices[n * CHOICES + j], first, first + 3), j);
    assert_true(first == 0 ? sum[0] >= sum[1] - 1e-12 : sum[1] > sum[0] - 1e-12);
  }
  check_sorted(&r);
}

static void check_not_a_number(const kp_backend *backend) {
  result r;
  run(backend, (kp_route_arguments){.score = KP_GATE_SIGMOID}, (double)NAN, &r);
  assert_int_equal(r.indices[2 * CHOICES], 4);
  assert_true(isnan(r.weights[2 * CHOICES]));
  check_sorted(&r);
}

static void test_routing(void **state) {
  (void)state;
  kp_test_isa isas[KP_TEST_ISAS];
  const int count = kp_test_isas(isas);
  for (int i = -1; i < count; i++) {
    const kp_backend *backend = i < 0 ? kp_backend_ref() : isas[i].backend;
    check_order(backend, KP_GATE_SOFTMAX);
    check_order(backend, KP_GATE_SIGMOID);
    check_groups(backend);
    check_not_a_number(backend);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_routing)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
