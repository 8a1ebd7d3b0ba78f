/* Cases of the flat operators: element-wise ones, embedding, linear maps, loss, positions, rows. */
#include <stdlib.h>

#include "support/check.h"
#include "support/operator_cases.h"

static kp_tensor *rows_operand(bench *b, const operator_case *c, const char *name) {
  return bench_operand(b, name, 0, c->deviation, 3, (int64_t[]){c->batch, c->length, c->columns});
}

/* Indices that repeat: i · stride mod limit. */
static kp_tensor *indices(bench *b, const operator_case *c, const char *name, int stride, int64_t limit) {
  const int64_t count = c->batch * c->length;
  int32_t *values = malloc((size_t)count * sizeof *values);
  assert_non_null(values);
  for (int64_t i = 0; i < count; i++) values[i] = (int32_t)(i * stride % limit);
  kp_tensor *tensor = bench_index(b, name, 2, (int64_t[]){c->batch, c->length}, values);
  free(values);
  return tensor;
}

/* ---- element by element ---- */

static void build_add(bench *b, const operator_case *c) {
  kp_tensor *x = rows_operand(b, c, "x");
  bench_output(b, kp_add(b->graph, x, c->option ? x : rows_operand(b, c, "y")));
}

static void build_scale(bench *b, const operator_case *c) {
  bench_output(b, kp_scale(b->graph, rows_operand(b, c, "x"), c->parameter));
}

static void build_sum(bench *b, const operator_case *c) {
  bench_output(b, kp_sum(b->graph, rows_operand(b, c, "x"), c->parameter));
}

static void build_activation(bench *b, const operator_case *c) {
  bench_output(b, kp_activation(b->graph, rows_operand(b, c, "x"), (kp_activation_kind)c->kind));
}

static void build_gated(bench *b, const operator_case *c) {
  kp_tensor *u = rows_operand(b, c, "u");
  kp_tensor *gate = c->packed ? NULL : rows_operand(b, c, "gate");
  bench_output(b, kp_gated_activation(b->graph, u, gate, (kp_activation_kind)c->kind));
}

static void build_dropout(bench *b, const operator_case *c) {
  bench_output(b, kp_dropout(b->graph, rows_operand(b, c, "x"), c->parameter, 5));
}

static void build_curvature(bench *b, const operator_case *c) {
  bench_output(b, kp_curvature(b->graph, rows_operand(b, c, "theta"), (kp_curvature_map)c->kind));
}

static void add_elementwise(operator_cases *cases) {
  static const int64_t shapes[][3] = {{1, 1, 1}, {2, 3, 5}, {3, 7, 33}, {2, 9, 130}};
  static const char *const activations[] = {"gelu_erf", "gelu_tanh", "silu"};
  static const char *const maps[] = {"identity", "negate", "tanh", "softplus", "sigmoid"};
  for (int s = 0; s < 4; s++) {
    operator_case c = {
        .batch = shapes[s][0], .length = shapes[s][1], .columns = shapes[s][2], .deviation = 1};
    const long long width = c.columns;
    operator_case add = c, scale = c, sum = c;
    add.operation = KP_OP_ADD, add.build = build_add;
    operator_cases_add(cases, add, "%lld", width);
    add.option = true;
    operator_cases_add(cases, add, "to itself %lld", width);
    scale.operation = KP_OP_SCALE, scale.build = build_scale, scale.parameter = -0.7;
    operator_cases_add(cases, scale, "%lld", width);
    sum.operation = KP_OP_SUM, sum.build = build_sum, sum.parameter = 0.3;
    operator_cases_add(cases, sum, "%lld", width);
    for (int kind = 0; kind < 3; kind++) {
      operator_case a = c;
      a.kind = kind, a.deviation = 2;
      a.operation = KP_OP_ACTIVATION, a.build = build_activation;
      operator_cases_add(cases, a, "%s %lld", activations[kind], width);
      a.operation = KP_OP_GATED_ACTIVATION, a.build = build_gated;
      operator_cases_add(cases, a, "%s %lld", activations[kind], width);
      a.packed = true, a.columns *= 2;
      operator_cases_add(cases, a, "%s packed %lld", activations[kind], width);
    }
    for (int kind = 0; kind < 5; kind++) {
      operator_case m = c;
      m.operation = KP_OP_CURVATURE, m.build = build_curvature, m.kind = kind;
      operator_cases_add(cases, m, "%s %lld", maps[kind], width);
    }
    for (int rate = 1; rate <= 9; rate += 4) {
      operator_case d = c;
      d.operation = KP_OP_DROPOUT, d.build = build_dropout, d.parameter = rate / 10.0;
      operator_cases_add(cases, d, "rate %.1f %lld", d.parameter, width);
    }
  }
}

/* ---- vocabulary and matrices ---- */

static void build_embedding(bench *b, const operator_case *c) {
  kp_tensor *table = bench_operand(b, "table", 0, 1, 2, (int64_t[]){c->inner, c->columns});
  kp_tensor *positions = NULL, *position_table = NULL;
  if (c->option) {
    positions = indices(b, c, "positions", 1, c->length);
    position_table = bench_operand(b, "position table", 0, 1, 2, (int64_t[]){c->length + 2, c->columns});
  }
  bench_output(
      b, kp_embedding(b->graph, indices(b, c, "tokens", 3, c->inner), table, positions, position_table));
}

static void build_linear(bench *b, const operator_case *c) {
  kp_tensor *x = rows_operand(b, c, "x");
  kp_tensor *weight = bench_operand(b, "weight", 0, 1, 2, (int64_t[]){c->inner, c->columns});
  kp_tensor *bias = c->option ? bench_operand(b, "bias", 0, 1, 1, &c->inner) : NULL;
  bench_output(b, kp_linear(b->graph, x, weight, bias));
}

/* One matrix for two maps, as a tied embedding is. */
static void build_linear_twice(bench *b, const operator_case *c) {
  kp_tensor *weight = bench_operand(b, "weight", 0, 0.5, 2, (int64_t[]){c->columns, c->columns});
  kp_tensor *once = kp_linear(b->graph, rows_operand(b, c, "x"), weight, NULL);
  bench_output(b, kp_linear(b->graph, once, weight, NULL));
}

/* Two maps of a sum's term: three gradients meet at it, one of them that of others as well. */
static void build_linear_of_term(bench *b, const operator_case *c) {
  const int64_t shape[] = {c->columns, c->columns};
  kp_tensor *first = bench_operand(b, "first", 0, 0.5, 2, shape);
  kp_tensor *second = bench_operand(b, "second", 0, 0.5, 2, shape);
  kp_tensor *x = kp_scale(b->graph, rows_operand(b, c, "x"), 1.5);
  kp_tensor *sum =
      kp_add(b->graph, kp_linear(b->graph, x, first, NULL), kp_linear(b->graph, x, second, NULL));
  bench_output(b, kp_add(b->graph, sum, x));
}

enum { IGNORED = -1 };

static void build_cross_entropy(bench *b, const operator_case *c) {
  const int64_t count = c->batch * c->length;
  kp_tensor *logits = rows_operand(b, c, "logits");
  int32_t *values = malloc((size_t)count * sizeof *values);
  assert_non_null(values);
  for (int64_t i = 0; i < count; i++)
    values[i] = c->option2 || (c->option && i % 3 == 1) ? IGNORED : (int32_t)(i * 5 % c->columns);
  kp_tensor *targets = bench_index(b, "targets", 2, (int64_t[]){c->batch, c->length}, values);
  free(values);
  bench_output(b, kp_cross_entropy(b->graph, logits, targets, IGNORED));
}

static void add_matrices(operator_cases *cases) {
  static const int64_t linears[][4] = {{1, 1, 1, 1},    {2, 3, 5, 7},     {1, 13, 17, 9},
                                       {3, 11, 65, 40}, {2, 31, 33, 129}, {2, 37, 35, 5}};
  static const int64_t vocabularies[][4] = {{1, 1, 2, 1}, {2, 5, 7, 5}, {2, 7, 50, 33}};
  static const int64_t losses[][3] = {{1, 1, 1}, {2, 3, 5}, {3, 5, 67}, {1, 7, 2500}};
  for (int s = 0; s < 6; s++)
    for (int bias = 0; bias < 2; bias++) {
      operator_case c = {.operation = KP_OP_LINEAR,
                         .build = build_linear,
                         .batch = linears[s][0],
                         .length = linears[s][1],
                         .columns = linears[s][2],
                         .inner = linears[s][3],
                         .deviation = 1,
                         .option = bias};
      operator_cases_add(cases, c, "%lld to %lld%s", (long long)c.columns, (long long)c.inner,
                         bias ? " with bias" : "");
    }
  operator_cases_add(cases,
                     (operator_case){.operation = KP_OP_LINEAR,
                                     .build = build_linear_twice,
                                     .batch = 2,
                                     .length = 3,
                                     .columns = 5,
                                     .deviation = 1},
                     "one matrix twice");
  for (int64_t columns = 5; columns < 80; columns += 36)
    operator_cases_add(cases,
                       (operator_case){.operation = KP_OP_LINEAR,
                                       .build = build_linear_of_term,
                                       .batch = 2,
                                       .length = 11,
                                       .columns = columns,
                                       .deviation = 1},
                       "two maps of a term, %lld", (long long)columns);
  for (int s = 0; s < 3; s++)
    for (int positions = 0; positions < 2; positions++) {
      operator_case c = {.operation = KP_OP_EMBEDDING,
                         .build = build_embedding,
                         .batch = vocabularies[s][0],
                         .length = vocabularies[s][1],
                         .inner = vocabularies[s][2],
                         .columns = vocabularies[s][3],
                         .option = positions};
      operator_cases_add(cases, c, "%lld x %lld%s", (long long)c.inner, (long long)c.columns,
                         positions ? " with positions" : "");
    }
  for (int s = 0; s < 4; s++)
    for (int ignored = 0; ignored < 3; ignored++) {
      operator_case c = {.operation = KP_OP_CROSS_ENTROPY,
                         .build = build_cross_entropy,
                         .batch = losses[s][0],
                         .length = losses[s][1],
                         .columns = losses[s][2],
                         .deviation = 2,
                         .option = ignored == 1,
                         .option2 = ignored == 2};
      operator_cases_add(cases, c, "%lld%s", (long long)c.columns,
                         ignored == 0   ? ""
                         : ignored == 1 ? " some ignored"
                                        : " all ignored");
    }
}

/* ---- along the sequence ---- */

static void build_select_row(bench *b, const operator_case *c) {
  bench_output(b, kp_select_row(b->graph, rows_operand(b, c, "x"), c->kind));
}

static void build_store_rows(bench *b, const operator_case *c) {
  kp_tensor *x = rows_operand(b, c, "x"), *seen = NULL;
  kp_tensor *state = bench_state(b, "state", 1, 3, (int64_t[]){c->batch, c->inner, c->columns});
  if (c->option) seen = bench_index(b, "seen", 1, (int64_t[]){1}, (int32_t[]){c->kind});
  kp_store_rows(b->graph, x, state, seen, c->option);
}

static void add_sequence(operator_cases *cases) {
  static const int windows[][2] = {{3, 1}, {3, 3}, {2, 5}, {7, 4}}; /* T, W */
  for (int row = -2; row < 3; row++)
    operator_cases_add(cases,
                       (operator_case){.operation = KP_OP_SELECT_ROW,
                                       .build = build_select_row,
                                       .batch = 3,
                                       .length = 4,
                                       .columns = 17,
                                       .kind = row,
                                       .deviation = 1},
                       "%d", row);
  for (int s = 0; s < 4; s++)
    operator_cases_add(cases,
                       (operator_case){.operation = KP_OP_STORE_ROWS,
                                       .build = build_store_rows,
                                       .batch = 2,
                                       .length = windows[s][0],
                                       .inner = windows[s][1],
                                       .columns = 19,
                                       .deviation = 1,
                                       .decoding = true},
                       "%d rows, %d kept", windows[s][0], windows[s][1]);
  for (int seen = 0; seen < 6; seen += 5)
    operator_cases_add(cases,
                       (operator_case){.operation = KP_OP_STORE_ROWS,
                                       .build = build_store_rows,
                                       .batch = 2,
                                       .length = 3,
                                       .inner = 1,
                                       .columns = 19,
                                       .deviation = 1,
                                       .option = true,
                                       .kind = seen,
                                       .decoding = true},
                       "mean after %d", seen);
}

void operator_cases_plain(operator_cases *cases) {
  add_elementwise(cases);
  add_matrices(cases);
  add_sequence(cases);
}
