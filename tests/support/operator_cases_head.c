/* Cases of the operators between the last norm and the loss. */
#include <stdlib.h>

#include "support/check.h"
#include "support/operator_cases.h"

enum { IGNORED = -1 };

static kp_tensor *targets_of(bench *b, const operator_case *c) {
  const int64_t count = c->batch * c->length;
  int32_t *values = malloc((size_t)count * sizeof *values);
  assert_non_null(values);
  for (int64_t i = 0; i < count; i++)
    values[i] = c->option2 || (c->option && i % 3 == 1) ? IGNORED : (int32_t)(i * 5 % c->inner);
  kp_tensor *targets = bench_index(b, "targets", 2, (int64_t[]){c->batch, c->length}, values);
  free(values);
  return targets;
}

/* The parts of a head: what `kind` counts through in binary. */
enum { WITH_TIME = 1, WITH_SCALE = 2 };

static void build_linear_cross_entropy(bench *b, const operator_case *c) {
  kp_logit_head head = {
      .x.space = bench_operand(b, "x", 0, 1, 3, (int64_t[]){c->batch, c->length, c->columns}),
      .weight = bench_operand(b, "weight", 0, c->deviation, 2, (int64_t[]){c->inner, c->columns})};
  if (c->kind & WITH_TIME) {
    head.x.time = bench_operand(b, "time", 1, 0.5, 3, (int64_t[]){c->batch, c->length, 1});
    head.time_weight = bench_operand(b, "time weight", 0, 1, 1, &c->inner);
  }
  if (c->kind & WITH_SCALE) head.scale = bench_operand(b, "scale", 1, 0.3, 1, &c->inner);
  const kp_linear_cross_entropy_arguments arguments = {
      .ignore = IGNORED, .factor = c->parameter, .chunk_rows = c->heads, .chunk_vocabulary = c->head_size};
  kp_tensor *targets = targets_of(b, c);
  bench_output(b,
               c->operation == KP_OP_LINEAR_CROSS_ENTROPY
                   ? kp_linear_cross_entropy(b->graph, head, targets, arguments)
                   : kp_linear_cross_entropy_trained(b->graph, head, targets, bench_next_seed(b), arguments));
}

/* Shapes with the rows and entries of a chunk; 0: chosen.  Gradients through times cancel over so many
 * entries that float32 misses the bounds of the largest. */
static void add_linear_cross_entropy(operator_cases *cases, kp_operation operation) {
  enum { MANY = 1 << 16 };
  static const int shapes[][6] = {
      {1, 1, 1, 2, 0, 0},       {2, 3, 5, 7, 0, 0},        {2, 3, 5, 70, 4, 32},
      {1, 13, 17, 90, 5, 19},   {3, 5, 33, 67, 2, 67},     {2, 31, 24, 129, 62, 50},
      {2, 35, 9, 4099, 40, 64}, {2, 100, 3, 4096, 0, 999}, {1, 9, 3, 66003, 0, 0}};
  for (int s = 0; s < 9; s++)
    for (int kind = 0; kind < 4; kind++)
      for (int ignored = 0; ignored < 3; ignored++) {
        if (shapes[s][3] > MANY && kind & WITH_TIME) continue;
        operator_case c = {.operation = operation,
                           .build = build_linear_cross_entropy,
                           .batch = shapes[s][0],
                           .length = shapes[s][1],
                           .columns = shapes[s][2],
                           .inner = shapes[s][3],
                           .heads = shapes[s][4],
                           .head_size = shapes[s][5],
                           .deviation = 0.5,
                           .kind = kind,
                           .parameter = kind & WITH_SCALE ? 1.7
                                        : s % 2 == 0      ? 0
                                                          : 0.6,
                           .option = ignored == 1,
                           .option2 = ignored == 2};
        operator_cases_add(cases, c, "%d to %d%s%s%s", shapes[s][2], shapes[s][3],
                           kind & WITH_TIME ? " time" : "", kind & WITH_SCALE ? " scale" : "",
                           ignored == 0   ? ""
                           : ignored == 1 ? " some ignored"
                                          : " all ignored");
      }
}

/* Points of the hyperboloid: their times are lifted, so that the logits are distances.  Options: a learned c,
 * and times that are free. */
static void build_lorentz_mlr(bench *b, const operator_case *c) {
  const int64_t shape[] = {c->batch, c->length, c->columns}, one = 1;
  kp_point x = {.space = bench_operand(b, "x", 0, c->deviation, 3, shape)};
  kp_tensor *normals = bench_operand(b, "normals", 0, 0.7, 2, (int64_t[]){c->inner, c->columns});
  kp_tensor *offsets = bench_operand(b, "offsets", 0, 0.5, 1, &c->inner);
  kp_tensor *radius = c->option ? bench_operand(b, "curvature", c->parameter, 0.01, 1, &one) : NULL;
  x.time = c->option2 ? bench_operand(b, "time", 2, 0.5, 3, (int64_t[]){c->batch, c->length, 1})
                      : kp_lift(b->graph, x.space, 1, radius);
  bench_output(b, kp_lorentz_mlr(b->graph, x, normals, offsets, radius));
}

static void add_lorentz_mlr(operator_cases *cases) {
  static const int64_t shapes[][4] = {{1, 1, 2, 3}, {2, 3, 5, 7}, {2, 37, 16, 33}, {1, 9, 33, 130}};
  static const double curvatures[] = {1, 0.3, 4};
  for (int s = 0; s < 4; s++)
    for (int free_time = 0; free_time < 2; free_time++)
      for (int k = 0; k < 3; k++) {
        operator_case c = {.operation = KP_OP_LORENTZ_MLR,
                           .build = build_lorentz_mlr,
                           .batch = shapes[s][0],
                           .length = shapes[s][1],
                           .columns = shapes[s][2],
                           .inner = shapes[s][3],
                           .deviation = 0.8,
                           .parameter = curvatures[k],
                           .option = k > 0,
                           .option2 = free_time};
        operator_cases_add(cases, c, "%lld to %lld c %g%s", (long long)c.columns, (long long)c.inner,
                           c.parameter, free_time ? " free" : "");
      }
}

void operator_cases_head(operator_cases *cases) {
  add_linear_cross_entropy(cases, KP_OP_LINEAR_CROSS_ENTROPY);
  add_linear_cross_entropy(cases, KP_OP_LINEAR_CROSS_ENTROPY_TRAINED);
  add_lorentz_mlr(cases);
}
