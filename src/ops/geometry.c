/* Geometry as operators of its own: row programs and weighted gyromidpoints. */
#include <string.h>

#include "core/assert.h"
#include "geometry/midpoint.h"
#include "ops/row_apply.h"
#include "ops/rules.h"

static kp_tensor *like(kp_graph *graph, const kp_tensor *tensor, const char *name) {
  return tensor == NULL ? NULL
                        : kp_graph_activation(graph, name, tensor->type, tensor->dimensions, tensor->shape);
}

static kp_tensor *like_if_needed(kp_graph *graph, const kp_tensor *tensor, const char *name) {
  return tensor == NULL || !tensor->needs_gradient ? NULL : like(graph, tensor, name);
}

/* ---- row_program ---- */

kp_tensor *kp_curved_map(kp_graph *graph, int program, double parameter, kp_tensor *const v[3],
                         kp_tensor *curvature) {
  const kp_row_program *row = &kp_row_programs[program];
  int64_t shape[KP_MAX_DIMENSIONS];
  memcpy(shape, v[0]->shape, sizeof shape);
  for (int i = 1; i < row->inputs; i++)
    kp_assert(kp_tensor_same_shape(v[0], v[i]), "inputs of row program %s differ in shape", row->name);
  if (row->scalar) shape[v[0]->dimensions - 1] = curvature == NULL ? 1 : kp_tensor_columns(curvature);
  kp_tensor *out = kp_graph_activation(graph, row->name, KP_TYPE_REAL, v[0]->dimensions, shape);
  kp_row_program_arguments arguments = {program, parameter};
  kp_tensor *input[] = {v[0], row->inputs > 1 ? v[1] : NULL, row->inputs > 2 ? v[2] : NULL, curvature};
  kp_graph_node(graph, KP_OP_ROW_PROGRAM, &arguments, sizeof arguments, 4, input, 1, &out);
  return out;
}

void kp_backward_row_program(kp_graph *graph, kp_node *node) {
  kp_tensor **in = node->input;
  kp_tensor *input[] = {kp_saved(graph, in[0]), kp_saved(graph, in[1]), kp_saved(graph, in[2]),
                        kp_saved(graph, in[3]), kp_gradient(node->output[0])};
  kp_tensor *output[] = {like_if_needed(graph, in[0], "g v1"), like_if_needed(graph, in[1], "g v2"),
                         like_if_needed(graph, in[2], "g v3"), kp_gradient_accumulator(graph, in[3])};
  kp_graph_node(graph, KP_OP_ROW_PROGRAM_BACKWARD, node->arguments, node->arguments_size, 5, input, 4,
                output);
  for (int i = 0; i < 3; i++) kp_gradient_give(graph, in[i], output[i]);
  kp_gradient_accumulated(graph, in[3], output[3]);
}

kp_status kp_ref_row_program(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_node *node = call->node;
  const kp_row_program_arguments *arguments = node->arguments;
  const kp_row_program *program = &kp_row_programs[arguments->program];
  const int64_t rows = kp_tensor_rows(node->input[0]), C = kp_tensor_columns(node->input[0]);
  const int64_t width = kp_tensor_columns(node->output[0]);
  const kp_curvature_table table = kp_curvature_table_of(call->input[3], node->input[3], rows);
  double *out = call->output[0];
  for (int64_t n = 0; n < rows; n++) {
    const double *v[3] = {NULL, NULL, NULL};
    for (int i = 0; i < program->inputs; i++) v[i] = (const double *)call->input[i] + n * C;
    kp_row_apply(program, v, C, &table, n, arguments->parameter, out + n * width);
  }
  return KP_OK;
}

kp_status kp_ref_row_program_backward(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_node *node = call->node;
  const kp_row_program_arguments *arguments = node->arguments;
  const kp_row_program *program = &kp_row_programs[arguments->program];
  const int64_t rows = kp_tensor_rows(node->input[0]), C = kp_tensor_columns(node->input[0]);
  const int64_t width = kp_tensor_columns(node->input[4]);
  const kp_curvature_table table = kp_curvature_table_of(call->input[3], node->input[3], rows);
  const double *g = call->input[4];
  for (int i = 0; i < 3; i++)
    if (call->output[i] != NULL) memset(call->output[i], 0, (size_t)(rows * C) * sizeof(double));
  for (int64_t n = 0; n < rows; n++) {
    const double *v[3] = {NULL, NULL, NULL};
    double *gv[3] = {NULL, NULL, NULL};
    for (int i = 0; i < program->inputs; i++) {
      v[i] = (const double *)call->input[i] + n * C;
      if (call->output[i] != NULL) gv[i] = (double *)call->output[i] + n * C;
    }
    kp_row_apply_backward(program, v, C, &table, n, arguments->parameter, g + n * width, gv, call->output[3]);
  }
  return KP_OK;
}

/* ---- midpoint ---- */

kp_tensor *kp_midpoint(kp_graph *graph, kp_tensor *points, kp_tensor *weights, kp_tensor *curvature) {
  kp_assert(points->dimensions == 3 && kp_tensor_count(weights) == kp_tensor_rows(points),
            "points must be (N, M, C) and weights (N, M)");
  kp_tensor *out = kp_graph_activation(graph, "midpoint", KP_TYPE_REAL, 2,
                                       (int64_t[]){points->shape[0], points->shape[2]});
  kp_graph_node(graph, KP_OP_MIDPOINT, NULL, 0, 3, (kp_tensor *[]){points, weights, curvature}, 1, &out);
  return out;
}

void kp_backward_midpoint(kp_graph *graph, kp_node *node) {
  kp_tensor **in = node->input;
  kp_tensor *input[] = {kp_saved(graph, in[0]), kp_saved(graph, in[1]), kp_saved(graph, in[2]),
                        kp_gradient(node->output[0])};
  kp_tensor *output[] = {like_if_needed(graph, in[0], "g points"), like_if_needed(graph, in[1], "g weights"),
                         kp_gradient_accumulator(graph, in[2])};
  kp_graph_node(graph, KP_OP_MIDPOINT_BACKWARD, NULL, 0, 4, input, 3, output);
  kp_gradient_give(graph, in[0], output[0]);
  kp_gradient_give(graph, in[1], output[1]);
  kp_gradient_accumulated(graph, in[2], output[2]);
}

/* Room for one row's points and their gradients gathered by group, the midpoint's own scratch, and weights'
 * gradients. */
size_t kp_ref_scratch_midpoint(const kp_node *node, int threads) {
  (void)threads;
  const size_t M = (size_t)node->input[0]->shape[1], C = (size_t)node->input[0]->shape[2];
  return ((2 * M + 2) * C + M) * sizeof(double);
}

static void gather(const double *rows, int64_t M, int64_t C, int64_t from, int64_t D, double *out) {
  for (int64_t m = 0; m < M; m++) memcpy(out + m * D, rows + m * C + from, (size_t)D * sizeof *out);
}

kp_status kp_ref_midpoint(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_tensor *points = call->node->input[0];
  const int64_t N = points->shape[0], M = points->shape[1], C = points->shape[2];
  const double *x = call->input[0], *weights = call->input[1];
  const kp_curvature_table table = kp_curvature_table_of(call->input[2], call->node->input[2], N);
  const int64_t D = C / table.groups;
  double *out = call->output[0], *gathered = call->scratch;
  for (int64_t n = 0; n < N; n++)
    for (int64_t g = 0; g < table.groups; g++) {
      gather(x + n * M * C, M, C, g * D, D, gathered);
      kp_midpoint_forward((size_t)D, (size_t)M, kp_curvature_at(&table, n, g), gathered, weights + n * M,
                          out + n * C + g * D);
    }
  return KP_OK;
}

kp_status kp_ref_midpoint_backward(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_tensor *points = call->node->input[0];
  const int64_t N = points->shape[0], M = points->shape[1], C = points->shape[2];
  const double *x = call->input[0], *weights = call->input[1], *g = call->input[3];
  const kp_curvature_table table = kp_curvature_table_of(call->input[2], call->node->input[2], N);
  const int64_t D = C / table.groups;
  double *gx = call->output[0], *gw = call->output[1], *gkappa = call->output[2];
  double *gathered = call->scratch, *bar = gathered + M * C, *scratch = bar + M * C;
  if (gw != NULL) memset(gw, 0, (size_t)(N * M) * sizeof *gw);
  for (int64_t n = 0; n < N; n++)
    for (int64_t group = 0; group < table.groups; group++) {
      double kappa_bar = 0, *weights_bar = scratch + 2 * C;
      gather(x + n * M * C, M, C, group * D, D, gathered);
      memset(bar, 0, (size_t)(M * D) * sizeof *bar);
      memset(weights_bar, 0, (size_t)M * sizeof *weights_bar);
      kp_midpoint_backward((size_t)D, (size_t)M, kp_curvature_at(&table, n, group), gathered, weights + n * M,
                           g + n * C + group * D, scratch, bar, weights_bar, &kappa_bar);
      for (int64_t m = 0; m < M; m++) {
        if (gw != NULL) gw[n * M + m] += weights_bar[m];
        if (gx != NULL) memcpy(gx + (n * M + m) * C + group * D, bar + m * D, (size_t)D * sizeof *gx);
      }
      if (gkappa != NULL) gkappa[kp_curvature_index(&table, n, group)] += kappa_bar;
    }
  return KP_OK;
}
