/* Operators along the sequence: selecting and storing rows. */
#include <string.h>

#include "core/assert.h"
#include "ops/rules.h"

static kp_tensor *like(kp_graph *graph, const kp_tensor *tensor, const char *name) {
  return kp_graph_activation(graph, name, tensor->type, tensor->dimensions, tensor->shape);
}

/* ---- select_row ---- */

kp_tensor *kp_select_row(kp_graph *graph, kp_tensor *x, int64_t row) {
  kp_assert(x->dimensions == 3, "%s is not (B, T, C)", x->name);
  kp_select_arguments arguments = {x->shape[1], row < 0 ? x->shape[1] + row : row};
  kp_tensor *out = kp_graph_activation(graph, "row", x->type, 2, (int64_t[]){x->shape[0], x->shape[2]});
  kp_graph_node(graph, KP_OP_SELECT_ROW, &arguments, sizeof arguments, 1, &x, 1, &out);
  return out;
}

void kp_backward_select_row(kp_graph *graph, kp_node *node) {
  kp_tensor *g = kp_gradient(node->output[0]), *gx = like(graph, node->input[0], "g row");
  kp_graph_node(graph, KP_OP_SELECT_ROW_BACKWARD, node->arguments, node->arguments_size, 1, &g, 1, &gx);
  kp_gradient_give(graph, node->input[0], gx);
}

kp_status kp_ref_select_row(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_select_arguments *a = call->node->arguments;
  const double *x = call->input[0];
  double *out = call->output[0];
  const int64_t B = call->node->output[0]->shape[0], C = call->node->output[0]->shape[1];
  for (int64_t b = 0; b < B; b++)
    memcpy(out + b * C, x + (b * a->length + a->row) * C, (size_t)C * sizeof *out);
  return KP_OK;
}

kp_status kp_ref_select_row_backward(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_select_arguments *a = call->node->arguments;
  const double *g = call->input[0];
  double *gx = call->output[0];
  const int64_t B = call->node->input[0]->shape[0], C = call->node->input[0]->shape[1];
  memset(gx, 0, (size_t)(B * a->length * C) * sizeof *gx);
  for (int64_t b = 0; b < B; b++)
    memcpy(gx + (b * a->length + a->row) * C, g + b * C, (size_t)C * sizeof *gx);
  return KP_OK;
}

/* ---- store_rows ---- */

void kp_store_rows(kp_graph *graph, kp_tensor *x, kp_tensor *state, kp_tensor *seen, bool mean) {
  kp_assert(x->dimensions == 3 && state->dimensions == 3, "%s and %s must be (B, rows, C)", x->name,
            state->name);
  kp_assert(!mean || (state->shape[1] == 1 && seen != NULL), "a running mean is one row and needs a count");
  kp_store_arguments arguments = {x->shape[1], mean};
  kp_graph_node(graph, KP_OP_STORE_ROWS, &arguments, sizeof arguments, 3, (kp_tensor *[]){x, state, seen}, 0,
                NULL);
}

kp_status kp_ref_store_rows(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_store_arguments *a = call->node->arguments;
  const double *x = call->input[0];
  double *state = call->input[1];
  const int64_t B = call->node->input[1]->shape[0], W = call->node->input[1]->shape[1];
  const int64_t C = call->node->input[1]->shape[2], T = a->length;
  for (int64_t b = 0; b < B; b++) {
    double *rows = state + b * W * C;
    const double *fresh = x + b * T * C;
    if (a->mean) {
      const int32_t seen = *(const int32_t *)call->input[2];
      for (int64_t t = 0; t < T; t++)
        for (int64_t c = 0; c < C; c++) rows[c] += (fresh[t * C + c] - rows[c]) / (double)(seen + t + 1);
      continue;
    }
    const int64_t stay = T < W ? W - T : 0; /* old rows that remain */
    memmove(rows, rows + (W - stay) * C, (size_t)(stay * C) * sizeof *rows);
    memcpy(rows + stay * C, fresh + (T - (W - stay)) * C, (size_t)((W - stay) * C) * sizeof *rows);
  }
  return KP_OK;
}
