/* Operators that make one row of a sequence: the mean over its rows. */
#include <string.h>

#include "core/assert.h"
#include "ops/rules.h"

kp_tensor *kp_mean_rows(kp_graph *graph, kp_tensor *x, kp_tensor *documents) {
  kp_assert(x->dimensions == 3, "%s is not (B, T, C)", x->name);
  kp_assert(documents == NULL || kp_tensor_count(documents) == kp_tensor_rows(x),
            "%s has not one document a row", x->name);
  const kp_mean_rows_arguments arguments = {x->shape[1]};
  kp_tensor *out = kp_graph_activation(graph, "mean", x->type, 2, (int64_t[]){x->shape[0], x->shape[2]});
  kp_graph_node(graph, KP_OP_MEAN_ROWS, &arguments, sizeof arguments, 2, (kp_tensor *[]){x, documents}, 1,
                &out);
  return out;
}

void kp_backward_mean_rows(kp_graph *graph, kp_node *node) {
  const kp_tensor *x = node->input[0];
  kp_tensor *g = kp_gradient(node->output[0]);
  kp_tensor *gx = kp_graph_activation(graph, "g rows", x->type, x->dimensions, x->shape);
  kp_graph_node(graph, KP_OP_MEAN_ROWS_BACKWARD, node->arguments, node->arguments_size, 2,
                (kp_tensor *[]){g, node->input[1]}, 1, &gx);
  kp_gradient_give(graph, node->input[0], gx);
}

static bool counts(const int32_t *documents, int64_t row) {
  return documents == NULL || documents[row] >= 0;
}

/* The share of each row in the mean of sequence `b`. */
static double share(const int32_t *documents, int64_t b, int64_t length) {
  int64_t count = 0;
  for (int64_t t = 0; t < length; t++) count += counts(documents, b * length + t);
  return count == 0 ? 0 : 1 / (double)count;
}

kp_status kp_ref_mean_rows(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_mean_rows_arguments *a = call->node->arguments;
  const double *x = call->input[0];
  const int32_t *documents = call->input[1];
  double *out = call->output[0];
  const int64_t B = call->node->output[0]->shape[0], C = call->node->output[0]->shape[1], T = a->length;
  memset(out, 0, (size_t)(B * C) * sizeof *out);
  for (int64_t b = 0; b < B; b++) {
    const double weight = share(documents, b, T);
    for (int64_t n = b * T; n < (b + 1) * T; n++)
      for (int64_t c = 0; counts(documents, n) && c < C; c++) out[b * C + c] += weight * x[n * C + c];
  }
  return KP_OK;
}

kp_status kp_ref_mean_rows_backward(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_mean_rows_arguments *a = call->node->arguments;
  const double *g = call->input[0];
  const int32_t *documents = call->input[1];
  double *gx = call->output[0];
  const int64_t B = call->node->input[0]->shape[0], C = call->node->input[0]->shape[1], T = a->length;
  for (int64_t b = 0; b < B; b++) {
    const double weight = share(documents, b, T);
    for (int64_t n = b * T; n < (b + 1) * T; n++)
      for (int64_t c = 0; c < C; c++) gx[n * C + c] = counts(documents, n) ? weight * g[b * C + c] : 0;
  }
  return KP_OK;
}
