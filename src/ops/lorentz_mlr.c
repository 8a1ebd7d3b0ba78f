/* Multinomial logistic regression on the hyperboloid: a matrix product, and this operator on it. */
#include <math.h>
#include <string.h>

#include "core/assert.h"
#include "geometry/hyperplane.h"
#include "ops/rules.h"

kp_tensor *kp_lorentz_mlr(kp_graph *graph, kp_point x, kp_tensor *normals, kp_tensor *offsets, kp_tensor *c) {
  kp_assert(x.time != NULL && kp_tensor_count(x.time) == kp_tensor_rows(x.space),
            "one time for each row of %s", x.space->name);
  kp_assert(kp_tensor_count(offsets) == normals->shape[0], "one offset for each row of %s", normals->name);
  kp_assert(c == NULL || kp_tensor_count(c) == 1, "one curvature for all rows of %s", x.space->name);
  kp_tensor *products = kp_linear(graph, x.space, normals, NULL);
  kp_tensor *out =
      kp_graph_activation(graph, "logits", products->type, products->dimensions, products->shape);
  kp_tensor *input[] = {products, x.time, normals, offsets, c};
  kp_graph_node(graph, KP_OP_LORENTZ_MLR, NULL, 0, 5, input, 1, &out);
  return out;
}

void kp_backward_lorentz_mlr(kp_graph *graph, kp_node *node) {
  kp_tensor *products = node->input[0], *time = node->input[1];
  kp_tensor *input[6], *output[5] = {NULL};
  for (int i = 0; i < 5; i++) input[i] = kp_saved(graph, node->input[i]);
  input[5] = kp_gradient(node->output[0]);
  output[0] = kp_graph_activation(graph, "g products", products->type, products->dimensions, products->shape);
  if (time->needs_gradient)
    output[1] = kp_graph_activation(graph, "g time", time->type, time->dimensions, time->shape);
  for (int i = 2; i < 5; i++) output[i] = kp_gradient_accumulator(graph, node->input[i]);
  kp_graph_node(graph, KP_OP_LORENTZ_MLR_BACKWARD, NULL, 0, 6, input, 5, output);
  kp_gradient_give(graph, products, output[0]);
  kp_gradient_give(graph, time, output[1]);
  for (int i = 2; i < 5; i++) kp_gradient_accumulated(graph, node->input[i], output[i]);
}

static double norm_of(const double *z, int64_t count) {
  double square = 0;
  for (int64_t i = 0; i < count; i++) square += z[i] * z[i];
  return sqrt(square);
}

kp_status kp_ref_lorentz_mlr(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_node *node = call->node;
  const double *products = call->input[0], *time = call->input[1], *z = call->input[2], *a = call->input[3];
  const double *c = call->input[4];
  double *out = call->output[0];
  const int64_t N = kp_tensor_rows(node->input[0]), V = kp_tensor_columns(node->input[0]);
  const int64_t C = kp_tensor_columns(node->input[2]);
  for (int64_t v = 0; v < V; v++) {
    const kp_hyperplane h = kp_hyperplane_of(norm_of(z + v * C, C), a[v], c == NULL ? 1 : sqrt(*c));
    for (int64_t n = 0; n < N; n++)
      out[n * V + v] = h.multiple * asinh(h.by_product * products[n * V + v] + h.by_time * time[n]);
  }
  return KP_OK;
}

kp_status kp_ref_lorentz_mlr_backward(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_node *node = call->node;
  const double *products = call->input[0], *time = call->input[1], *z = call->input[2], *a = call->input[3];
  const double *c = call->input[4], *g = call->input[5];
  double *g_products = call->output[0], *g_time = call->output[1], *gz = call->output[2];
  double *ga = call->output[3], *gc = call->output[4];
  const int64_t N = kp_tensor_rows(node->input[0]), V = kp_tensor_columns(node->input[0]);
  const int64_t C = kp_tensor_columns(node->input[2]);
  const double radius = c == NULL ? 1 : sqrt(*c);
  if (g_time != NULL) memset(g_time, 0, (size_t)N * sizeof *g_time);
  for (int64_t v = 0; v < V; v++) {
    const double norm = norm_of(z + v * C, C);
    const kp_hyperplane h = kp_hyperplane_of(norm, a[v], radius);
    kp_hyperplane_sums sum = {0};
    for (int64_t n = 0; n < N; n++) {
      const double product = products[n * V + v], u = h.by_product * product + h.by_time * time[n];
      /* g products may lie where g does: it is read once. */
      const double gy = g[n * V + v], slope = 1 / hypot(1, u), gu = gy * h.multiple * slope;
      g_products[n * V + v] = gu * h.by_product;
      if (g_time != NULL) g_time[n] += gu * h.by_time;
      sum.bend += gy * (asinh(u) - u * slope);
      sum.product += gu * product;
      sum.time += gu * time[n];
    }
    const kp_hyperplane_gradient to = kp_hyperplane_backward(norm, a[v], radius, sum);
    for (int64_t i = 0; i < C && gz != NULL && norm > 0; i++) gz[v * C + i] += to.norm * z[v * C + i] / norm;
    if (ga != NULL) ga[v] += to.offset;
    if (gc != NULL) gc[0] += to.radius / (2 * radius);
  }
  return KP_OK;
}
