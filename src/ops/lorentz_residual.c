/* The seam of a Lorentz network: normalised sum of two points, RMSNorm, lift (backend/operators.h).
 *
 * With q = a_time² - |a|² (a: the space part) and κ = s √c / √|q|, x' = κ a.  From the gradient gz of x':
 *     ga = κ gz + (κ <gz, a> / q) a,   ga_time = -(κ <gz, a> / q) a_time,
 * without the second parts where a floor stands for |q|. */
#include <math.h>
#include <string.h>

#include "core/assert.h"
#include "ops/rules.h"

static kp_tensor *time_of(kp_graph *graph, const kp_tensor *space, const char *name) {
  int64_t shape[KP_MAX_DIMENSIONS];
  memcpy(shape, space->shape, sizeof shape);
  shape[space->dimensions - 1] = 1;
  return kp_graph_activation(graph, name, KP_TYPE_STATISTIC, space->dimensions, shape);
}

static kp_tensor *like(kp_graph *graph, const kp_tensor *tensor, const char *name) {
  return kp_graph_activation(graph, name, tensor->type, tensor->dimensions, tensor->shape);
}

static kp_tensor *like_if_needed(kp_graph *graph, const kp_tensor *tensor, const char *name) {
  return tensor == NULL || !tensor->needs_gradient ? NULL : like(graph, tensor, name);
}

static void check_operands(const kp_lorentz_seam *seam, const kp_lorentz_residual_arguments *arguments) {
  const kp_tensor *x = seam->stream.space, *u = seam->branch.space, *w = seam->branch_weight;
  const int64_t rows = kp_tensor_rows(x);
  kp_assert(u != NULL || arguments->norm, "a seam of %s that does nothing", x->name);
  kp_assert(u == NULL || kp_tensor_same_shape(x, u), "%s and its branch differ in shape", x->name);
  kp_assert(w == NULL || kp_tensor_count(w) == 1 || kp_tensor_count(w) == rows,
            "the weight of %s's branch is neither one number nor one a row", x->name);
  kp_assert(seam->norm_weight == NULL || kp_tensor_count(seam->norm_weight) == kp_tensor_columns(x),
            "the weight of %s's norm has another size", x->name);
  kp_assert(seam->stream.time == NULL || kp_tensor_count(seam->stream.time) == rows, "%s has no time a row",
            x->name);
  kp_assert(seam->branch.time == NULL || kp_tensor_count(seam->branch.time) == rows,
            "the branch of %s has no time a row", x->name);
}

kp_lorentz_seam_result kp_lorentz_residual(kp_graph *graph, kp_lorentz_seam seam,
                                           kp_lorentz_residual_arguments arguments) {
  kp_tensor *x = seam.stream.space, *output[5] = {NULL, NULL, NULL, NULL, NULL};
  check_operands(&seam, &arguments);
  if (seam.branch.space != NULL) {
    output[0] = like(graph, x, "stream");
    output[1] = time_of(graph, x, "stream time");
  }
  if (arguments.norm) {
    output[2] = like(graph, x, "normalised");
    output[3] = time_of(graph, x, "normalised time");
  }
  output[4] = kp_graph_activation(graph, "statistics", KP_TYPE_STATISTIC, 2,
                                  (int64_t[]){kp_tensor_rows(x), KP_LORENTZ_STATISTICS});
  kp_tensor *input[] = {x,
                        seam.stream.time,
                        seam.branch.space,
                        seam.branch.time,
                        seam.branch_weight,
                        seam.scale,
                        seam.norm_weight,
                        seam.c};
  kp_graph_node(graph, KP_OP_LORENTZ_RESIDUAL, &arguments, sizeof arguments, 8, input, 5, output);
  const kp_point stream = output[0] == NULL ? seam.stream : (kp_point){output[0], output[1]};
  return (kp_lorentz_seam_result){stream, {output[2], output[3]}};
}

void kp_backward_lorentz_residual(kp_graph *graph, kp_node *node) {
  kp_tensor **in = node->input, *x = in[0], *input[13];
  for (int i = 0; i < 8; i++) input[i] = kp_saved(graph, in[i]);
  input[8] = kp_saved(graph, node->output[4]);
  for (int i = 0; i < 4; i++) input[9 + i] = kp_gradient(node->output[i]);
  if (node->output[0] == NULL && x->role == KP_ROLE_ACTIVATION) { /* what has arrived at x joins the sum */
    input[9] = kp_gradient(x);
    x->gradient = NULL;
  }
  kp_tensor *output[8] = {like(graph, x, "g stream"), NULL, like_if_needed(graph, in[2], "g branch"), NULL};
  if (in[2] != NULL) {
    output[1] = like_if_needed(graph, in[1], "g stream time");
    output[3] = like_if_needed(graph, in[3], "g branch time");
    for (int i = 4; i < 6; i++) output[i] = kp_gradient_accumulator(graph, in[i]);
  }
  for (int i = 6; i < 8; i++) output[i] = kp_gradient_accumulator(graph, in[i]);
  kp_graph_node(graph, KP_OP_LORENTZ_RESIDUAL_BACKWARD, node->arguments, node->arguments_size, 13, input, 8,
                output);
  for (int i = 0; i < 4; i++) kp_gradient_give(graph, in[i], output[i]);
  for (int i = 4; i < 8; i++)
    if (output[i] != NULL) kp_gradient_accumulated(graph, in[i], output[i]);
}

/* ---- the ref kernels ---- */

typedef struct seam {
  const kp_lorentz_residual_arguments *arguments;
  int64_t rows, C;
  const double *x, *x_time, *u, *u_time, *w, *weight;
  bool one_w;
  double s, c;
} seam;

static seam seam_of(const kp_call *call) {
  const kp_node *node = call->node;
  seam s = {.arguments = node->arguments,
            .rows = kp_tensor_rows(node->input[0]),
            .C = kp_tensor_columns(node->input[0]),
            .x = call->input[0],
            .x_time = call->input[1],
            .u = call->input[2],
            .u_time = call->input[3],
            .w = call->input[4],
            .weight = call->input[6]};
  s.one_w = node->input[4] != NULL && kp_tensor_count(node->input[4]) == 1;
  s.s = call->input[5] == NULL ? s.arguments->scale : *(const double *)call->input[5];
  s.c = call->input[7] == NULL ? 1 : *(const double *)call->input[7];
  return s;
}

static double branch_weight(const seam *s, int64_t n) {
  return s->w == NULL ? 1 : s->w[s->one_w ? 0 : n];
}

static double norm_weight(const seam *s, int64_t k) {
  return s->weight == NULL ? 1 : s->weight[k];
}

static double square_norm(const double *x, int64_t C) {
  double sum = 0;
  for (int64_t k = 0; k < C; k++) sum += x[k] * x[k];
  return sum;
}

static double time_or_lift(const seam *s, const double *space, const double *time, int64_t n) {
  return time != NULL ? time[n] : sqrt(square_norm(space + n * s->C, s->C) + s->c);
}

/* Element k of a's space part. */
static double sum_element(const seam *s, int64_t n, int64_t k) {
  const int64_t at = n * s->C + k;
  return s->u == NULL ? s->x[at] : s->x[at] + branch_weight(s, n) * s->u[at];
}

/* √c / N(a) of row n and the like; the norm's part is filled by norm_row. */
static void residual_statistics(const seam *s, int64_t n, double *statistics) {
  const double tx = time_or_lift(s, s->x, s->x_time, n), tu = time_or_lift(s, s->u, s->u_time, n);
  const double time = tx + branch_weight(s, n) * tu;
  const double floor = fmax(s->arguments->floor, KP_LORENTZ_LEAST_SQUARE);
  double square = time * time;
  for (int64_t k = 0; k < s->C; k++) square -= sum_element(s, n, k) * sum_element(s, n, k);
  const bool floored = fabs(square) < floor;
  statistics[KP_LORENTZ_FACTOR] = sqrt(s->c / (floored ? floor : fabs(square)));
  statistics[KP_LORENTZ_INVERSE_SQUARE] = floored ? 0 : 1 / square;
  statistics[KP_LORENTZ_STREAM_TIME] = tx;
  statistics[KP_LORENTZ_BRANCH_TIME] = tu;
}

/* y of row n from z = x'; returns its time. */
static double norm_row(const seam *s, const double *z, double *y, double *statistics) {
  const double mean = square_norm(z, s->C) / (double)s->C;
  const double inverse = 1 / sqrt(mean + s->arguments->epsilon);
  statistics[KP_LORENTZ_INVERSE_DEVIATION] = inverse;
  for (int64_t k = 0; k < s->C; k++) y[k] = z[k] * inverse * norm_weight(s, k);
  return sqrt(square_norm(y, s->C) + s->c);
}

kp_status kp_ref_lorentz_residual(const kp_call *call, kp_error *error) {
  (void)error;
  const seam s = seam_of(call);
  double *stream = call->output[0], *stream_time = call->output[1], *y = call->output[2],
         *y_time = call->output[3], *statistics = call->output[4];
  memset(statistics, 0, (size_t)(s.rows * KP_LORENTZ_STATISTICS) * sizeof *statistics);
  for (int64_t n = 0; n < s.rows; n++, statistics += KP_LORENTZ_STATISTICS) {
    const double *z = s.x + n * s.C;
    if (s.u != NULL) {
      double *out = stream + n * s.C;
      residual_statistics(&s, n, statistics);
      for (int64_t k = 0; k < s.C; k++) out[k] = s.s * statistics[KP_LORENTZ_FACTOR] * sum_element(&s, n, k);
      stream_time[n] = sqrt(square_norm(out, s.C) + s.c);
      z = out;
    }
    if (y != NULL) y_time[n] = norm_row(&s, z, y + n * s.C, statistics);
  }
  return KP_OK;
}

typedef struct gradients {
  const double *stream, *stream_time, *y, *y_time; /* incoming; any may be NULL */
  double *x, *x_time, *u, *u_time, *w, *s, *weight, *c;
} gradients;

static gradients gradients_of(const kp_call *call) {
  void *const *in = call->input + 9, *const *out = call->output;
  return (gradients){in[0],  in[1],  in[2],  in[3],  out[0], out[1],
                     out[2], out[3], out[4], out[5], out[6], out[7]};
}

/* gz of row n, with z = x' scaled from a by `factor`, into gz (C); adds to the gradients of weight and c. */
static void norm_backward(const seam *s, const gradients *g, int64_t n, double factor, double inverse,
                          double *gz) {
  double squares = 0, y_squares = 0, product = 0;
  for (int64_t k = 0; k < s->C; k++) {
    const double z = factor * sum_element(s, n, k), y = z * inverse * norm_weight(s, k);
    squares += z * z, y_squares += y * y;
  }
  const double z_time = sqrt(squares + s->c), y_time = sqrt(y_squares + s->c);
  const double z_along = g->stream_time == NULL ? 0 : g->stream_time[n] / z_time;
  const double y_along = g->y_time == NULL ? 0 : g->y_time[n] / y_time;
  if (g->c != NULL) *g->c += 0.5 * (z_along + y_along);
  for (int64_t k = 0; k < s->C; k++) {
    const double z = factor * sum_element(s, n, k), normal = z * inverse;
    const double gy = (g->y == NULL ? 0 : g->y[n * s->C + k]) + y_along * normal * norm_weight(s, k);
    if (g->weight != NULL) g->weight[k] += gy * normal;
    gz[k] = (g->stream == NULL ? 0 : g->stream[n * s->C + k]) + z_along * z;
    gz[k] += inverse * norm_weight(s, k) * gy;
    product += norm_weight(s, k) * gy * z;
  }
  const double common = inverse * inverse * inverse * product / (double)s->C;
  for (int64_t k = 0; k < s->C; k++) gz[k] -= common * factor * sum_element(s, n, k);
}

/* Adds the gradient of a lifted time to its space part and to c, or writes it to the time's own gradient. */
static void time_backward(const seam *s, const gradients *g, int64_t n, const double *space, bool given,
                          double time, double g_time, double *g_space, double *g_given) {
  if (given) {
    if (g_given != NULL) g_given[n] = g_time;
    return;
  }
  const double along = g_time / time;
  if (g->c != NULL) *g->c += 0.5 * along;
  for (int64_t k = 0; k < s->C && g_space != NULL; k++) g_space[n * s->C + k] += along * space[n * s->C + k];
}

/* From gz, which stands in g x's row n, to the gradients of everything before. */
static void residual_backward(const seam *s, const gradients *g, int64_t n, const double *statistics) {
  const double w = branch_weight(s, n), factor = s->s * statistics[KP_LORENTZ_FACTOR];
  const double tx = statistics[KP_LORENTZ_STREAM_TIME], tu = statistics[KP_LORENTZ_BRANCH_TIME];
  double *ga = g->x + n * s->C, product = 0;
  for (int64_t k = 0; k < s->C; k++) product += ga[k] * sum_element(s, n, k);
  const double along = factor * product * statistics[KP_LORENTZ_INVERSE_SQUARE];
  const double ga_time = -along * (tx + w * tu);
  double gw = ga_time * tu;
  if (g->s != NULL) *g->s += statistics[KP_LORENTZ_FACTOR] * product;
  if (g->c != NULL) *g->c += factor * product / (2 * s->c);
  for (int64_t k = 0; k < s->C; k++) {
    ga[k] = factor * ga[k] + along * sum_element(s, n, k);
    gw += ga[k] * s->u[n * s->C + k];
    if (g->u != NULL) g->u[n * s->C + k] = w * ga[k];
  }
  if (g->w != NULL) g->w[s->one_w ? 0 : n] += gw;
  time_backward(s, g, n, s->x, s->x_time != NULL, tx, ga_time, g->x, g->x_time);
  time_backward(s, g, n, s->u, s->u_time != NULL, tu, w * ga_time, g->u, g->u_time);
}

/* Row n's gradients of what arrives at x' and y are read before its gradient of x is written: they may be
 * one. */
kp_status kp_ref_lorentz_residual_backward(const kp_call *call, kp_error *error) {
  (void)error;
  const seam s = seam_of(call);
  const gradients g = gradients_of(call);
  const double *statistics = call->input[8];
  for (int64_t n = 0; n < s.rows; n++, statistics += KP_LORENTZ_STATISTICS) {
    const double factor = s.u == NULL ? 1 : s.s * statistics[KP_LORENTZ_FACTOR];
    norm_backward(&s, &g, n, factor, s.arguments->norm ? statistics[KP_LORENTZ_INVERSE_DEVIATION] : 0,
                  g.x + n * s.C);
    if (s.u != NULL) residual_backward(&s, &g, n, statistics);
  }
  return KP_OK;
}
