/* Cases of mixtures of experts and of latent attention. */
#include <stdlib.h>

#include "support/check.h"
#include "support/operator_cases.h"

/* N = B·T tokens, E experts (inner), k choices (kind). */
static kp_routing routed(bench *b, const operator_case *c, kp_route_arguments arguments) {
  const int64_t shape[] = {c->batch, c->length, c->inner};
  kp_tensor *logits = bench_operand(b, "logits", 0, 1, 3, shape);
  kp_tensor *bias = c->option ? bench_frozen(b, "bias", 0, 0.3, 1, &c->inner) : NULL;
  kp_tensor *documents = NULL;
  if (c->option2) {
    const int64_t count = c->batch * c->length;
    int32_t *marks = malloc((size_t)count * sizeof *marks);
    assert_non_null(marks);
    for (int64_t i = 0; i < count; i++) marks[i] = i % 3 == 1 ? -1 : 0;
    documents = bench_index(b, "documents", 1, &count, marks);
    free(marks);
  }
  arguments.experts = (int)c->inner;
  arguments.choices = c->kind;
  return kp_route_tokens(b->graph, logits, bias, documents, arguments);
}

static kp_route_arguments plain_gate(void) {
  return (kp_route_arguments){.scale = 1};
}

/* ---- route, balance ---- */

static void build_route(bench *b, const operator_case *c) {
  const kp_route_arguments arguments = {.score = c->packed ? KP_GATE_SIGMOID : KP_GATE_SOFTMAX,
                                        .renormalise = c->causal,
                                        .scale = c->parameter,
                                        .groups = c->heads,
                                        .limited_groups = c->kv_heads};
  const kp_routing r = routed(b, c, arguments);
  bench_output(b, r.weights);
  bench_output(b, r.scores);
}

static void build_balance(bench *b, const operator_case *c) {
  const kp_routing r = routed(b, c, (kp_route_arguments){.score = KP_GATE_SIGMOID, .scale = 1});
  kp_tensor *documents = c->option2 ? b->index[0] : NULL;
  bench_output(b, kp_balance_loss(b->graph, &r, documents,
                                  (kp_balance_arguments){.alpha = 0.3,
                                                         .choices = c->kind + 1,
                                                         .length = c->packed ? c->length : 0}));
}

static void add_gates(operator_cases *cases) {
  static const int64_t shapes[][4] = {{1, 1, 1, 1}, {1, 5, 4, 2}, {2, 6, 12, 5}, {3, 11, 64, 6}};
  for (int s = 0; s < 4; s++)
    for (int variant = 0; variant < 8; variant++) {
      operator_case c = {.operation = KP_OP_ROUTE,
                         .build = build_route,
                         .batch = shapes[s][0],
                         .length = shapes[s][1],
                         .inner = shapes[s][2],
                         .kind = (int)shapes[s][3],
                         .parameter = variant & 1 ? 1.5 : 1,
                         .packed = variant & 2,
                         .causal = variant & 4,
                         .option = variant & 1,
                         .heads = 1,
                         .kv_heads = 1};
      c.heads = c.inner % 4 == 0 && variant % 3 == 1 ? 2 : 1;
      operator_cases_add(cases, c, "%d of %lld%s%s%s", c.kind, (long long)c.inner, c.packed ? " sigmoid" : "",
                         c.causal ? " renormalised" : "", c.heads > 1 ? " in groups" : "");
      if (c.causal) continue;
      c.operation = KP_OP_BALANCE_LOSS;
      c.build = build_balance;
      c.option2 = variant & 1;
      operator_cases_add(cases, c, "%d of %lld%s%s", c.kind, (long long)c.inner,
                         c.packed ? " a sequence" : "", c.option2 ? " with padding" : "");
    }
}

/* ---- rows ---- */

static kp_tensor *rows_operand(bench *b, const operator_case *c, const char *name, int64_t columns) {
  return bench_operand(b, name, 0, 1, 3, (int64_t[]){c->batch, c->length, columns});
}

static void build_gather(bench *b, const operator_case *c) {
  const kp_routing r = routed(b, c, plain_gate());
  kp_point x = {rows_operand(b, c, "x", c->columns), NULL};
  if (c->packed) x.time = rows_operand(b, c, "time", 1);
  x = kp_gather_rows(b->graph, x, &r);
  bench_output(b, x.space);
  bench_output(b, x.time);
  bench_output(b, r.weights);
}

/* Rows of uneven experts: every third has none. */
static kp_tensor *uneven_offsets(bench *b, const operator_case *c) {
  const int64_t bounds = c->inner + 1, rows = c->batch * c->length;
  int32_t *offsets = calloc((size_t)bounds, sizeof *offsets);
  assert_non_null(offsets);
  for (int64_t e = 0; e < c->inner; e++) {
    const int64_t left = rows - offsets[e];
    const int64_t own = e + 1 == c->inner ? left : e % 3 == 1 ? 0 : (left + 1) / 2;
    offsets[e + 1] = (int32_t)(offsets[e] + own);
  }
  kp_tensor *tensor = bench_index(b, "offsets", 1, &bounds, offsets);
  free(offsets);
  return tensor;
}

static void build_grouped(bench *b, const operator_case *c) {
  const int64_t R = c->batch * c->length, E = c->inner, K = c->columns, M = c->head_size;
  kp_tensor *offsets = uneven_offsets(b, c);
  kp_point x = {bench_operand(b, "x", 0, 1, 2, (int64_t[]){R, K}), NULL};
  kp_grouped_weights w = {.weight = bench_operand(b, "weight", 0, 1, 3, (int64_t[]){E, M, K})};
  if (c->option) w.bias = bench_operand(b, "bias", 0, 1, 2, (int64_t[]){E, M});
  if (c->option2) {
    x.time = bench_operand(b, "time", 2, 0.5, 1, &R);
    w.time = bench_operand(b, "time weight", 0, 1, 2, (int64_t[]){E, M});
  }
  if (c->packed) w.input_scale = bench_operand(b, "curvature in", 1.2, 0.1, 1, &E);
  if (c->causal) w.output_scale = bench_operand(b, "curvature out", 0.8, 0.1, 1, &E);
  bench_output(b, kp_grouped_linear(b->graph, x, offsets, w));
}

static void build_lift(bench *b, const operator_case *c) {
  const int64_t R = c->batch * c->length;
  kp_tensor *space = bench_operand(b, "space", 0, 1, 2, (int64_t[]){R, c->columns});
  kp_tensor *curvature = bench_operand(b, "curvature", 1.1, 0.2, 1, &c->inner);
  bench_output(b, kp_expert_lift(b->graph, space, uneven_offsets(b, c), curvature));
}

static void build_scale(bench *b, const operator_case *c) {
  kp_tensor *curvature = bench_operand(b, "curvature", 1.1, 0.2, 1, &c->inner);
  kp_tensor *reference =
      c->option ? bench_operand(b, "reference curvature", 0.9, 0.1, 1, (int64_t[]){1}) : NULL;
  bench_output(b, kp_expert_scale(b->graph, curvature, reference, c->packed));
}

static void add_rows(operator_cases *cases) {
  static const int64_t shapes[][5] = {
      {1, 1, 1, 1, 1},      {1, 7, 4, 5, 3},     {2, 13, 5, 17, 66},  {3, 31, 7, 65, 33}, {2, 9, 40, 9, 20},
      {1, 140, 1, 24, 210}, {1, 30, 2, 210, 20}, {1, 1400, 2, 33, 20}}; /* more than a tile each way */
  for (int s = 0; s < 8; s++)
    for (int variant = 0; variant < 16; variant += s < 5 ? 1 : 15) {
      operator_case c = {.operation = KP_OP_GROUPED_LINEAR,
                         .build = build_grouped,
                         .batch = shapes[s][0],
                         .length = shapes[s][1],
                         .inner = shapes[s][2],
                         .columns = shapes[s][3],
                         .head_size = (int)shapes[s][4],
                         .option = variant & 1,
                         .option2 = variant & 2,
                         .packed = variant & 4,
                         .causal = variant & 8,
                         .kind = 1};
      const long long E = c.inner, K = c.columns;
      operator_cases_add(cases, c, "%lld experts, %lld to %d%s%s%s%s", E, K, c.head_size,
                         c.option ? " bias" : "", c.option2 ? " time" : "", c.packed ? " in" : "",
                         c.causal ? " out" : "");
      if (variant & 2) continue;
      c.option = c.option2 = false;
      if (variant < 8) {
        c.operation = KP_OP_GATHER_ROWS, c.build = build_gather;
        c.kind = c.inner > 2 ? 1 + 2 * (variant & 1) : 1;
        operator_cases_add(cases, c, "%lld, %d of %lld%s", K, c.kind, E, c.packed ? " with time" : "");
        c.operation = KP_OP_EXPERT_SCALE, c.build = build_scale, c.option = variant & 1;
        operator_cases_add(cases, c, "%lld%s", E, c.packed ? " inverse" : "");
      }
      if (variant > 0) continue;
      c.operation = KP_OP_EXPERT_LIFT, c.build = build_lift;
      operator_cases_add(cases, c, "%lld rows of %lld", (long long)(c.batch * c.length), K);
    }
}

/* ---- combine ---- */

static void build_combine(bench *b, const operator_case *c) {
  const int64_t rows = c->batch * c->length * c->kind;
  kp_routing r = routed(b, c, plain_gate());
  r.weights = bench_operand(b, "weights", 0.6, 0.15, 2, (int64_t[]){c->batch * c->length, c->kind});
  kp_tensor *y = bench_operand(b, "rows", 0, c->deviation, 2, (int64_t[]){rows, c->columns}), *shared[2];
  for (int i = 0; i < c->heads; i++) shared[i] = rows_operand(b, c, i ? "second" : "first", c->columns);
  kp_tensor *curvature = c->packed ? bench_operand(b, "curvature", 1.2, 0.1, 1, (int64_t[]){1}) : NULL;
  const kp_combine_arguments arguments = {
      .kind = (kp_combine_kind)c->update, .scale = 2, .floor = c->update == KP_COMBINE_FOLD ? 1e-4 : 0};
  const kp_point out = kp_expert_combine(b->graph, y, &r, curvature, shared, c->heads, arguments);
  bench_output(b, out.space);
  bench_output(b, out.time);
}

static void add_combinations(operator_cases *cases) {
  static const int64_t shapes[][5] = {{1, 1, 1, 1, 1}, {1, 3, 7, 4, 2}, {2, 9, 33, 6, 3}, {2, 5, 300, 8, 6}};
  static const char *const kinds[] = {"flat", "centroid", "fold"};
  for (int s = 0; s < 4; s++)
    for (int kind = 0; kind < 3; kind++)
      for (int shared = 0; shared < (kind == KP_COMBINE_FOLD ? 1 : 3); shared++)
        for (int curved = 0; curved < (kind == KP_COMBINE_FLAT ? 1 : 2); curved++) {
          operator_case c = {.operation = KP_OP_EXPERT_COMBINE,
                             .build = build_combine,
                             .batch = shapes[s][0],
                             .length = shapes[s][1],
                             .columns = shapes[s][2],
                             .inner = shapes[s][3],
                             .kind = (int)shapes[s][4],
                             .update = kind,
                             .heads = shared,
                             .packed = curved,
                             .deviation = 0.8};
          operator_cases_add(cases, c, "%s %d of %lld, %d shared, %lld%s", kinds[kind], c.kind,
                             (long long)c.inner, shared, (long long)c.columns, curved ? " curved" : "");
        }
}

/* ---- latent attention ---- */

static void build_latent(bench *b, const operator_case *c) {
  const kp_latent_keys_arguments arguments = {
      .heads = c->heads, .plain_size = c->kv_heads, .rope_size = c->kind, .value_size = c->head_size};
  kp_tensor *z = rows_operand(b, c, "z", c->heads * (c->kv_heads + c->head_size));
  kp_tensor *rope = c->kind > 0 ? rows_operand(b, c, "rope", c->kind) : NULL;
  const kp_latent out = kp_latent_keys(b->graph, z, rope, arguments);
  if (!c->option) bench_output(b, out.keys);
  bench_output(b, out.values);
}

static void build_split(bench *b, const operator_case *c) {
  const kp_columns out = kp_split_columns(b->graph, rows_operand(b, c, "x", c->columns), c->kind);
  bench_output(b, out.left);
  if (!c->option) bench_output(b, out.right);
}

static void add_latent(operator_cases *cases) {
  static const int sizes[][4] = {{1, 1, 0, 1}, {2, 3, 2, 5}, {3, 0, 4, 7}, {4, 17, 8, 16}};
  for (int s = 0; s < 4; s++)
    for (int half = 0; half < 2; half++) {
      operator_case c = {.operation = KP_OP_LATENT_KEYS,
                         .build = build_latent,
                         .batch = 2,
                         .length = 5,
                         .heads = sizes[s][0],
                         .kv_heads = sizes[s][1],
                         .kind = sizes[s][2],
                         .head_size = sizes[s][3],
                         .option = half};
      operator_cases_add(cases, c, "%d heads %d+%d, %d%s", c.heads, c.kv_heads, c.kind, c.head_size,
                         half ? " values only" : "");
      c.operation = KP_OP_SPLIT_COLUMNS, c.build = build_split;
      c.kind = 1 + 3 * s, c.columns = c.kind + 2 + s;
      operator_cases_add(cases, c, "%d of %lld%s", c.kind, (long long)c.columns, half ? " left only" : "");
    }
}

void operator_cases_experts(operator_cases *cases) {
  add_gates(cases);
  add_rows(cases);
  add_combinations(cases);
  add_latent(cases);
}
