/* Cases of the geometric operators by themselves: row programs, midpoints and reference points. */
#include "support/operator_cases.h"

static int64_t rows_of(const operator_case *c) {
  return c->batch * c->length;
}

static void build_row_program(bench *b, const operator_case *c) {
  static const char *const names[] = {"v1", "v2", "v3"};
  kp_tensor *v[3] = {NULL, NULL, NULL};
  for (int i = 0; i < kp_row_programs[c->kind].inputs; i++)
    v[i] = bench_operand(b, names[i], 0, c->deviation, 3, (int64_t[]){c->batch, c->length, c->columns});
  kp_tensor *curvature = operator_case_curvature(b, c, "curvature");
  bench_output(b, kp_curved_map(b->graph, c->kind, c->parameter, v, curvature));
}

static void build_midpoint(bench *b, const operator_case *c) {
  kp_tensor *points =
      bench_operand(b, "points", 0, c->deviation, 3, (int64_t[]){rows_of(c), c->inner, c->columns});
  kp_tensor *weights = bench_operand(b, "weights", 1, 0.3, 2, (int64_t[]){rows_of(c), c->inner});
  bench_output(b, kp_midpoint(b->graph, points, weights, operator_case_curvature(b, c, "curvature")));
}

/* `inner` is the window; `option`: after `parameter` rows that are in a history; `packed`: documents of one
 * to five rows. */
static void build_reference(bench *b, const operator_case *c) {
  const kp_reference_arguments arguments = {(kp_reference_kind)c->kind, c->length, (int)c->inner};
  const int64_t held = c->kind == KP_REFERENCE_MIDPOINT ? c->inner : 1;
  kp_tensor *history = NULL, *seen = NULL, *curvature = NULL, *documents = NULL;
  kp_tensor *stream =
      bench_operand(b, "stream", 0, c->deviation, 3, (int64_t[]){c->batch, c->length, c->columns});
  if (c->kind == KP_REFERENCE_MIDPOINT) curvature = operator_case_curvature(b, c, "curvature");
  if (c->option) {
    history = bench_state(b, "history", c->deviation, 3, (int64_t[]){c->batch, held, c->columns});
    seen = bench_index(b, "seen", 1, (int64_t[]){1}, (int32_t[]){(int32_t)c->parameter});
  }
  if (c->packed) {
    int32_t numbers[128];
    for (int64_t i = 0; i < rows_of(c) && i < 128; i++)
      numbers[i] = (int32_t)(i % c->length * 3 / (4 + i % 5 * 2));
    documents = bench_index(b, "documents", 2, (int64_t[]){c->batch, c->length}, numbers);
  }
  bench_output(b, kp_reference(b->graph, stream, curvature, history, seen, documents, arguments));
}

static bool is_upstream(int program) {
  return program >= KP_PROGRAM_UPSTREAM_ADD && program <= KP_PROGRAM_UPSTREAM_UPDATE;
}

static void add_row_programs(operator_cases *cases) {
  /* The published code clamps its curvature: smooth only inside. */
  static const double upstream_kappas[] = {-0.02, -0.3, -0.9};
  static const int64_t shapes[][4] = {
      {2, 3, 6, 1}, {2, 3, 6, 2}, {2, 5, 33, 3}, {1, 4, 130, 1}}; /* B, T, C, G */
  int number = 0;
  for (int program = 0; program < KP_PROGRAM_COUNT; program++)
    for (int k = 0; k < (is_upstream(program) ? 3 : CASE_KAPPAS); k++)
      for (int s = 0; s < 4; s++) {
        operator_case c = {.operation = KP_OP_ROW_PROGRAM,
                           .build = build_row_program,
                           .kind = program,
                           .batch = shapes[s][0],
                           .length = shapes[s][1],
                           .columns = shapes[s][2],
                           .groups = shapes[s][3],
                           .curvatures = (case_curvatures)(number++ % CASE_K_COUNT),
                           .kappa = is_upstream(program) ? upstream_kappas[k] : case_kappas[k],
                           .parameter = program == KP_PROGRAM_PROJECT ? 1e-3 : 0.3,
                           .deviation = shapes[s][2] > 100  ? 0.02
                                        : shapes[s][2] > 10 ? 0.05
                                                            : 0.1};
        operator_cases_add(cases, c, "%s kappa %g C %lld G %lld K %d", kp_row_programs[program].name, c.kappa,
                           (long long)c.columns, (long long)c.groups, c.curvatures);
      }
}

static void add_midpoints(operator_cases *cases) {
  static const int64_t shapes[][4] = {
      {2, 1, 6, 1}, {2, 3, 6, 2}, {5, 1, 33, 3}, {4, 4, 130, 1}}; /* M, T, C, G */
  int number = 0;
  for (int k = 0; k < CASE_KAPPAS; k++)
    for (int s = 0; s < 4; s++) {
      operator_case c = {.operation = KP_OP_MIDPOINT,
                         .build = build_midpoint,
                         .batch = 2,
                         .length = shapes[s][1],
                         .inner = shapes[s][0],
                         .columns = shapes[s][2],
                         .groups = shapes[s][3],
                         .curvatures = (case_curvatures)(number++ % CASE_K_COUNT),
                         .kappa = case_kappas[k],
                         .deviation = shapes[s][2] > 100  ? 0.02
                                      : shapes[s][2] > 10 ? 0.05
                                                          : 0.1};
      operator_cases_add(cases, c, "of %lld kappa %g C %lld G %lld K %d", (long long)c.inner, c.kappa,
                         (long long)c.columns, (long long)c.groups, c.curvatures);
    }
}

static void add_references(operator_cases *cases) {
  static const char *const kinds[] = {"previous", "mean", "midpoint"};
  static const int64_t shapes[][4] = {
      {1, 1, 1, 5}, {4, 6, 1, 1}, {5, 6, 2, 3}, {9, 33, 3, 4}}; /* T, C, G, W */
  int number = 0;
  for (int kind = KP_REFERENCE_PREVIOUS; kind <= KP_REFERENCE_MIDPOINT; kind++)
    for (int k = 0; k < (kind == KP_REFERENCE_MIDPOINT ? CASE_KAPPAS : 1); k++)
      for (int s = 0; s < 4; s++)
        for (int seen = -1; seen < 8; seen += seen < 0 ? 1 : seen == 0 ? 2 : 5) {
          operator_case c = {.operation = KP_OP_REFERENCE,
                             .build = build_reference,
                             .kind = kind,
                             .batch = 2,
                             .length = shapes[s][0],
                             .columns = shapes[s][1],
                             .groups = shapes[s][2],
                             .inner = shapes[s][3],
                             .curvatures = (case_curvatures)(number++ % CASE_K_COUNT),
                             .kappa = case_kappas[k],
                             .parameter = seen,
                             .option = seen >= 0,
                             .decoding = seen >= 0,
                             .deviation = 0.2};
          operator_cases_add(cases, c, "%s of %lld kappa %g T %lld C %lld seen %d", kinds[kind],
                             (long long)c.inner, c.kappa, (long long)c.length, (long long)c.columns, seen);
          if (seen >= 0) continue;
          c.packed = true;
          operator_cases_add(cases, c, "%s of %lld kappa %g T %lld C %lld documents", kinds[kind],
                             (long long)c.inner, c.kappa, (long long)c.length, (long long)c.columns);
        }
}

void operator_cases_geometry(operator_cases *cases) {
  add_row_programs(cases);
  add_midpoints(cases);
  add_references(cases);
}
