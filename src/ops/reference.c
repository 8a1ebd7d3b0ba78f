/* Reference points: where a token's tangent space stands, computed from the tokens before it.
 *
 * previous: r_t = x_{t-1}.  mean: the mean of x_0 … x_{t-1}.  midpoint: the
 * gyromidpoint of the last W of them, in log coordinates: stream and result
 * are tangent vectors at the origin, so each row goes through exp_0 and the
 * midpoint comes back through log_0.  r_0 is the origin, in each document anew where a row holds several. */
#include <string.h>

#include "core/assert.h"
#include "geometry/midpoint.h"
#include "ops/row_apply.h"
#include "ops/rules.h"

enum { MAX_WINDOW = 64 };

kp_tensor *kp_reference(kp_graph *graph, kp_tensor *stream, kp_tensor *curvature, kp_tensor *history,
                        kp_tensor *seen, kp_tensor *documents, kp_reference_arguments arguments) {
  kp_assert(documents == NULL || history == NULL, "a reference with a history is of one document");
  kp_assert(arguments.kind != KP_REFERENCE_MIDPOINT ||
                (arguments.window >= 1 && arguments.window <= MAX_WINDOW),
            "a window of %d tokens", arguments.window);
  kp_tensor *out = kp_graph_activation(graph, "reference", stream->type, stream->dimensions, stream->shape);
  kp_tensor *input[] = {stream, curvature, history, seen, documents};
  kp_graph_node(graph, KP_OP_REFERENCE, &arguments, sizeof arguments, 5, input, 1, &out);
  return out;
}

void kp_backward_reference(kp_graph *graph, kp_node *node) {
  kp_tensor *stream = node->input[0], *curvature = node->input[1];
  kp_assert(node->input[2] == NULL, "a reference with a history is for decoding");
  kp_tensor *input[] = {kp_saved(graph, stream), kp_saved(graph, curvature), kp_gradient(node->output[0]),
                        node->input[4]};
  kp_tensor *output[] = {
      kp_graph_activation(graph, "g reference", stream->type, stream->dimensions, stream->shape),
      kp_gradient_accumulator(graph, curvature)};
  kp_graph_node(graph, KP_OP_REFERENCE_BACKWARD, node->arguments, node->arguments_size, 4, input, 2, output);
  kp_gradient_give(graph, stream, output[0]);
  kp_gradient_accumulated(graph, curvature, output[1]);
}

/* What forward and backward share.  Row t of sequence b; t < 0 reaches into the history. */
typedef struct walk {
  const kp_reference_arguments *arguments;
  int64_t rows, T, C;
  const double *stream, *history;
  int64_t seen;             /* rows before row 0 */
  const int32_t *documents; /* or NULL */
  kp_curvature_table table;
} walk;

static walk walk_of(const kp_call *call, bool forward) {
  const kp_node *node = call->node;
  walk w = {.arguments = node->arguments,
            .rows = kp_tensor_rows(node->input[0]),
            .C = kp_tensor_columns(node->input[0]),
            .stream = call->input[0],
            .history = forward ? call->input[2] : NULL,
            .documents = call->input[forward ? 4 : 3]};
  w.T = w.arguments->length;
  w.seen = w.history == NULL ? 0 : *(const int32_t *)call->input[3];
  w.table = kp_curvature_table_of(call->input[1], node->input[1], w.rows);
  return w;
}

static const double *row_before(const walk *w, int64_t b, int64_t t) {
  if (t >= 0) return w->stream + (b * w->T + t) * w->C;
  const int64_t held = w->arguments->kind == KP_REFERENCE_MIDPOINT ? w->arguments->window : 1;
  return w->history + (b * held + held + t) * w->C;
}

/* The number of tokens before row t, of its document. */
static int64_t past_of(const walk *w, int64_t b, int64_t t) {
  if (w->documents == NULL) return w->seen + t;
  const int32_t *documents = w->documents + b * w->T;
  int64_t first = t;
  while (first > 0 && documents[first - 1] == documents[t]) first--;
  return t - first;
}

/* Of these the number in row t's window. */
static int64_t window_of(const walk *w, int64_t b, int64_t t) {
  const int64_t past = past_of(w, b, t);
  return past < w->arguments->window ? past : w->arguments->window;
}

size_t kp_ref_scratch_reference(const kp_node *node, int threads) {
  (void)threads;
  return (2 * MAX_WINDOW + 6) * (size_t)kp_tensor_columns(node->input[0]) * sizeof(double);
}

/* The window's points exp_0(h) of one group, (count, D). */
static void window_points(const walk *w, int64_t b, int64_t t, int64_t count, int64_t from, int64_t D,
                          double kappa, double *points) {
  const kp_curvature_table one = {&kappa, 1, 1};
  for (int64_t i = 0; i < count; i++) {
    const double *v[3] = {row_before(w, b, t - count + i) + from, NULL, NULL};
    kp_row_apply(&kp_row_programs[KP_PROGRAM_EXP0], v, D, &one, 0, 0, points + i * D);
  }
}

static void midpoint_row(const walk *w, int64_t b, int64_t t, double *scratch, double *out) {
  const int64_t count = window_of(w, b, t), D = w->C / w->table.groups, n = b * w->T + t;
  double weights[MAX_WINDOW], *points = scratch, *middle = scratch + MAX_WINDOW * w->C;
  for (int64_t i = 0; i < count; i++) weights[i] = 1;
  for (int64_t g = 0; g < w->table.groups; g++) {
    const double kappa = kp_curvature_at(&w->table, n, g);
    const kp_curvature_table one = {&kappa, 1, 1};
    window_points(w, b, t, count, g * D, D, kappa, points);
    kp_midpoint_forward((size_t)D, (size_t)count, kappa, points, weights, middle);
    kp_row_apply(&kp_row_programs[KP_PROGRAM_LOG0], (const double *[3]){middle, NULL, NULL}, D, &one, 0, 0,
                 out + g * D);
  }
}

kp_status kp_ref_reference(const kp_call *call, kp_error *error) {
  (void)error;
  const walk w = walk_of(call, true);
  double *out = call->output[0];
  for (int64_t b = 0; b < w.rows / w.T; b++)
    for (int64_t t = 0; t < w.T; t++) {
      double *r = out + (b * w.T + t) * w.C;
      const int64_t past = past_of(&w, b, t);
      if (past == 0) {
        memset(r, 0, (size_t)w.C * sizeof *r);
      } else if (w.arguments->kind == KP_REFERENCE_PREVIOUS) {
        memcpy(r, row_before(&w, b, t - 1), (size_t)w.C * sizeof *r);
      } else if (w.arguments->kind == KP_REFERENCE_MIDPOINT) {
        midpoint_row(&w, b, t, call->scratch, r);
      } else { /* the mean of the rows before from that of t-1 */
        const double *mean = t > 0 ? r - w.C : row_before(&w, b, -1);
        const double *newest = t > 0 ? row_before(&w, b, t - 1) : mean;
        for (int64_t c = 0; c < w.C; c++) r[c] = mean[c] + (newest[c] - mean[c]) / (double)past;
      }
    }
  return KP_OK;
}

static void midpoint_row_backward(const walk *w, int64_t b, int64_t t, const double *g, double *scratch,
                                  double *gx, double *gkappa) {
  const int64_t count = window_of(w, b, t), D = w->C / w->table.groups, n = b * w->T + t;
  double weights[MAX_WINDOW], weights_bar[MAX_WINDOW] = {0}, *points = scratch,
                              *points_bar = scratch + MAX_WINDOW * w->C;
  double *middle = points_bar + MAX_WINDOW * w->C, *middle_bar = middle + w->C, *inner = middle_bar + w->C;
  for (int64_t i = 0; i < count; i++) weights[i] = 1;
  for (int64_t group = 0; group < w->table.groups; group++) {
    double kappa = kp_curvature_at(&w->table, n, group), kappa_bar = 0;
    const kp_curvature_table one = {&kappa, 1, 1};
    window_points(w, b, t, count, group * D, D, kappa, points);
    kp_midpoint_forward((size_t)D, (size_t)count, kappa, points, weights, middle);
    memset(middle_bar, 0, (size_t)D * sizeof *middle_bar);
    memset(points_bar, 0, (size_t)(count * D) * sizeof *points_bar);
    kp_row_apply_backward(&kp_row_programs[KP_PROGRAM_LOG0], (const double *[3]){middle, NULL, NULL}, D, &one,
                          0, 0, g + group * D, (double *[3]){middle_bar, NULL, NULL}, &kappa_bar);
    kp_midpoint_backward((size_t)D, (size_t)count, kappa, points, weights, middle_bar, inner, points_bar,
                         weights_bar, &kappa_bar);
    for (int64_t i = 0; i < count; i++) {
      const int64_t at = (b * w->T + t - count + i) * w->C + group * D;
      kp_row_apply_backward(&kp_row_programs[KP_PROGRAM_EXP0],
                            (const double *[3]){w->stream + at, NULL, NULL}, D, &one, 0, 0,
                            points_bar + i * D, (double *[3]){gx + at, NULL, NULL}, &kappa_bar);
    }
    if (gkappa != NULL) gkappa[kp_curvature_index(&w->table, n, group)] += kappa_bar;
  }
}

kp_status kp_ref_reference_backward(const kp_call *call, kp_error *error) {
  (void)error;
  const walk w = walk_of(call, false);
  const double *g = call->input[2];
  double *gx = call->output[0], *gkappa = call->output[1];
  memset(gx, 0, (size_t)(w.rows * w.C) * sizeof *gx);
  for (int64_t b = 0; b < w.rows / w.T; b++)
    for (int64_t t = 1; t < w.T; t++) {
      const double *gr = g + (b * w.T + t) * w.C;
      const int64_t past = past_of(&w, b, t);
      const int64_t first = w.arguments->kind == KP_REFERENCE_MEAN ? t - past : t - 1;
      if (past == 0) continue;
      if (w.arguments->kind == KP_REFERENCE_MIDPOINT) {
        midpoint_row_backward(&w, b, t, gr, call->scratch, gx, gkappa);
        continue;
      }
      for (int64_t s = first; s < t; s++)
        for (int64_t c = 0; c < w.C; c++) gx[(b * w.T + s) * w.C + c] += gr[c] / (double)(t - first);
    }
  return KP_OK;
}
