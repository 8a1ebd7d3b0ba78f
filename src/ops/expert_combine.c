/* One result a token from its experts' results.
 *
 * Flat: a weighted sum.  Centroid: the weighted sum m of the points in the ambient space, scaled back to the
 * hyperboloid, √c m/|m|_L (Law et al. 2019, equation 11).  Fold: the published HELM-MiCE code's residuals one
 * after the other, from the origin, which depend on the order of the experts.  A point's time is derived from
 * its space here, in double: |m|_L² is a small difference of large squares. */
#include <math.h>
#include <string.h>

#include "core/assert.h"
#include "ops/rules.h"

enum { FIRST_SHARED_INPUT = 4, FIRST_SHARED_BACKWARD = 6, FIRST_SHARED_OUTPUT = 3 };

/* Real numbers, so many for each token of the routing. */
static kp_tensor *widened(kp_graph *graph, const kp_tensor *slot, const char *name, kp_type type,
                          int64_t columns) {
  int64_t shape[KP_MAX_DIMENSIONS];
  memcpy(shape, slot->shape, sizeof shape);
  shape[slot->dimensions - 1] = columns;
  return kp_graph_activation(graph, name, type, slot->dimensions, shape);
}

kp_point kp_expert_combine(kp_graph *graph, kp_tensor *rows, const kp_routing *routing, kp_tensor *c,
                           kp_tensor *const *shared, int count, kp_combine_arguments arguments) {
  const int64_t N = kp_tensor_rows(routing->slot), C = kp_tensor_columns(rows);
  kp_assert(kp_tensor_rows(rows) == kp_tensor_count(routing->slot), "%s has other rows than its routing",
            rows->name);
  kp_assert(count <= KP_MAX_SHARED && (arguments.kind != KP_COMBINE_FOLD || count == 0), "%d shared experts",
            count);
  kp_tensor *input[FIRST_SHARED_INPUT + KP_MAX_SHARED] = {rows, routing->slot, routing->weights, c};
  for (int i = 0; i < count; i++) {
    kp_assert(kp_tensor_rows(shared[i]) == N && kp_tensor_columns(shared[i]) == C, "%s is not (N, C)",
              shared[i]->name);
    input[FIRST_SHARED_INPUT + i] = shared[i];
  }
  const bool flat = arguments.kind == KP_COMBINE_FLAT;
  const kp_point out = {widened(graph, routing->slot, "combined", KP_TYPE_REAL, C),
                        flat ? NULL : widened(graph, routing->slot, "combined time", KP_TYPE_STATISTIC, 1)};
  kp_graph_node(graph, KP_OP_EXPERT_COMBINE, &arguments, sizeof arguments, FIRST_SHARED_INPUT + count, input,
                2, (kp_tensor *[]){out.space, out.time});
  return out;
}

static kp_tensor *like(kp_graph *graph, const kp_tensor *tensor, const char *name) {
  return kp_graph_activation(graph, name, tensor->type, tensor->dimensions, tensor->shape);
}

void kp_backward_expert_combine(kp_graph *graph, kp_node *node) {
  const int shared = node->inputs - FIRST_SHARED_INPUT;
  kp_tensor *rows = node->input[0], *weights = node->input[2], *c = node->input[3];
  kp_tensor *input[FIRST_SHARED_BACKWARD + KP_MAX_SHARED], *output[FIRST_SHARED_OUTPUT + KP_MAX_SHARED];
  for (int i = 0; i < FIRST_SHARED_INPUT; i++) input[i] = kp_saved(graph, node->input[i]);
  input[4] = kp_gradient(node->output[0]);
  input[5] = kp_gradient(node->output[1]);
  output[0] = like(graph, rows, "g rows");
  output[1] = weights->needs_gradient ? like(graph, weights, "g weights") : NULL;
  output[2] = kp_gradient_accumulator(graph, c);
  for (int i = 0; i < shared; i++) {
    input[FIRST_SHARED_BACKWARD + i] = kp_saved(graph, node->input[FIRST_SHARED_INPUT + i]);
    output[FIRST_SHARED_OUTPUT + i] = like(graph, node->input[FIRST_SHARED_INPUT + i], "g shared");
  }
  kp_graph_node(graph, KP_OP_EXPERT_COMBINE_BACKWARD, node->arguments, node->arguments_size,
                FIRST_SHARED_BACKWARD + shared, input, FIRST_SHARED_OUTPUT + shared, output);
  kp_gradient_give(graph, rows, output[0]);
  kp_gradient_give(graph, weights, output[1]);
  kp_gradient_accumulated(graph, c, output[2]);
  for (int i = 0; i < shared; i++)
    kp_gradient_give(graph, node->input[FIRST_SHARED_INPUT + i], output[FIRST_SHARED_OUTPUT + i]);
}

/* The points of one token: the shared ones with weight 1, then its experts' in ascending order. */
typedef struct combination {
  const kp_combine_arguments *arguments;
  int64_t N, C, k;
  int shared;
  const double *rows, *weights, *const *z;
  const int32_t *slot;
  double c;
} combination;

static combination combination_of(const kp_call *call, int first_shared) {
  const double *c = call->input[3];
  return (combination){.arguments = call->node->arguments,
                       .N = kp_tensor_rows(call->node->input[1]),
                       .C = kp_tensor_columns(call->node->input[0]),
                       .k = kp_tensor_columns(call->node->input[1]),
                       .shared = call->node->inputs - first_shared,
                       .rows = call->input[0],
                       .slot = call->input[1],
                       .weights = call->input[2],
                       .z = (const double *const *)(call->input + first_shared),
                       .c = c == NULL ? 1 : *c};
}

/* The token's choice that stands at place `rank` of its choices in the order of the sorted rows. */
static int64_t choice_at(const combination *m, int64_t n, int64_t rank) {
  const int32_t *slot = m->slot + n * m->k;
  for (int64_t j = 0; j < m->k; j++) {
    int64_t before = 0;
    for (int64_t i = 0; i < m->k; i++) before += slot[i] < slot[j];
    if (before == rank) return j;
  }
  return 0;
}

/* Point i of token n and its weight. */
static const double *point_of(const combination *m, int64_t n, int64_t i, double *weight) {
  *weight = 1;
  if (i < m->shared) return m->z[i] + n * m->C;
  const int64_t pair = n * m->k + choice_at(m, n, i - m->shared);
  *weight = m->weights[pair];
  return m->rows + m->slot[pair] * m->C;
}

static double dot(const double *a, const double *b, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; i++) sum += a[i] * b[i];
  return sum;
}

static double lift(const double *space, int64_t count, double c) {
  return sqrt(dot(space, space, count) + c);
}

/* √c/N(a), N floored. */
static double norm_factor(const combination *m, double a0, const double *a) {
  const double q = fabs(a0 * a0 - dot(a, a, m->C));
  return sqrt(m->c / (q > m->arguments->floor ? q : m->arguments->floor));
}

/* The weighted sum of the token's points: space to `a`, the time returned. */
static double sum_points(const combination *m, int64_t n, double *a) {
  double a0 = 0, w;
  memset(a, 0, (size_t)m->C * sizeof *a);
  for (int64_t i = 0; i < m->shared + m->k; i++) {
    const double *y = point_of(m, n, i, &w);
    a0 += w * lift(y, m->C, m->c);
    for (int64_t j = 0; j < m->C; j++) a[j] += w * y[j];
  }
  return a0;
}

/* The steps of the fold: a of each in `steps` (k, C), its time in `times` (k). */
static void fold(const combination *m, int64_t n, double *steps, double *times) {
  double time = sqrt(m->c), factor = 0, w;
  for (int64_t i = 0; i < m->k; i++) {
    const double *y = point_of(m, n, i, &w);
    double *a = steps + i * m->C;
    for (int64_t j = 0; j < m->C; j++) a[j] = (i == 0 ? 0 : factor * steps[(i - 1) * m->C + j]) + w * y[j];
    times[i] = time + w * lift(y, m->C, m->c);
    factor = m->arguments->scale * norm_factor(m, times[i], a);
    time = sqrt(factor * factor * dot(a, a, m->C) + m->c);
  }
}

size_t kp_ref_scratch_expert_combine(const kp_node *node, int threads) {
  (void)threads;
  const size_t C = (size_t)kp_tensor_columns(node->input[0]), k = (size_t)kp_tensor_columns(node->input[1]);
  return ((k + 1) * C + k) * sizeof(double);
}

kp_status kp_ref_expert_combine(const kp_call *call, kp_error *error) {
  (void)error;
  const combination m = combination_of(call, FIRST_SHARED_INPUT);
  double *space = call->output[0], *time = call->output[1], *a = call->scratch, *times = a + m.k * m.C;
  for (int64_t n = 0; n < m.N; n++) {
    double factor = 1, a0 = 0, *last = a;
    if (m.arguments->kind == KP_COMBINE_FOLD) {
      fold(&m, n, a, times);
      last = a + (m.k - 1) * m.C;
      factor = m.arguments->scale * norm_factor(&m, times[m.k - 1], last);
    } else {
      a0 = sum_points(&m, n, a);
      if (m.arguments->kind == KP_COMBINE_CENTROID) factor = norm_factor(&m, a0, a);
    }
    for (int64_t j = 0; j < m.C; j++) space[n * m.C + j] = factor * last[j];
    if (time != NULL) time[n] = lift(space + n * m.C, m.C, m.c);
  }
  return KP_OK;
}

/* Where gradients go, of one token. */
typedef struct combination_gradient {
  double *rows, *weights, *c, *const *z;
} combination_gradient;

/* Point i had ambient weight w: its gradients from those of the sum (ga, ga0). */
static void point_backward(const combination *m, const combination_gradient *g, int64_t n, int64_t i,
                           const double *ga, double ga0) {
  double w;
  const double *y = point_of(m, n, i, &w);
  const bool flat = m->arguments->kind == KP_COMBINE_FLAT;
  const double t = flat ? 1 : lift(y, m->C, m->c);
  double *gy = i < m->shared ? g->z[i] + n * m->C : g->rows + (y - m->rows);
  if (i >= m->shared && g->weights != NULL)
    g->weights[n * m->k + choice_at(m, n, i - m->shared)] = dot(ga, y, m->C) + ga0 * t;
  for (int64_t j = 0; j < m->C; j++) gy[j] = w * (ga[j] + ga0 * y[j] / t);
  if (g->c != NULL && !flat) *g->c += w * ga0 / (2 * t);
}

/* Through out = factor · a, factor = S √c/N(a): ga holds the gradient of out and becomes a's; returns a0's.
 * `gt` is the gradient of the time, which is that of the point lifted. */
static double scaled_backward(const combination *m, const combination_gradient *g, double S, const double *a,
                              double a0, double gt, double *ga) {
  const double factor = S * norm_factor(m, a0, a), q = a0 * a0 - dot(a, a, m->C);
  const double time = sqrt(factor * factor * dot(a, a, m->C) + m->c);
  for (int64_t j = 0; j < m->C; j++) ga[j] += gt * factor * a[j] / time;
  const double gfactor = dot(ga, a, m->C);
  const double gq = fabs(q) > m->arguments->floor ? -gfactor * factor / (2 * q) : 0;
  for (int64_t j = 0; j < m->C; j++) ga[j] = factor * ga[j] - 2 * gq * a[j];
  if (g->c != NULL) *g->c += gt / (2 * time) + gfactor * factor / (2 * m->c);
  return 2 * a0 * gq;
}

static void fold_backward(const combination *m, const combination_gradient *g, int64_t n, double *steps,
                          double *times, double gt, double *ga) {
  fold(m, n, steps, times);
  for (int64_t i = m->k - 1; i >= 0; i--) {
    gt = scaled_backward(m, g, m->arguments->scale, steps + i * m->C, times[i], gt, ga);
    point_backward(m, g, n, i, ga, gt);
  }
  if (g->c != NULL) *g->c += gt / (2 * sqrt(m->c));
}

kp_status kp_ref_expert_combine_backward(const kp_call *call, kp_error *error) {
  (void)error;
  const combination m = combination_of(call, FIRST_SHARED_BACKWARD);
  const combination_gradient g = {call->output[0], call->output[1], call->output[2],
                                  (double *const *)(call->output + FIRST_SHARED_OUTPUT)};
  const double *gspace = call->input[4], *gtime = call->input[5];
  double *a = call->scratch, *times = a + m.k * m.C, *ga = times + m.k;
  for (int64_t n = 0; n < m.N; n++) {
    double gt = gtime == NULL ? 0 : gtime[n];
    for (int64_t j = 0; j < m.C; j++) ga[j] = gspace == NULL ? 0 : gspace[n * m.C + j];
    if (m.arguments->kind == KP_COMBINE_FOLD) {
      fold_backward(&m, &g, n, a, times, gt, ga);
      continue;
    }
    const double a0 = sum_points(&m, n, a);
    if (m.arguments->kind == KP_COMBINE_CENTROID) gt = scaled_backward(&m, &g, 1, a, a0, gt, ga);
    for (int64_t i = 0; i < m.shared + m.k; i++) point_backward(&m, &g, n, i, ga, gt);
  }
  return KP_OK;
}
