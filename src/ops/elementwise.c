/* Operators that treat every element alike: add, scale, activations, dropout, curvature maps; and the sum. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "core/assert.h"
#include "core/random.h"
#include "ops/rules.h"

static kp_tensor *like(kp_graph *graph, const kp_tensor *tensor, const char *name) {
  return kp_graph_activation(graph, name, tensor->type, tensor->dimensions, tensor->shape);
}

/* ---- add, zero, scale, sum ---- */

kp_tensor *kp_add(kp_graph *graph, kp_tensor *a, kp_tensor *b) {
  kp_assert(kp_tensor_same_shape(a, b), "%s and %s differ in shape", a->name, b->name);
  kp_tensor *out = like(graph, a, "sum");
  kp_graph_node(graph, KP_OP_ADD, NULL, 0, 2, (kp_tensor *[]){a, b}, 1, &out);
  return out;
}

void kp_backward_add(kp_graph *graph, kp_node *node) {
  kp_tensor *g = kp_gradient(node->output[0]);
  kp_gradient_give(graph, node->input[0], g);
  kp_gradient_give(graph, node->input[1], g);
}

kp_status kp_ref_add(const kp_call *call, kp_error *error) {
  (void)error;
  const double *a = call->input[0], *b = call->input[1];
  double *out = call->output[0];
  const int64_t count = kp_tensor_count(call->node->output[0]);
  for (int64_t i = 0; i < count; i++) out[i] = a[i] + b[i];
  return KP_OK;
}

kp_status kp_ref_zero(const kp_call *call, kp_error *error) {
  (void)error;
  memset(call->output[0], 0, (size_t)kp_tensor_count(call->node->output[0]) * sizeof(double));
  return KP_OK;
}

kp_tensor *kp_scale(kp_graph *graph, kp_tensor *x, double scale) {
  kp_tensor *out = like(graph, x, "scaled");
  kp_graph_node(graph, KP_OP_SCALE, &(kp_scale_arguments){scale}, sizeof(kp_scale_arguments), 1, &x, 1, &out);
  return out;
}

void kp_backward_scale(kp_graph *graph, kp_node *node) {
  const kp_scale_arguments *arguments = node->arguments;
  kp_gradient_give(graph, node->input[0], kp_scale(graph, kp_gradient(node->output[0]), arguments->scale));
}

kp_status kp_ref_scale(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_scale_arguments *arguments = call->node->arguments;
  const double *x = call->input[0];
  double *out = call->output[0];
  const int64_t count = kp_tensor_count(call->node->output[0]);
  for (int64_t i = 0; i < count; i++) out[i] = arguments->scale * x[i];
  return KP_OK;
}

kp_tensor *kp_sum(kp_graph *graph, kp_tensor *x, double scale) {
  kp_tensor *out = kp_graph_activation(graph, "total", KP_TYPE_STATISTIC, 1, (int64_t[]){1});
  kp_graph_node(graph, KP_OP_SUM, &(kp_scale_arguments){scale}, sizeof(kp_scale_arguments), 1, &x, 1, &out);
  return out;
}

void kp_backward_sum(kp_graph *graph, kp_node *node) {
  kp_tensor *g = kp_gradient(node->output[0]), *gx = like(graph, node->input[0], "g sum");
  kp_graph_node(graph, KP_OP_SUM_BACKWARD, node->arguments, node->arguments_size, 1, &g, 1, &gx);
  kp_gradient_give(graph, node->input[0], gx);
}

kp_status kp_ref_sum(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_scale_arguments *arguments = call->node->arguments;
  const double *x = call->input[0];
  const int64_t count = kp_tensor_count(call->node->input[0]);
  double total = 0;
  for (int64_t i = 0; i < count; i++) total += x[i];
  *(double *)call->output[0] = arguments->scale * total;
  return KP_OK;
}

kp_status kp_ref_sum_backward(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_scale_arguments *arguments = call->node->arguments;
  const double g = arguments->scale * *(const double *)call->input[0];
  double *gx = call->output[0];
  const int64_t count = kp_tensor_count(call->node->output[0]);
  for (int64_t i = 0; i < count; i++) gx[i] = g;
  return KP_OK;
}

/* ---- activations ---- */

static const double SQRT_HALF = 0.70710678118654752440;
static const double SQRT_2_OVER_PI = 0.79788456080286535588;
static const double INVERSE_SQRT_2_PI = 0.39894228040143267794;
static const double GELU_CUBIC = 0.044715; /* Hendrycks and Gimpel 2016, section 2 */

static double activation(kp_activation_kind kind, double x) {
  switch (kind) {
  case KP_GELU_ERF: return 0.5 * x * (1 + erf(x * SQRT_HALF));
  case KP_GELU_TANH: return 0.5 * x * (1 + tanh(SQRT_2_OVER_PI * (x + GELU_CUBIC * x * x * x)));
  case KP_SILU: return x / (1 + exp(-x));
  }
  return (double)NAN;
}

static double activation_derivative(kp_activation_kind kind, double x) {
  switch (kind) {
  case KP_GELU_ERF:
    return 0.5 * (1 + erf(x * SQRT_HALF)) +
           (fabs(x) < 40 ? x * INVERSE_SQRT_2_PI * exp(-0.5 * x * x) : 0 * x);
  case KP_GELU_TANH: {
    double t = tanh(SQRT_2_OVER_PI * (x + GELU_CUBIC * x * x * x));
    double slope = SQRT_2_OVER_PI * (1 + 3 * GELU_CUBIC * x * x);
    double tail = 1 - t * t;
    return 0.5 * (1 + t) + (tail > 0 ? 0.5 * x * tail * slope : 0 * x);
  }
  case KP_SILU: {
    double s = 1 / (1 + exp(-x));
    return s == 0 ? 0 * x : s * (1 + x * (1 - s));
  }
  }
  return (double)NAN;
}

kp_tensor *kp_activation(kp_graph *graph, kp_tensor *x, kp_activation_kind kind) {
  kp_tensor *out = like(graph, x, "activation");
  kp_graph_node(graph, KP_OP_ACTIVATION, &(kp_activation_arguments){kind}, sizeof(kp_activation_arguments), 1,
                &x, 1, &out);
  return out;
}

void kp_backward_activation(kp_graph *graph, kp_node *node) {
  kp_tensor *x = node->input[0], *gx = like(graph, x, "g activation");
  kp_tensor *input[] = {kp_saved(graph, x), kp_gradient(node->output[0])};
  kp_graph_node(graph, KP_OP_ACTIVATION_BACKWARD, node->arguments, node->arguments_size, 2, input, 1, &gx);
  kp_gradient_give(graph, x, gx);
}

kp_status kp_ref_activation(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_activation_arguments *arguments = call->node->arguments;
  const double *x = call->input[0];
  double *out = call->output[0];
  const int64_t count = kp_tensor_count(call->node->output[0]);
  for (int64_t i = 0; i < count; i++) out[i] = activation(arguments->kind, x[i]);
  return KP_OK;
}

kp_status kp_ref_activation_backward(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_activation_arguments *arguments = call->node->arguments;
  const double *x = call->input[0], *g = call->input[1];
  double *gx = call->output[0];
  const int64_t count = kp_tensor_count(call->node->output[0]);
  for (int64_t i = 0; i < count; i++) gx[i] = g[i] * activation_derivative(arguments->kind, x[i]);
  return KP_OK;
}

/* ---- gated activation ---- */

kp_point kp_gated_point(kp_graph *graph, kp_gate gate, kp_gated_arguments arguments) {
  kp_tensor *x = gate.x;
  int64_t shape[KP_MAX_DIMENSIONS];
  memcpy(shape, x->shape, sizeof shape);
  arguments.packed = gate.gate == NULL;
  if (arguments.packed) {
    kp_assert(kp_tensor_columns(x) % 2 == 0, "%s cannot be halved", x->name);
    shape[x->dimensions - 1] /= 2;
  } else {
    kp_assert(kp_tensor_same_shape(x, gate.gate), "%s and its gate differ in shape", x->name);
  }
  if (gate.scale != NULL)
    kp_assert(kp_tensor_count(gate.scale) == 2 * shape[x->dimensions - 1],
              "the scale of %s has %lld elements", x->name, (long long)kp_tensor_count(gate.scale));
  kp_tensor *output[2] = {kp_graph_activation(graph, "gated", x->type, x->dimensions, shape), NULL};
  shape[x->dimensions - 1] = 1;
  if (arguments.lift)
    output[1] = kp_graph_activation(graph, "gated time", KP_TYPE_STATISTIC, x->dimensions, shape);
  kp_tensor *input[] = {x, gate.gate, gate.scale, gate.c};
  kp_graph_node(graph, KP_OP_GATED_ACTIVATION, &arguments, sizeof arguments, 4, input, 2, output);
  return (kp_point){output[0], output[1]};
}

kp_tensor *kp_gated_activation(kp_graph *graph, kp_tensor *x, kp_tensor *gate, kp_activation_kind kind) {
  return kp_gated_point(graph, (kp_gate){.x = x, .gate = gate}, (kp_gated_arguments){.kind = kind}).space;
}

void kp_backward_gated_activation(kp_graph *graph, kp_node *node) {
  kp_tensor *x = node->input[0], *gate = node->input[1], *scale = node->input[2], *c = node->input[3];
  kp_tensor *g_time = kp_gradient(node->output[1]), *g = kp_gradient(node->output[0]);
  if (g == NULL) { /* nothing but the time was used */
    g = like(graph, node->output[0], "g nothing");
    kp_graph_node(graph, KP_OP_ZERO, NULL, 0, 0, NULL, 1, &g);
  }
  kp_tensor *input[] = {kp_saved(graph, x),
                        kp_saved(graph, gate),
                        g,
                        kp_saved(graph, scale),
                        kp_saved(graph, c),
                        g_time == NULL ? NULL : kp_saved(graph, node->output[1]),
                        g_time};
  kp_tensor *output[] = {like(graph, x, "g gated"), gate == NULL ? NULL : like(graph, gate, "g gate"),
                         kp_gradient_accumulator(graph, scale),
                         g_time == NULL ? NULL : kp_gradient_accumulator(graph, c)};
  kp_graph_node(graph, KP_OP_GATED_ACTIVATION_BACKWARD, node->arguments, node->arguments_size, 7, input, 4,
                output);
  kp_gradient_give(graph, x, output[0]);
  kp_gradient_give(graph, gate, output[1]);
  kp_gradient_accumulated(graph, scale, output[2]);
  kp_gradient_accumulated(graph, c, output[3]);
}

/* Where row n's halves start, packed or not; and what they are multiplied by. */
typedef struct gated_rows {
  int64_t rows, width, stride;
  const double *u, *gate, *scale;
  double gate_scale;
} gated_rows;

static gated_rows gated_rows_of(const kp_call *call, int scale) {
  const kp_gated_arguments *arguments = call->node->arguments;
  const kp_tensor *x = call->node->input[0];
  int64_t columns = kp_tensor_columns(x);
  gated_rows r = {kp_tensor_rows(x), columns, columns, call->input[0], call->input[1], call->input[scale], 1};
  if (arguments->packed) {
    r.width = columns / 2;
    r.gate = r.u + r.width;
  }
  if (r.scale != NULL) r.gate_scale = arguments->gate_scale;
  return r;
}

/* Factors of u and g in column i. */
static double up_scale(const gated_rows *r, int64_t i) {
  return r->scale == NULL ? 1 : r->scale[i];
}

static double gate_scale(const gated_rows *r, int64_t i) {
  return r->scale == NULL ? 1 : r->gate_scale * r->scale[r->width + i];
}

kp_status kp_ref_gated_activation(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_gated_arguments *arguments = call->node->arguments;
  const gated_rows r = gated_rows_of(call, 2);
  double *out = call->output[0], *time = call->output[1];
  for (int64_t n = 0; n < r.rows; n++) {
    double squares = call->input[3] == NULL ? 1 : *(const double *)call->input[3];
    for (int64_t i = 0; i < r.width; i++) {
      const double u = up_scale(&r, i) * r.u[n * r.stride + i];
      const double gate = gate_scale(&r, i) * r.gate[n * r.stride + i];
      const double y = u * activation(arguments->kind, gate);
      out[n * r.width + i] = y;
      squares += y * y;
    }
    if (time != NULL) time[n] = sqrt(squares);
  }
  return KP_OK;
}

kp_status kp_ref_gated_activation_backward(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_gated_arguments *arguments = call->node->arguments;
  const gated_rows r = gated_rows_of(call, 3);
  const double *g = call->input[2], *time = call->input[5], *g_time = call->input[6];
  double *gu = call->output[0], *gg = arguments->packed ? gu + r.width : call->output[1];
  double *g_scale = call->output[2], *g_c = call->output[3];
  for (int64_t n = 0; n < r.rows; n++) {
    const double along = g_time == NULL ? 0 : g_time[n] / time[n];
    if (g_c != NULL) *g_c += 0.5 * along;
    for (int64_t i = 0; i < r.width; i++) {
      const int64_t at = n * r.stride + i;
      const double up = up_scale(&r, i) * r.u[at], gate = gate_scale(&r, i) * r.gate[at];
      const double value = activation(arguments->kind, gate);
      const double gy = g[n * r.width + i] + along * up * value;
      const double up_bar = gy * value, gate_bar = gy * up * activation_derivative(arguments->kind, gate);
      if (g_scale != NULL) {
        g_scale[i] += up_bar * r.u[at];
        g_scale[r.width + i] += gate_bar * r.gate_scale * r.gate[at];
      }
      gu[at] = up_bar * up_scale(&r, i);
      gg[at] = gate_bar * gate_scale(&r, i);
    }
  }
  return KP_OK;
}

/* ---- dropout ---- */

kp_tensor *kp_dropout(kp_graph *graph, kp_tensor *x, double rate, uint64_t stream) {
  if (rate == 0) return x;
  kp_tensor *out = like(graph, x, "dropout");
  kp_dropout_arguments arguments = {rate, stream};
  kp_graph_node(graph, KP_OP_DROPOUT, &arguments, sizeof arguments, 1, &x, 1, &out);
  return out;
}

void kp_backward_dropout(kp_graph *graph, kp_node *node) {
  const kp_dropout_arguments *arguments = node->arguments;
  kp_gradient_give(graph, node->input[0],
                   kp_dropout(graph, kp_gradient(node->output[0]), arguments->rate, arguments->stream));
}

kp_status kp_ref_dropout(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_dropout_arguments *arguments = call->node->arguments;
  const double *x = call->input[0];
  double *out = call->output[0];
  const int64_t count = kp_tensor_count(call->node->output[0]);
  const double threshold = arguments->rate * 4294967296.0;
  for (int64_t i = 0; i < count; i++) {
    kp_philox_block block = kp_random_block(call->run->seed, KP_RANDOM_DROPOUT, (uint32_t)call->run->step,
                                            (arguments->stream << 40) + (uint64_t)i / 4);
    out[i] = block.word[i % 4] >= threshold ? x[i] / (1 - arguments->rate) : 0 * x[i];
  }
  return KP_OK;
}

/* ---- curvature ---- */

static double curvature(kp_curvature_map map, double theta) {
  switch (map) {
  case KP_CURVATURE_IDENTITY: return theta;
  case KP_CURVATURE_NEGATE: return -theta;
  case KP_CURVATURE_TANH: return 2 * tanh(theta);
  case KP_CURVATURE_SOFTPLUS: return -(theta > 0 ? theta + log1p(exp(-theta)) : log1p(exp(theta)));
  case KP_CURVATURE_SIGMOID: return -1 / (1 + exp(-theta));
  case KP_CURVATURE_EXPONENTIAL: return -exp(theta);
  case KP_MAP_EXP: return exp(theta);
  case KP_MAP_RECIPROCAL: return 1 / theta;
  }
  return (double)NAN;
}

static double curvature_derivative(kp_curvature_map map, double theta) {
  switch (map) {
  case KP_CURVATURE_IDENTITY: return 1;
  case KP_CURVATURE_NEGATE: return -1;
  case KP_CURVATURE_TANH: return 2 / (cosh(theta) * cosh(theta));
  case KP_CURVATURE_SOFTPLUS: return -1 / (1 + exp(-theta));
  case KP_CURVATURE_SIGMOID: {
    double s = 1 / (1 + exp(-theta));
    return -s * (1 - s);
  }
  case KP_CURVATURE_EXPONENTIAL: return -exp(theta);
  case KP_MAP_EXP: return exp(theta);
  case KP_MAP_RECIPROCAL: return -1 / (theta * theta);
  }
  return (double)NAN;
}

kp_tensor *kp_curvature(kp_graph *graph, kp_tensor *theta, kp_curvature_map map) {
  kp_tensor *out =
      kp_graph_activation(graph, "curvature", KP_TYPE_STATISTIC, theta->dimensions, theta->shape);
  kp_curvature_arguments arguments = {map};
  kp_graph_node(graph, KP_OP_CURVATURE, &arguments, sizeof arguments, 1, &theta, 1, &out);
  return out;
}

void kp_backward_curvature(kp_graph *graph, kp_node *node) {
  kp_tensor *theta = node->input[0], *g = like(graph, theta, "g curvature");
  kp_tensor *input[] = {kp_saved(graph, theta), kp_gradient(node->output[0])};
  kp_graph_node(graph, KP_OP_CURVATURE_BACKWARD, node->arguments, node->arguments_size, 2, input, 1, &g);
  kp_gradient_give(graph, theta, g);
}

kp_status kp_ref_curvature(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_curvature_arguments *arguments = call->node->arguments;
  const double *theta = call->input[0];
  double *out = call->output[0];
  const int64_t count = kp_tensor_count(call->node->output[0]);
  for (int64_t i = 0; i < count; i++) out[i] = curvature(arguments->map, theta[i]);
  return KP_OK;
}

kp_status kp_ref_curvature_backward(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_curvature_arguments *arguments = call->node->arguments;
  const double *theta = call->input[0], *g = call->input[1];
  double *out = call->output[0];
  const int64_t count = kp_tensor_count(call->node->output[0]);
  for (int64_t i = 0; i < count; i++) out[i] = g[i] * curvature_derivative(arguments->map, theta[i]);
  return KP_OK;
}
