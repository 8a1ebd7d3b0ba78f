/* Columns taken apart: the pieces of latent attention (DeepSeek-V2, arXiv 2405.04434). */
#include <string.h>

#include "core/assert.h"
#include "ops/rules.h"

/* `tensor` with another number of columns. */
static kp_tensor *widened(kp_graph *graph, const kp_tensor *tensor, const char *name, int64_t columns) {
  int64_t shape[KP_MAX_DIMENSIONS];
  memcpy(shape, tensor->shape, sizeof shape);
  shape[tensor->dimensions - 1] = columns;
  return kp_graph_activation(graph, name, tensor->type, tensor->dimensions, shape);
}

static void copy(double *to, const double *from, int64_t count) {
  memcpy(to, from, (size_t)count * sizeof *to);
}

/* ---- latent_keys ---- */

kp_latent kp_latent_keys(kp_graph *graph, kp_tensor *z, kp_tensor *rope, kp_latent_keys_arguments arguments) {
  const kp_latent_keys_arguments *a = &arguments;
  kp_assert(kp_tensor_columns(z) == (int64_t)a->heads * (a->plain_size + a->value_size),
            "%s is not %d heads of %d + %d columns", z->name, a->heads, a->plain_size, a->value_size);
  kp_assert(rope == NULL
                ? a->rope_size == 0
                : kp_tensor_columns(rope) == a->rope_size && kp_tensor_rows(rope) == kp_tensor_rows(z),
            "the rotated part of the keys is not %d columns", a->rope_size);
  const kp_latent out = {widened(graph, z, "keys", (int64_t)a->heads * (a->plain_size + a->rope_size)),
                         widened(graph, z, "values", (int64_t)a->heads * a->value_size)};
  kp_graph_node(graph, KP_OP_LATENT_KEYS, a, sizeof *a, 2, (kp_tensor *[]){z, rope}, 2,
                (kp_tensor *[]){out.keys, out.values});
  return out;
}

void kp_backward_latent_keys(kp_graph *graph, kp_node *node) {
  kp_tensor *z = node->input[0], *rope = node->input[1];
  kp_tensor *input[] = {kp_gradient(node->output[0]), kp_gradient(node->output[1])};
  kp_tensor *output[] = {
      widened(graph, z, "g latent", kp_tensor_columns(z)),
      rope == NULL || input[0] == NULL ? NULL : widened(graph, rope, "g rope", kp_tensor_columns(rope))};
  kp_graph_node(graph, KP_OP_LATENT_KEYS_BACKWARD, node->arguments, node->arguments_size, 2, input, 2,
                output);
  kp_gradient_give(graph, z, output[0]);
  kp_gradient_give(graph, rope, output[1]);
}

kp_status kp_ref_latent_keys(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_latent_keys_arguments *a = call->node->arguments;
  const double *z = call->input[0], *rope = call->input[1];
  double *keys = call->output[0], *values = call->output[1];
  const int64_t N = kp_tensor_rows(call->node->input[0]), p = a->plain_size, q = a->rope_size,
                v = a->value_size;
  for (int64_t n = 0; n < N; n++)
    for (int64_t h = 0; h < a->heads; h++) {
      const int64_t head = n * a->heads + h;
      copy(keys + head * (p + q), z + head * (p + v), p);
      if (q > 0) copy(keys + head * (p + q) + p, rope + n * q, q);
      copy(values + head * v, z + head * (p + v) + p, v);
    }
  return KP_OK;
}

kp_status kp_ref_latent_keys_backward(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_latent_keys_arguments *a = call->node->arguments;
  const double *gkeys = call->input[0], *gvalues = call->input[1];
  double *gz = call->output[0], *grope = call->output[1];
  const int64_t N = kp_tensor_rows(call->node->output[0]), p = a->plain_size, q = a->rope_size,
                v = a->value_size;
  memset(gz, 0, (size_t)(N * a->heads * (p + v)) * sizeof *gz);
  if (grope != NULL) memset(grope, 0, (size_t)(N * q) * sizeof *grope);
  for (int64_t n = 0; n < N; n++)
    for (int64_t h = 0; h < a->heads; h++) {
      const int64_t head = n * a->heads + h;
      if (gkeys != NULL) copy(gz + head * (p + v), gkeys + head * (p + q), p);
      if (gvalues != NULL) copy(gz + head * (p + v) + p, gvalues + head * v, v);
      for (int64_t i = 0; i < q && grope != NULL; i++) grope[n * q + i] += gkeys[head * (p + q) + p + i];
    }
  return KP_OK;
}

/* ---- split_columns ---- */

kp_columns kp_split_columns(kp_graph *graph, kp_tensor *x, int64_t left) {
  const int64_t C = kp_tensor_columns(x);
  kp_assert(left > 0 && left < C, "%lld of %lld columns of %s", (long long)left, (long long)C, x->name);
  const kp_split_arguments arguments = {left};
  const kp_columns out = {widened(graph, x, "left", left), widened(graph, x, "right", C - left)};
  kp_graph_node(graph, KP_OP_SPLIT_COLUMNS, &arguments, sizeof arguments, 1, &x, 2,
                (kp_tensor *[]){out.left, out.right});
  return out;
}

void kp_backward_split_columns(kp_graph *graph, kp_node *node) {
  kp_tensor *x = node->input[0], *g = widened(graph, x, "g columns", kp_tensor_columns(x));
  kp_tensor *input[] = {kp_gradient(node->output[0]), kp_gradient(node->output[1])};
  kp_graph_node(graph, KP_OP_SPLIT_COLUMNS_BACKWARD, node->arguments, node->arguments_size, 2, input, 1, &g);
  kp_gradient_give(graph, x, g);
}

kp_status kp_ref_split_columns(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_split_arguments *a = call->node->arguments;
  const double *x = call->input[0];
  double *left = call->output[0], *right = call->output[1];
  const int64_t N = kp_tensor_rows(call->node->input[0]), C = kp_tensor_columns(call->node->input[0]);
  for (int64_t n = 0; n < N; n++) {
    copy(left + n * a->left, x + n * C, a->left);
    copy(right + n * (C - a->left), x + n * C + a->left, C - a->left);
  }
  return KP_OK;
}

kp_status kp_ref_split_columns_backward(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_split_arguments *a = call->node->arguments;
  const double *left = call->input[0], *right = call->input[1];
  double *g = call->output[0];
  const int64_t N = kp_tensor_rows(call->node->output[0]), C = kp_tensor_columns(call->node->output[0]);
  memset(g, 0, (size_t)(N * C) * sizeof *g);
  for (int64_t n = 0; n < N; n++) {
    if (left != NULL) copy(g + n * C, left + n * a->left, a->left);
    if (right != NULL) copy(g + n * C + a->left, right + n * (C - a->left), C - a->left);
  }
  return KP_OK;
}
