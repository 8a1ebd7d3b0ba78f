/* Cases of the hyperboloid: linear maps of points, lifts, the Lorentz seam, gated activations with
 * all that they can, and the maps of parameters beside curvature. */
#include "support/check.h"
#include "support/operator_cases.h"

/* c around c->kappa > 0, as one number or one a group; NULL where `wanted` is false. */
static kp_tensor *named_radius(bench *b, const operator_case *c, const char *name, bool wanted,
                               int64_t count) {
  return wanted ? bench_operand(b, name, c->kappa, 0.1 * c->kappa, 1, &count) : NULL;
}

static kp_tensor *radius(bench *b, const operator_case *c, bool wanted, int64_t count) {
  return named_radius(b, c, "curvature radius", wanted, count);
}

static kp_tensor *rows_operand(bench *b, const operator_case *c, const char *name, double centre,
                               double deviation, int64_t columns) {
  return bench_operand(b, name, centre, deviation, 3, (int64_t[]){c->batch, c->length, columns});
}

/* ---- linear maps of points ---- */

static void build_linear(bench *b, const operator_case *c) {
  kp_point x = {rows_operand(b, c, "x", 0, 1, c->columns), rows_operand(b, c, "time", 2, 1, c->groups)};
  kp_tensor *weight = bench_operand(b, "weight", 0, 1, 2, (int64_t[]){c->inner, c->columns});
  kp_tensor *time_weight = bench_operand(b, "time weight", 0, 1, 2, (int64_t[]){c->inner, c->groups});
  kp_tensor *bias = c->option ? bench_operand(b, "bias", 0, 1, 1, &c->inner) : NULL;
  bench_output(b, kp_linear_lorentz(b->graph, x, weight, time_weight, bias));
}

static void add_linears(operator_cases *cases) {
  static const int64_t shapes[][5] = {{1, 1, 1, 1, 1},    {2, 3, 6, 7, 2},     {1, 13, 16, 9, 4},
                                      {3, 11, 65, 40, 1}, {2, 71, 33, 129, 3}, {2, 71, 34, 129, 1}};
  for (int s = 0; s < 6; s++)
    for (int bias = 0; bias < 2; bias++) {
      operator_case c = {.operation = KP_OP_LINEAR,
                         .build = build_linear,
                         .batch = shapes[s][0],
                         .length = shapes[s][1],
                         .columns = shapes[s][2],
                         .inner = shapes[s][3],
                         .groups = shapes[s][4],
                         .option = bias == 1};
      operator_cases_add(cases, c, "of points %lldx%lld G %lld%s", (long long)c.columns, (long long)c.inner,
                         (long long)c.groups, bias ? " bias" : "");
    }
}

/* ---- lift ---- */

/* `option`: c is a tensor; `option2`: one number for all groups.  The space part is used twice: its other
 * gradient arrives before that of the time. */
static void build_lift(bench *b, const operator_case *c) {
  kp_tensor *space = rows_operand(b, c, "space", 0, c->deviation, c->columns);
  bench_output(b, kp_lift(b->graph, space, c->groups, radius(b, c, c->option, c->option2 ? 1 : c->groups)));
  if (c->kind == 1) bench_output(b, kp_scale(b->graph, space, 0.7));
}

static void add_lifts(operator_cases *cases) {
  static const int64_t shapes[][4] = {{1, 1, 1, 1}, {2, 3, 6, 2}, {3, 7, 33, 1}, {2, 9, 132, 3}};
  static const double radii[] = {1, 0.3, 2.5};
  for (int s = 0; s < 4; s++)
    for (int i = 0; i < 6; i++) {
      operator_case c = {.operation = KP_OP_LIFT,
                         .build = build_lift,
                         .batch = shapes[s][0],
                         .length = shapes[s][1],
                         .columns = shapes[s][2],
                         .groups = shapes[s][3],
                         .deviation = 0.5,
                         .kappa = radii[i % 3],
                         .option = i > 0,
                         .option2 = i % 2 == 0,
                         .kind = i / 3};
      operator_cases_add(cases, c, "%lld G %lld c %g %d", (long long)c.columns, (long long)c.groups, c.kappa,
                         i);
    }
}

/* ---- homothety ---- */

/* `kind`: which of c are tensors (1 from, 2 to); `option`: the space part alone counts, `option2`: the time.
 */
static void build_homothety(bench *b, const operator_case *c) {
  kp_point x = {rows_operand(b, c, "x", 0, 0.5, c->columns), rows_operand(b, c, "time", 2, 0.5, c->groups)};
  kp_tensor *from = named_radius(b, c, "curvature before", c->kind & 1, 1);
  kp_tensor *to = named_radius(b, c, "curvature after", c->kind & 2, 1);
  const kp_point y = kp_homothety(b->graph, x, from, to);
  if (!c->option2) bench_output(b, y.space);
  if (!c->option) bench_output(b, y.time);
}

static void add_homotheties(operator_cases *cases) {
  static const int64_t shapes[][4] = {{1, 1, 1, 1}, {2, 3, 6, 2}, {3, 71, 133, 1}};
  for (int s = 0; s < 3; s++)
    for (int i = 0; i < 6; i++) {
      operator_case c = {.operation = KP_OP_HOMOTHETY,
                         .build = build_homothety,
                         .batch = shapes[s][0],
                         .length = shapes[s][1],
                         .columns = shapes[s][2],
                         .groups = shapes[s][3],
                         .kappa = 0.6,
                         .kind = i % 4,
                         .option = i == 4,
                         .option2 = i == 5};
      if (i > 3) c.kind = 3;
      operator_cases_add(cases, c, "%lld %d", (long long)c.columns, i);
    }
}

/* ---- the Lorentz seam ---- */

/* Which optional operands there are, and which outputs count. */
enum {
  SEAM_BRANCH = 1,
  SEAM_NORM = 2,
  SEAM_STREAM_TIME = 4,
  SEAM_BRANCH_TIME = 8,
  SEAM_WEIGHT = 16,     /* w, one number */
  SEAM_ROW_WEIGHT = 32, /* w, one a row */
  SEAM_SCALE = 64,
  SEAM_NORM_WEIGHT = 128,
  SEAM_RADIUS = 256,
  SEAM_NO_TIMES = 512,  /* the times of the results do not count */
  SEAM_NO_STREAM = 1024 /* the new stream does not count */
};

static void build_seam(bench *b, const operator_case *c) {
  const int has = c->kind;
  const int64_t one = 1;
  kp_lorentz_seam seam = {.stream.space = rows_operand(b, c, "stream", 0, c->deviation, c->columns)};
  if (has & SEAM_STREAM_TIME) seam.stream.time = rows_operand(b, c, "stream time", 4, 0.3, 1);
  if (has & SEAM_BRANCH) seam.branch.space = rows_operand(b, c, "branch", 0, c->deviation, c->columns);
  if (has & SEAM_BRANCH_TIME) seam.branch.time = rows_operand(b, c, "branch time", 3, 0.3, 1);
  if (has & SEAM_WEIGHT) seam.branch_weight = bench_operand(b, "w", 0.9, 0.1, 1, &one);
  if (has & SEAM_ROW_WEIGHT) seam.branch_weight = rows_operand(b, c, "row weight", 0.7, 0.2, 1);
  if (has & SEAM_SCALE) seam.scale = bench_operand(b, "scale", 2, 0.1, 1, &one);
  if (has & SEAM_NORM_WEIGHT) seam.norm_weight = bench_operand(b, "norm weight", 1, 0.2, 1, &c->columns);
  seam.c = radius(b, c, has & SEAM_RADIUS, 1);
  const kp_lorentz_residual_arguments arguments = {
      .norm = has & SEAM_NORM, .epsilon = 1e-5, .floor = c->parameter, .scale = 3};
  const kp_lorentz_seam_result result = kp_lorentz_residual(b->graph, seam, arguments);
  const bool stream = (has & SEAM_BRANCH) != 0 && (has & SEAM_NO_STREAM) == 0;
  if (has & SEAM_NORM) bench_output(b, result.normalised.space);
  if (stream || !(has & SEAM_NORM)) bench_output(b, result.stream.space);
  if (!(has & SEAM_NO_TIMES) && stream) bench_output(b, result.stream.time);
  if (!(has & SEAM_NO_TIMES) && has & SEAM_NORM) bench_output(b, result.normalised.time);
  if (c->option) bench_output(b, kp_scale(b->graph, seam.stream.space, 0.4));
}

static void add_seam(operator_cases *cases, int kind, double floor) {
  static const int64_t shapes[][3] = {{1, 1, 4}, {2, 3, 6}, {2, 9, 33}, {1, 20, 130}, {1, 3, 1100}};
  static const double radii[] = {1, 0.4, 1.9};
  for (int s = 0; s < 5; s++) {
    operator_case c = {.operation = KP_OP_LORENTZ_RESIDUAL,
                       .build = build_seam,
                       .batch = shapes[s][0],
                       .length = shapes[s][1],
                       .columns = shapes[s][2],
                       .deviation = s == 4   ? 0.03
                                    : s == 3 ? 0.1
                                             : 0.3,
                       .kappa = radii[(cases->count + s) % 3],
                       .kind = kind,
                       .parameter = floor,
                       .option = !(kind & SEAM_BRANCH) && s % 2 == 1};
    operator_cases_add(cases, c, "%d C %lld c %g floor %g", kind, (long long)c.columns, c.kappa, floor);
  }
}

static void add_seams(operator_cases *cases) {
  static const int residuals[] = {0,
                                  SEAM_STREAM_TIME | SEAM_BRANCH_TIME,
                                  SEAM_STREAM_TIME | SEAM_WEIGHT,
                                  SEAM_BRANCH_TIME | SEAM_ROW_WEIGHT | SEAM_SCALE,
                                  SEAM_WEIGHT | SEAM_SCALE | SEAM_RADIUS,
                                  SEAM_STREAM_TIME | SEAM_BRANCH_TIME | SEAM_WEIGHT | SEAM_SCALE |
                                      SEAM_RADIUS,
                                  SEAM_ROW_WEIGHT | SEAM_RADIUS | SEAM_NO_TIMES};
  static const int norms[] = {0, SEAM_NORM, SEAM_NORM | SEAM_NORM_WEIGHT,
                              SEAM_NORM | SEAM_NORM_WEIGHT | SEAM_NO_STREAM};
  for (int r = 0; r < 7; r++)
    for (int n = 0; n < 4; n++) add_seam(cases, SEAM_BRANCH | residuals[r] | norms[n], 0);
  add_seam(cases, SEAM_BRANCH | SEAM_WEIGHT | SEAM_SCALE | SEAM_RADIUS | SEAM_NORM, 1e6); /* the floor acts */
  for (int n = 1; n < 3; n++) {
    add_seam(cases, norms[n], 0);
    add_seam(cases, norms[n] | SEAM_RADIUS, 0);
    add_seam(cases, norms[n] | SEAM_NO_TIMES, 0);
  }
}

/* ---- gated activations ---- */

static void build_gated(bench *b, const operator_case *c) {
  kp_gate gate = {.x = rows_operand(b, c, "u", 0, 1, (c->packed ? 2 : 1) * c->columns),
                  .gate = c->packed ? NULL : rows_operand(b, c, "gate", 0, 1, c->columns)};
  const int64_t count = 2 * c->columns;
  if (c->option) gate.scale = bench_operand(b, "scale", 1, 0.2, 1, &count);
  gate.c = radius(b, c, c->groups > 0, 1);
  const kp_gated_arguments arguments = {
      .kind = (kp_activation_kind)c->kind, .lift = c->option2, .gate_scale = 1.7};
  const kp_point y = kp_gated_point(b->graph, gate, arguments);
  if (c->parameter == 0) bench_output(b, y.space);
  bench_output(b, y.time);
}

static void add_gated(operator_cases *cases) {
  static const int64_t shapes[][3] = {{1, 1, 1}, {2, 3, 5}, {3, 17, 33}, {2, 9, 130}};
  for (int s = 0; s < 4; s++)
    for (int i = 0; i < 12; i++) {
      operator_case c = {.operation = KP_OP_GATED_ACTIVATION,
                         .build = build_gated,
                         .batch = shapes[s][0],
                         .length = shapes[s][1],
                         .columns = shapes[s][2],
                         .kind = (i + s) % 3,
                         .packed = i % 2 == 1,
                         .option = i % 4 < 2,
                         .option2 = i > 3 || i % 4 > 1,
                         .groups = i % 3 == 0,
                         .kappa = 0.6,
                         .parameter = i == 11};
      if (!c.option2) c.groups = 0;
      operator_cases_add(cases, c, "point %lld %d kind %d", (long long)c.columns, i, c.kind);
    }
}

/* ---- maps of parameters ---- */

/* The reciprocal has no value at zero: its operand is a scalar of the geometry. */
static void build_map(bench *b, const operator_case *c) {
  kp_tensor *theta = rows_operand(b, c, c->kind == KP_MAP_RECIPROCAL ? "curvature parameter" : "theta",
                                  c->kind == KP_MAP_RECIPROCAL ? 2 : 0, 0.3, c->columns);
  bench_output(b, kp_curvature(b->graph, theta, (kp_curvature_map)c->kind));
}

static void add_maps(operator_cases *cases) {
  for (int kind = KP_CURVATURE_EXPONENTIAL; kind <= KP_MAP_RECIPROCAL; kind++) {
    operator_case c = {.operation = KP_OP_CURVATURE,
                       .build = build_map,
                       .batch = 2,
                       .length = 3,
                       .columns = 5,
                       .kind = kind};
    operator_cases_add(cases, c, "map %d", kind);
  }
}

void operator_cases_lorentz(operator_cases *cases) {
  add_linears(cases);
  add_lifts(cases);
  add_homotheties(cases);
  add_seams(cases);
  add_gated(cases);
  add_maps(cases);
}
