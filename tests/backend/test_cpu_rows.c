/* The fast kernels of row programs, midpoints and reference points against the reference backend, on every
 * instruction set, at random shapes. */
#include "support/check.h"

#include <stdio.h>

#include "geometry/row_program.h"
#include "ops/ops.h"
#include "support/node_bench.h"
#include "support/random_rows.h"

/* ---- row programs ---- */

/* A parameter that each program with one can use. */
static double some_parameter(int program) {
  if (program == KP_PROGRAM_PROJECT) return 1e-3;
  return program == KP_PROGRAM_GEODESIC ? 0.3 : 1.7;
}

static void check_row_program(int program, int64_t N, int64_t D, int64_t G, int64_t K, bool backward) {
  const kp_row_program *row = &kp_row_programs[program];
  const int64_t C = D * G, width = row->scalar ? G : C;
  char what[128];
  snprintf(what, sizeof what, "%s%s, N %d D %d G %d K %d", row->name, backward ? " backward" : "", (int)N,
           (int)D, (int)G, (int)K);
  node_bench b = node_bench_create();
  for (int i = 0; i < row->inputs; i++)
    random_rows(node_bench_give_matrix(&b, i, KP_TYPE_REAL, N, C), N, C, 0.6, 0);
  double *kappa = node_bench_give_matrix(&b, 3, KP_TYPE_STATISTIC, K, G);
  for (int64_t i = 0; i < K * G; i++) kappa[i] = random_curvature();
  kp_row_program_arguments arguments = {program, some_parameter(program)};
  if (backward) {
    random_rows(node_bench_give_matrix(&b, 4, KP_TYPE_REAL, N, width), N, width, 1, 0);
    for (int i = 0; i < row->inputs; i++)
      if (row->inputs == 1 || random_choose(4) > 0) node_bench_want(&b, i, KP_TYPE_REAL, N, C);
    node_bench_want_sum(&b, 3, b.input[3]);
  } else {
    node_bench_want(&b, 0, KP_TYPE_REAL, N, width);
  }
  node_bench_round(&b);
  kp_graph_node(b.graph, backward ? KP_OP_ROW_PROGRAM_BACKWARD : KP_OP_ROW_PROGRAM, &arguments,
                sizeof arguments, backward ? 5 : 4, b.input, backward ? 4 : 1, b.output);
  node_bench_check(&b, backward ? NODE_GRADIENTS : NODE_RESULTS, 0, 0, what);
  node_bench_destroy(&b);
}

static void row_programs_agree(void **state) {
  (void)state;
  static const int64_t sizes[] = {3, 8, 21};
  for (int program = 0; program < KP_PROGRAM_COUNT; program++)
    for (int k = 0; k < 6; k++) {
      const int64_t N = 1 + random_choose(40), D = sizes[random_choose(3)], G = 1 + random_choose(3);
      const int64_t K = random_choose(2) == 0 ? 1 : N;
      check_row_program(program, N, D, G, K, false);
      check_row_program(program, N, D, G, K, true);
    }
  check_row_program(KP_PROGRAM_TRANSPORT, 200, 32, 4, 1, false);
  check_row_program(KP_PROGRAM_TRANSPORT, 200, 32, 4, 1, true);
}

/* ---- midpoints ---- */

static void check_midpoint(int64_t N, int64_t M, int64_t D, int64_t G, int64_t K, bool backward) {
  const int64_t C = D * G;
  char what[128];
  snprintf(what, sizeof what, "midpoint%s, N %d M %d D %d G %d K %d", backward ? " backward" : "", (int)N,
           (int)M, (int)D, (int)G, (int)K);
  node_bench b = node_bench_create();
  random_rows(node_bench_give(&b, 0, KP_TYPE_REAL, 3, (int64_t[]){N, M, C}), N * M, C, 0.6, 0);
  double *weights = node_bench_give_matrix(&b, 1, KP_TYPE_REAL, N, M);
  for (int64_t i = 0; i < N * M; i++) weights[i] = random_between(0.1, 1);
  double *kappa = node_bench_give_matrix(&b, 2, KP_TYPE_STATISTIC, K, G);
  for (int64_t i = 0; i < K * G; i++) kappa[i] = random_curvature();
  if (backward) {
    random_rows(node_bench_give_matrix(&b, 3, KP_TYPE_REAL, N, C), N, C, 1, 0);
    node_bench_want(&b, 0, KP_TYPE_REAL, N * M, C);
    node_bench_want(&b, 1, KP_TYPE_REAL, N, M);
    node_bench_want_sum(&b, 2, b.input[2]);
  } else {
    node_bench_want(&b, 0, KP_TYPE_REAL, N, C);
  }
  node_bench_round(&b);
  kp_graph_node(b.graph, backward ? KP_OP_MIDPOINT_BACKWARD : KP_OP_MIDPOINT, NULL, 0, backward ? 4 : 3,
                b.input, backward ? 3 : 1, b.output);
  node_bench_check(&b, backward ? NODE_GRADIENTS : NODE_RESULTS, 0, 0, what);
  node_bench_destroy(&b);
}

static void midpoints_agree(void **state) {
  (void)state;
  static const int64_t sizes[] = {1, 5, 16, 21};
  for (int k = 0; k < 30; k++) {
    const int64_t N = 1 + random_choose(20), M = 2 + random_choose(8), D = sizes[random_choose(4)],
                  G = 1 + random_choose(3);
    const int64_t K = random_choose(2) == 0 ? 1 : N;
    check_midpoint(N, M, D, G, K, false);
    check_midpoint(N, M, D, G, K, true);
  }
  check_midpoint(60, 8, 48, 1, 1, false);
  check_midpoint(60, 8, 48, 1, 1, true);
}

/* ---- reference points ---- */

typedef struct reference_case {
  kp_reference_kind kind;
  int64_t B, T, D, G, K;
  int window;
  int32_t seen; /* in decoding; -1: no history */
  bool documents;
} reference_case;

static void check_reference(const reference_case *r, bool backward) {
  const int64_t N = r->B * r->T, C = r->D * r->G;
  char what[160];
  snprintf(what, sizeof what, "reference %d%s, B %d T %d D %d G %d K %d, window %d, seen %d", (int)r->kind,
           backward ? " backward" : "", (int)r->B, (int)r->T, (int)r->D, (int)r->G, (int)r->K, r->window,
           (int)r->seen);
  node_bench b = node_bench_create();
  int32_t seen = r->seen, numbers[256] = {0};
  assert_true(N <= 256);
  random_rows(node_bench_give_matrix(&b, 0, KP_TYPE_REAL, N, C), N, C, 1.2, 0);
  double *kappa = node_bench_give_matrix(&b, 1, KP_TYPE_STATISTIC, r->K, r->G);
  for (int64_t i = 0; i < r->K * r->G; i++) kappa[i] = random_curvature();
  if (backward) {
    random_rows(node_bench_give_matrix(&b, 2, KP_TYPE_REAL, N, C), N, C, 1, 0);
    node_bench_want_sum(&b, 1, b.input[1]);
  } else if (r->seen >= 0) {
    const int64_t held = r->kind == KP_REFERENCE_MIDPOINT ? r->window : 1;
    random_rows(node_bench_give(&b, 2, KP_TYPE_REAL, 3, (int64_t[]){r->B, held, C}), r->B * held, C, 1.2, 0);
    b.input[3] = kp_graph_input(b.graph, "seen", KP_TYPE_INT32, 1, (int64_t[]){1});
    b.tokens = &seen;
  }
  if (r->documents) {
    for (int64_t i = 1; i < N; i++) numbers[i] = numbers[i - 1] + (random_choose(4) == 0);
    b.input[backward ? 3 : 4] = kp_graph_input(b.graph, "documents", KP_TYPE_INT32, 1, &N);
    b.tokens = numbers;
  }
  node_bench_want(&b, 0, KP_TYPE_REAL, N, C);
  node_bench_round(&b);
  const kp_reference_arguments arguments = {r->kind, r->T, r->window};
  kp_graph_node(b.graph, backward ? KP_OP_REFERENCE_BACKWARD : KP_OP_REFERENCE, &arguments, sizeof arguments,
                backward ? 4 : 5, b.input, backward ? 2 : 1, b.output);
  node_bench_check(&b, backward ? NODE_GRADIENTS : NODE_RESULTS, 0, 0, what);
  node_bench_destroy(&b);
}

static void references_agree(void **state) {
  (void)state;
  static const int64_t lengths[] = {1, 2, 9, 20}, sizes[] = {1, 5, 16, 70};
  for (int k = 0; k < 60; k++) {
    reference_case r = {(kp_reference_kind)(k % 3), 1 + random_choose(3),
                        lengths[random_choose(4)],  sizes[random_choose(4)],
                        1 + random_choose(2),       1,
                        1 + random_choose(6),       -1,
                        random_choose(2) == 0};
    if (random_choose(2) == 0) r.K = r.B * r.T;
    check_reference(&r, false);
    check_reference(&r, true);
    r.documents = false;
    r.seen = random_choose(12);
    check_reference(&r, false);
  }
  for (int kind = 0; kind < 3; kind++) {
    for (int documents = 0; documents < 2; documents++) {
      const reference_case large = {(kp_reference_kind)kind, 3, 70, 48, 2, 1, 4, -1, documents == 1};
      check_reference(&large, false);
      check_reference(&large, true);
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(row_programs_agree),
      cmocka_unit_test(midpoints_agree),
      cmocka_unit_test(references_agree),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
