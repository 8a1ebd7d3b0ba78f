/* Cases of the sphere's operators, and of rotary positions with what nGPT and long contexts make of them. */
#include <stdlib.h>

#include "support/check.h"
#include "support/operator_cases.h"

static kp_tensor *rows_operand(bench *b, const operator_case *c, const char *name) {
  return bench_operand(b, name, 0, c->deviation, 3, (int64_t[]){c->batch, c->length, c->columns});
}

/* ---- sphere_residual ---- */

enum { ANYWHERE, CLOSE, SAME, OPPOSITE, PLACES };

/* The branch: anywhere, or near the stream, the operand before it, or its antipode.  Its numbers are made
 * here and not by operators: near the stream what counts is a small difference, and all start from the same
 * one. */
static kp_tensor *branch_operand(bench *b, const operator_case *c) {
  kp_tensor *u = rows_operand(b, c, "u");
  const double *h = b->value[b->operands - 2];
  double *values = b->value[b->operands - 1];
  const double of_h = c->kind == SAME ? 2 : c->kind == CLOSE ? 1 : -2;
  const double of_u = c->kind == SAME ? 0 : c->kind == CLOSE ? 1e-2 : 0.5;
  if (c->kind == ANYWHERE) return u;
  for (int64_t i = 0; i < kp_tensor_count(u); i++)
    values[i] = (double)(float)(of_h * h[i] + of_u * values[i]);
  return u;
}

static void build_residual(bench *b, const operator_case *c) {
  const kp_sphere_arguments arguments = {c->option ? KP_SPHERE_SLERP : KP_SPHERE_LERP, c->parameter};
  kp_tensor *h = rows_operand(b, c, "h"), *u = branch_operand(b, c);
  kp_tensor *rate = bench_operand(b, "rate", c->kappa, 0.1, 1, &c->columns);
  bench_output(b, kp_sphere_residual(b->graph, h, u, rate, arguments));
}

static void add_residuals(operator_cases *cases) {
  static const int64_t shapes[][3] = {{1, 1, 2}, {2, 3, 5}, {3, 7, 33}, {2, 9, 130}, {1, 3, 1100}};
  static const char *const places[] = {"anywhere", "close", "same", "opposite"};
  for (int slerp = 0; slerp < 2; slerp++)
    for (int place = 0; place < PLACES; place++)
      for (int s = 0; s < 5; s++) {
        operator_case c = {.operation = KP_OP_SPHERE_RESIDUAL,
                           .build = build_residual,
                           .batch = shapes[s][0],
                           .length = shapes[s][1],
                           .columns = shapes[s][2],
                           .kind = place,
                           .option = slerp,
                           .kappa = s % 2 == 0 ? 0.9 : -0.9,
                           .parameter = s == 3 ? 0.2 : 0.4,
                           .deviation = 1};
        operator_cases_add(cases, c, "%s %s %lld", slerp ? "slerp" : "lerp", places[place],
                           (long long)c.columns);
      }
}

/* ---- positions ---- */

enum { HALVES = 1, TRANSPOSED = 2, UPSTREAM = 4, YARN = 8, PART = 16, TURNED = 32 };

/* The rows' positions, `inner` apart. */
static kp_tensor *positions_operand(bench *b, const operator_case *c, int64_t step) {
  const int64_t count = c->batch * c->length;
  int32_t *values = malloc((size_t)count * sizeof *values);
  assert_non_null(values);
  for (int64_t i = 0; i < count; i++) values[i] = (int32_t)(i * step % 1000);
  kp_tensor *positions = bench_index(b, "positions", 2, (int64_t[]){c->batch, c->length}, values);
  free(values);
  return positions;
}

static kp_rotary_arguments rotary_of(const operator_case *c, double base) {
  kp_rotary_arguments arguments = {.heads = c->heads,
                                   .head_size = c->head_size,
                                   .base = base,
                                   .halves = (c->kind & HALVES) != 0,
                                   .transposed = (c->kind & TRANSPOSED) != 0,
                                   .upstream = (c->kind & UPSTREAM) != 0};
  if ((c->kind & YARN) != 0)
    arguments.factor = 40, arguments.original = 64, arguments.beta_fast = 32, arguments.beta_slow = 1;
  if ((c->kind & PART) != 0) arguments.offset = 3, arguments.stride = c->head_size + 4;
  return arguments;
}

/* ---- head_norm, scale_columns ---- */

/* `inner` groups of gains; 0: none. */
static void build_head_norm(bench *b, const operator_case *c) {
  const int64_t gains = c->inner * c->head_size;
  kp_tensor *gain = c->inner == 0 ? NULL : bench_operand(b, "gain", 1, 0.3, 1, &gains);
  const kp_head_norm_arguments arguments = {
      .heads = c->heads, .head_size = c->head_size, .factor = c->parameter, .rotary = rotary_of(c, 10000)};
  kp_tensor *positions = (c->kind & TURNED) == 0 ? NULL : positions_operand(b, c, 401);
  bench_output(b, kp_head_norm(b->graph, rows_operand(b, c, "x"), gain, positions, arguments));
}

static void build_unit_rows(bench *b, const operator_case *c) {
  const kp_head_norm_arguments whole = {.heads = 1, .head_size = (int)c->columns, .factor = 1};
  bench_output(b, kp_head_norm(b->graph, rows_operand(b, c, "x"), NULL, NULL, whole));
}

static void build_scale_columns(bench *b, const operator_case *c) {
  kp_tensor *columns = bench_operand(b, "columns", 1, 0.3, 1, &c->columns);
  bench_output(b, kp_scale_columns(b->graph, rows_operand(b, c, "x"), columns, c->parameter));
}

static void add_norms(operator_cases *cases) {
  static const int heads[][5] = {{1, 5, 5, 0, 0},
                                 {2, 3, 9, 1, 0},
                                 {4, 8, 48, 2, 0},
                                 {6, 17, 110, 3, 0},
                                 {3, 64, 200, 0, 0},
                                 {2, 2, 6, 1, TURNED},
                                 {3, 6, 38, 3, TURNED | YARN},
                                 {4, 64, 384, 2, TURNED},
                                 {2, 64, 200, 1, TURNED | UPSTREAM},
                                 {1, 300, 300, 0, TURNED},
                                 {2, 1100, 3300, 1, TURNED | UPSTREAM}};
  static const int64_t widths[] = {1, 33, 1100};
  for (size_t s = 0; s < sizeof heads / sizeof *heads; s++) {
    operator_case c = {.operation = KP_OP_HEAD_NORM,
                       .build = build_head_norm,
                       .batch = 2,
                       .length = 7,
                       .heads = heads[s][0],
                       .head_size = heads[s][1],
                       .columns = heads[s][2],
                       .inner = heads[s][3],
                       .kind = heads[s][4],
                       .parameter = 0.7,
                       .deviation = 1};
    operator_cases_add(cases, c, "%d heads of %d in %d, %d gains%s%s", c.heads, c.head_size, heads[s][2],
                       heads[s][3],
                       c.kind & UPSTREAM ? ", upstream"
                       : c.kind & YARN   ? ", yarn"
                                         : "",
                       c.kind & TURNED ? ", turned" : "");
  }
  for (int s = 0; s < 3; s++) {
    operator_case c = {.batch = 2, .length = 5, .columns = widths[s] + 1, .parameter = -1.5, .deviation = 1};
    c.operation = KP_OP_HEAD_NORM, c.build = build_unit_rows;
    operator_cases_add(cases, c, "whole rows of %lld", (long long)c.columns);
    c.operation = KP_OP_SCALE_COLUMNS, c.build = build_scale_columns, c.columns = widths[s];
    operator_cases_add(cases, c, "%lld", (long long)c.columns);
  }
}

/* ---- rotary ---- */

static void build_rotary(bench *b, const operator_case *c) {
  kp_tensor *positions = positions_operand(b, c, c->inner);
  bench_output(b, kp_rotary(b->graph, rows_operand(b, c, "x"), positions, rotary_of(c, c->parameter)));
}

static void add_rotary(operator_cases *cases) {
  static const int kinds[] = {0,
                              HALVES,
                              TRANSPOSED,
                              HALVES | TRANSPOSED,
                              UPSTREAM,
                              UPSTREAM | TRANSPOSED,
                              UPSTREAM | PART,
                              YARN,
                              YARN | HALVES | PART,
                              PART,
                              PART | TRANSPOSED};
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    for (int step = 1; step < 600; step += 400) {
      operator_case c = {.operation = KP_OP_ROTARY,
                         .build = build_rotary,
                         .batch = 2,
                         .length = 5,
                         .columns = 37,
                         .heads = 3,
                         .head_size = 6,
                         .parameter = 10000,
                         .deviation = 1,
                         .kind = kinds[i],
                         .inner = step};
      operator_cases_add(cases, c, "%s%s%s%s positions by %d",
                         c.kind & UPSTREAM ? "upstream"
                         : c.kind & HALVES ? "halves"
                                           : "neighbours",
                         c.kind & TRANSPOSED ? " back" : "", c.kind & YARN ? " yarn" : "",
                         c.kind & PART ? " of a part" : "", step);
    }
}

void operator_cases_sphere(operator_cases *cases) {
  add_residuals(cases);
  add_norms(cases);
  add_rotary(cases);
}
