/* The rows of a mixture of experts: tokens copied to their experts, one linear map an expert, and the points
 * of each expert's own curvature.  Rows are sorted by expert; expert e's are offsets[e] … offsets[e+1]-1. */
#include <math.h>
#include <string.h>

#include "core/assert.h"
#include "ops/rules.h"

static kp_tensor *like(kp_graph *graph, const kp_tensor *tensor, const char *name) {
  return kp_graph_activation(graph, name, tensor->type, tensor->dimensions, tensor->shape);
}

/* ---- gather_rows ---- */

kp_point kp_gather_rows(kp_graph *graph, kp_point x, const kp_routing *routing) {
  const int64_t N = kp_tensor_rows(routing->slot), R = kp_tensor_count(routing->order);
  kp_assert(kp_tensor_rows(x.space) == N, "%s has other rows than its routing", x.space->name);
  kp_assert(x.time == NULL || kp_tensor_count(x.time) == N, "one time for each row of %s", x.space->name);
  const int64_t shape[] = {R, kp_tensor_columns(x.space)};
  const kp_point out = {
      kp_graph_activation(graph, "sorted", x.space->type, 2, shape),
      x.time == NULL ? NULL : kp_graph_activation(graph, "sorted time", x.time->type, 2, (int64_t[]){R, 1})};
  kp_tensor *input[] = {x.space, x.time, routing->order, routing->slot};
  kp_graph_node(graph, KP_OP_GATHER_ROWS, NULL, 0, 4, input, 2, (kp_tensor *[]){out.space, out.time});
  return out;
}

void kp_backward_gather_rows(kp_graph *graph, kp_node *node) {
  kp_tensor *x = node->input[0], *time = node->input[1];
  kp_tensor *input[] = {kp_gradient(node->output[0]), kp_gradient(node->output[1]),
                        kp_saved(graph, node->input[3])};
  kp_tensor *output[] = {input[0] == NULL ? NULL : like(graph, x, "g rows"),
                         input[1] == NULL ? NULL : like(graph, time, "g time")};
  kp_graph_node(graph, KP_OP_GATHER_ROWS_BACKWARD, NULL, 0, 3, input, 2, output);
  kp_gradient_give(graph, x, output[0]);
  kp_gradient_give(graph, time, output[1]);
}

kp_status kp_ref_gather_rows(const kp_call *call, kp_error *error) {
  (void)error;
  const double *x = call->input[0], *time = call->input[1];
  const int32_t *order = call->input[2];
  double *rows = call->output[0], *times = call->output[1];
  const int64_t R = kp_tensor_count(call->node->input[2]), C = kp_tensor_columns(call->node->input[0]);
  for (int64_t r = 0; r < R; r++) {
    memcpy(rows + r * C, x + order[r] * C, (size_t)C * sizeof *rows);
    if (time != NULL) times[r] = time[order[r]];
  }
  return KP_OK;
}

kp_status kp_ref_gather_rows_backward(const kp_call *call, kp_error *error) {
  (void)error;
  const double *g = call->input[0], *gt = call->input[1];
  const int32_t *slot = call->input[2];
  double *gx = call->output[0], *gtime = call->output[1];
  const int64_t N = kp_tensor_rows(call->node->input[2]), k = kp_tensor_columns(call->node->input[2]);
  const int64_t C = g == NULL ? 0 : kp_tensor_columns(call->node->input[0]);
  for (int64_t n = 0; n < N; n++) {
    if (gt != NULL) gtime[n] = 0;
    for (int64_t c = 0; c < C; c++) gx[n * C + c] = 0;
    for (int64_t j = 0; j < k; j++) {
      if (gt != NULL) gtime[n] += gt[slot[n * k + j]];
      for (int64_t c = 0; c < C; c++) gx[n * C + c] += g[slot[n * k + j] * C + c];
    }
  }
  return KP_OK;
}

/* ---- grouped_linear ---- */

kp_tensor *kp_grouped_linear(kp_graph *graph, kp_point x, kp_tensor *offsets, kp_grouped_weights weights) {
  const kp_tensor *w = weights.weight;
  kp_assert(x.space->dimensions == 2 && w->dimensions == 3 && x.space->shape[1] == w->shape[2],
            "%s has %lld columns, the matrices %s take %lld", x.space->name,
            (long long)kp_tensor_columns(x.space), w->name, (long long)w->shape[2]);
  kp_assert(kp_tensor_count(offsets) == w->shape[0] + 1, "%s is not for %lld experts", offsets->name,
            (long long)w->shape[0]);
  kp_assert(weights.time == NULL || x.time != NULL, "%s has no time for %s", x.space->name, w->name);
  const int64_t shape[] = {x.space->shape[0], w->shape[1]};
  kp_tensor *out = kp_graph_activation(graph, "grouped linear", KP_TYPE_REAL, 2, shape);
  kp_tensor *input[] = {x.space,
                        offsets,
                        weights.weight,
                        weights.bias,
                        weights.time == NULL ? NULL : x.time,
                        weights.time,
                        weights.input_scale,
                        weights.output_scale};
  kp_graph_node(graph, KP_OP_GROUPED_LINEAR, NULL, 0, 8, input, 1, &out);
  return out;
}

static void emit_weight_gradients(kp_graph *graph, kp_node *node, kp_tensor *g) {
  enum { WEIGHT = 2, BIAS, TIME, TIME_WEIGHT, INPUT_SCALE, OUTPUT_SCALE };
  static const int targets[] = {WEIGHT, BIAS, TIME_WEIGHT, INPUT_SCALE, OUTPUT_SCALE};
  kp_tensor *output[5];
  bool any = false;
  for (int i = 0; i < 5; i++) {
    output[i] = kp_gradient_accumulator(graph, node->input[targets[i]]);
    any |= output[i] != NULL;
  }
  if (!any) return;
  kp_tensor *y = output[3] == NULL && output[4] == NULL ? NULL : kp_saved(graph, node->output[0]);
  kp_tensor *input[] = {g,
                        kp_saved(graph, node->input[1]),
                        kp_saved(graph, node->input[0]),
                        kp_saved(graph, node->input[TIME]),
                        kp_saved(graph, node->input[BIAS]),
                        kp_saved(graph, node->input[INPUT_SCALE]),
                        kp_saved(graph, node->input[OUTPUT_SCALE]),
                        y};
  kp_graph_node(graph, KP_OP_GROUPED_LINEAR_BACKWARD_WEIGHT, NULL, 0, 8, input, 5, output);
  for (int i = 0; i < 5; i++) kp_gradient_accumulated(graph, node->input[targets[i]], output[i]);
}

void kp_backward_grouped_linear(kp_graph *graph, kp_node *node) {
  kp_tensor *x = node->input[0], *time = node->input[4], *g = kp_gradient(node->output[0]);
  const bool time_flows = time != NULL && time->needs_gradient;
  emit_weight_gradients(graph, node, g);
  if (!x->needs_gradient && !time_flows) return;
  kp_tensor *input[] = {g,
                        kp_saved(graph, node->input[1]),
                        kp_saved(graph, node->input[2]),
                        kp_saved(graph, node->input[5]),
                        kp_saved(graph, node->input[6]),
                        kp_saved(graph, node->input[7])};
  kp_tensor *output[] = {like(graph, x, "g grouped"), time_flows ? like(graph, time, "g time") : NULL};
  kp_graph_node(graph, KP_OP_GROUPED_LINEAR_BACKWARD_INPUT, NULL, 0, 6, input, 2, output);
  kp_gradient_give(graph, x, output[0]);
  kp_gradient_give(graph, time, output[1]);
}

static double at(const double *values, int64_t i, double absent) {
  return values == NULL ? absent : values[i];
}

kp_status kp_ref_grouped_linear(const kp_call *call, kp_error *error) {
  (void)error;
  const double *x = call->input[0], *w = call->input[2], *bias = call->input[3], *time = call->input[4],
               *wt = call->input[5], *in = call->input[6], *out = call->input[7];
  const int32_t *offsets = call->input[1];
  double *y = call->output[0];
  const int64_t *shape = call->node->input[2]->shape, E = shape[0], M = shape[1], K = shape[2];
  for (int64_t e = 0; e < E; e++)
    for (int64_t r = offsets[e]; r < offsets[e + 1]; r++)
      for (int64_t m = 0; m < M; m++) {
        double sum = time == NULL ? 0 : time[r] * wt[e * M + m];
        for (int64_t k = 0; k < K; k++) sum += x[r * K + k] * w[(e * M + m) * K + k];
        y[r * M + m] = at(out, e, 1) * (at(in, e, 1) * sum + at(bias, e * M + m, 0));
      }
  return KP_OK;
}

kp_status kp_ref_grouped_linear_backward_input(const kp_call *call, kp_error *error) {
  (void)error;
  const double *g = call->input[0], *w = call->input[2], *wt = call->input[3], *in = call->input[4],
               *out = call->input[5];
  const int32_t *offsets = call->input[1];
  double *gx = call->output[0], *gt = call->output[1];
  const int64_t *shape = call->node->input[2]->shape, E = shape[0], M = shape[1], K = shape[2];
  for (int64_t e = 0; e < E; e++)
    for (int64_t r = offsets[e]; r < offsets[e + 1]; r++) {
      const double scale = at(in, e, 1) * at(out, e, 1);
      if (gt != NULL) gt[r] = 0;
      for (int64_t k = 0; k < K; k++) gx[r * K + k] = 0;
      for (int64_t m = 0; m < M; m++) {
        const double gz = scale * g[r * M + m];
        if (gt != NULL) gt[r] += gz * wt[e * M + m];
        for (int64_t k = 0; k < K; k++) gx[r * K + k] += gz * w[(e * M + m) * K + k];
      }
    }
  return KP_OK;
}

/* The scales' gradients come from the output: y = o (a z + b), so g_o = Σ g y / o and
 * g_a = Σ g o z = (Σ g y - o Σ g b) / a. */
kp_status kp_ref_grouped_linear_backward_weight(const kp_call *call, kp_error *error) {
  (void)error;
  const double *g = call->input[0], *x = call->input[2], *time = call->input[3], *bias = call->input[4],
               *in = call->input[5], *out = call->input[6], *y = call->input[7];
  const int32_t *offsets = call->input[1];
  double *gw = call->output[0], *gb = call->output[1], *gwt = call->output[2], *gin = call->output[3],
         *gout = call->output[4];
  const int64_t E = kp_tensor_count(call->node->input[1]) - 1, M = kp_tensor_columns(call->node->input[0]),
                K = kp_tensor_columns(call->node->input[2]);
  for (int64_t e = 0; e < E; e++) {
    const double a = at(in, e, 1), o = at(out, e, 1);
    double with_output = 0, with_bias = 0;
    for (int64_t r = offsets[e]; r < offsets[e + 1]; r++)
      for (int64_t m = 0; m < M; m++) {
        const double gy = g[r * M + m];
        if (y != NULL) with_output += gy * y[r * M + m];
        with_bias += gy * at(bias, e * M + m, 0);
        if (gb != NULL) gb[e * M + m] += o * gy;
        if (gwt != NULL) gwt[e * M + m] += o * a * gy * time[r];
        for (int64_t k = 0; k < K && gw != NULL; k++) gw[(e * M + m) * K + k] += o * a * gy * x[r * K + k];
      }
    if (gin != NULL) gin[e] += (with_output - o * with_bias) / a;
    if (gout != NULL) gout[e] += with_output / o;
  }
  return KP_OK;
}

/* ---- expert_lift ---- */

kp_tensor *kp_expert_lift(kp_graph *graph, kp_tensor *space, kp_tensor *offsets, kp_tensor *c) {
  kp_assert(kp_tensor_count(offsets) == kp_tensor_count(c) + 1, "%s is not one number an expert", c->name);
  kp_tensor *time =
      kp_graph_activation(graph, "time", KP_TYPE_STATISTIC, 2, (int64_t[]){kp_tensor_rows(space), 1});
  kp_graph_node(graph, KP_OP_EXPERT_LIFT, NULL, 0, 3, (kp_tensor *[]){space, offsets, c}, 1, &time);
  return time;
}

void kp_backward_expert_lift(kp_graph *graph, kp_node *node) {
  kp_tensor *space = node->input[0], *c = node->input[2], *time = node->output[0], *direct = NULL;
  if (space->role == KP_ROLE_ACTIVATION) { /* what has arrived at space joins the kernel's own sum */
    direct = kp_gradient(space);
    space->gradient = NULL;
  }
  kp_tensor *input[] = {kp_saved(graph, space), kp_saved(graph, node->input[1]), kp_saved(graph, time),
                        kp_gradient(time), direct};
  kp_tensor *output[] = {space->needs_gradient ? like(graph, space, "g lift") : NULL,
                         kp_gradient_accumulator(graph, c)};
  kp_graph_node(graph, KP_OP_EXPERT_LIFT_BACKWARD, NULL, 0, 5, input, 2, output);
  kp_gradient_give(graph, space, output[0]);
  kp_gradient_accumulated(graph, c, output[1]);
}

kp_status kp_ref_expert_lift(const kp_call *call, kp_error *error) {
  (void)error;
  const double *space = call->input[0], *c = call->input[2];
  const int32_t *offsets = call->input[1];
  double *time = call->output[0];
  const int64_t E = kp_tensor_count(call->node->input[2]), C = kp_tensor_columns(call->node->input[0]);
  for (int64_t e = 0; e < E; e++)
    for (int64_t r = offsets[e]; r < offsets[e + 1]; r++) {
      double square = 0;
      for (int64_t i = 0; i < C; i++) square += space[r * C + i] * space[r * C + i];
      time[r] = sqrt(square + c[e]);
    }
  return KP_OK;
}

kp_status kp_ref_expert_lift_backward(const kp_call *call, kp_error *error) {
  (void)error;
  const double *space = call->input[0], *time = call->input[2], *g = call->input[3], *direct = call->input[4];
  const int32_t *offsets = call->input[1];
  double *gspace = call->output[0], *gc = call->output[1];
  const int64_t E = kp_tensor_count(call->node->input[1]) - 1, C = kp_tensor_columns(call->node->input[0]);
  for (int64_t e = 0; e < E; e++)
    for (int64_t r = offsets[e]; r < offsets[e + 1]; r++) {
      for (int64_t i = 0; i < C && gspace != NULL; i++)
        gspace[r * C + i] = at(direct, r * C + i, 0) + g[r] * space[r * C + i] / time[r];
      if (gc != NULL) gc[e] += g[r] / (2 * time[r]);
    }
  return KP_OK;
}

/* ---- expert_scale ---- */

kp_tensor *kp_expert_scale(kp_graph *graph, kp_tensor *c, kp_tensor *reference, bool inverse) {
  kp_assert(reference == NULL || kp_tensor_count(reference) == 1, "%s is not one number", reference->name);
  const kp_expert_scale_arguments arguments = {inverse};
  kp_tensor *out = like(graph, c, "curvature scale");
  kp_graph_node(graph, KP_OP_EXPERT_SCALE, &arguments, sizeof arguments, 2, (kp_tensor *[]){c, reference}, 1,
                &out);
  return out;
}

void kp_backward_expert_scale(kp_graph *graph, kp_node *node) {
  kp_tensor *c = node->input[0], *reference = node->input[1];
  kp_tensor *input[] = {kp_saved(graph, c), kp_saved(graph, reference), kp_saved(graph, node->output[0]),
                        kp_gradient(node->output[0])};
  kp_tensor *output[] = {kp_gradient_accumulator(graph, c), kp_gradient_accumulator(graph, reference)};
  kp_graph_node(graph, KP_OP_EXPERT_SCALE_BACKWARD, node->arguments, node->arguments_size, 4, input, 2,
                output);
  kp_gradient_accumulated(graph, c, output[0]);
  kp_gradient_accumulated(graph, reference, output[1]);
}

kp_status kp_ref_expert_scale(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_expert_scale_arguments *a = call->node->arguments;
  const double *c = call->input[0], reference = at(call->input[1], 0, 1);
  double *out = call->output[0];
  for (int64_t e = 0; e < kp_tensor_count(call->node->input[0]); e++)
    out[e] = sqrt(a->inverse ? reference / c[e] : c[e] / reference);
  return KP_OK;
}

kp_status kp_ref_expert_scale_backward(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_expert_scale_arguments *a = call->node->arguments;
  const double *c = call->input[0], reference = at(call->input[1], 0, 1), *scale = call->input[2],
               *g = call->input[3], sign = a->inverse ? -1 : 1;
  double *gc = call->output[0], *greference = call->output[1];
  for (int64_t e = 0; e < kp_tensor_count(call->node->input[0]); e++) {
    if (gc != NULL) gc[e] += sign * g[e] * scale[e] / (2 * c[e]);
    if (greference != NULL) *greference -= sign * g[e] * scale[e] / (2 * reference);
  }
  return KP_OK;
}
