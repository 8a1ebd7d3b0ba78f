/* Embedding, linear maps, and the loss: the operators that meet the vocabulary and the matrices. */
#include <math.h>
#include <string.h>

#include "core/assert.h"
#include "ops/rules.h"

/* ---- embedding ---- */

kp_tensor *kp_embedding(kp_graph *graph, kp_tensor *tokens, kp_tensor *table, kp_tensor *positions,
                        kp_tensor *position_table) {
  kp_assert((positions == NULL) == (position_table == NULL), "positions come with their table");
  int64_t shape[KP_MAX_DIMENSIONS];
  memcpy(shape, tokens->shape, sizeof shape);
  shape[tokens->dimensions] = kp_tensor_columns(table);
  kp_tensor *out = kp_graph_activation(graph, "embedding", KP_TYPE_REAL, tokens->dimensions + 1, shape);
  kp_graph_node(graph, KP_OP_EMBEDDING, NULL, 0, 4, (kp_tensor *[]){tokens, table, positions, position_table},
                1, &out);
  return out;
}

void kp_backward_embedding(kp_graph *graph, kp_node *node) {
  kp_tensor *table = node->input[1], *positions = node->input[2], *position_table = node->input[3];
  kp_tensor *input[] = {node->input[0], kp_gradient(node->output[0]), positions};
  kp_tensor *output[] = {kp_gradient_accumulator(graph, table),
                         kp_gradient_accumulator(graph, position_table)};
  kp_graph_node(graph, KP_OP_EMBEDDING_BACKWARD, NULL, 0, 3, input, 2, output);
  kp_gradient_accumulated(graph, table, output[0]);
  kp_gradient_accumulated(graph, position_table, output[1]);
}

static kp_status check_index(int32_t index, int64_t limit, const char *what, int64_t row, kp_error *error) {
  if (index >= 0 && index < limit) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "%s %d in row %lld is outside [0, %lld)", what, index, (long long)row,
                 (long long)limit);
}

kp_status kp_ref_embedding(const kp_call *call, kp_error *error) {
  const kp_node *node = call->node;
  const int32_t *tokens = call->input[0], *positions = call->input[2];
  const double *table = call->input[1], *position_table = call->input[3];
  double *out = call->output[0];
  const int64_t rows = kp_tensor_count(node->input[0]), width = kp_tensor_columns(node->input[1]);
  for (int64_t n = 0; n < rows; n++) {
    KP_TRY(check_index(tokens[n], node->input[1]->shape[0], "token", n, error));
    if (positions != NULL) KP_TRY(check_index(positions[n], node->input[3]->shape[0], "position", n, error));
    for (int64_t c = 0; c < width; c++)
      out[n * width + c] =
          table[tokens[n] * width + c] + (positions == NULL ? 0 : position_table[positions[n] * width + c]);
  }
  return KP_OK;
}

kp_status kp_ref_embedding_backward(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_node *node = call->node;
  const int32_t *tokens = call->input[0], *positions = call->input[2];
  const double *g = call->input[1];
  double *table = call->output[0], *position_table = call->output[1];
  const int64_t rows = kp_tensor_count(node->input[0]), width = kp_tensor_columns(node->input[1]);
  for (int64_t n = 0; n < rows; n++)
    for (int64_t c = 0; c < width; c++) {
      if (table != NULL) table[tokens[n] * width + c] += g[n * width + c];
      if (position_table != NULL) position_table[positions[n] * width + c] += g[n * width + c];
    }
  return KP_OK;
}

/* ---- linear ---- */

kp_tensor *kp_linear_lorentz(kp_graph *graph, kp_point x, kp_tensor *weight, kp_tensor *time_weight,
                             kp_tensor *bias) {
  kp_assert(kp_tensor_columns(x.space) == weight->shape[1], "%s has %lld columns, the matrix %s takes %lld",
            x.space->name, (long long)kp_tensor_columns(x.space), weight->name, (long long)weight->shape[1]);
  kp_assert((x.time == NULL) == (time_weight == NULL), "the time of %s comes with its weight", x.space->name);
  if (x.time != NULL)
    kp_assert(kp_tensor_rows(x.time) == kp_tensor_rows(x.space) &&
                  kp_tensor_count(time_weight) == weight->shape[0] * kp_tensor_columns(x.time),
              "the time of %s does not fit its rows or its weight", x.space->name);
  int64_t shape[KP_MAX_DIMENSIONS];
  memcpy(shape, x.space->shape, sizeof shape);
  shape[x.space->dimensions - 1] = weight->shape[0];
  kp_tensor *out = kp_graph_activation(graph, "linear", KP_TYPE_REAL, x.space->dimensions, shape);
  kp_tensor *input[] = {x.space, weight, bias, x.time, time_weight};
  kp_graph_node(graph, KP_OP_LINEAR, NULL, 0, x.time == NULL ? 3 : 5, input, 1, &out);
  return out;
}

kp_tensor *kp_linear(kp_graph *graph, kp_tensor *x, kp_tensor *weight, kp_tensor *bias) {
  return kp_linear_lorentz(graph, (kp_point){x, NULL}, weight, NULL, bias);
}

/* The gradients of time, time weight and bias; returns whether the bias is done. */
static bool time_backward(kp_graph *graph, kp_node *node, kp_tensor *g) {
  if (node->inputs < 5) return false;
  kp_tensor *bias = node->input[2], *time = node->input[3], *weight = node->input[4];
  kp_tensor *input[] = {g, kp_saved(graph, time), kp_saved(graph, weight)};
  kp_tensor *output[] = {NULL, kp_gradient_accumulator(graph, weight), kp_gradient_accumulator(graph, bias)};
  if (time->needs_gradient)
    output[0] = kp_graph_activation(graph, "g time", time->type, time->dimensions, time->shape);
  kp_graph_node(graph, KP_OP_LINEAR_BACKWARD_TIME, NULL, 0, 3, input, 3, output);
  kp_gradient_give(graph, time, output[0]);
  kp_gradient_accumulated(graph, weight, output[1]);
  kp_gradient_accumulated(graph, bias, output[2]);
  return true;
}

void kp_backward_linear(kp_graph *graph, kp_node *node) {
  kp_tensor *x = node->input[0], *weight = node->input[1], *bias = node->input[2];
  kp_tensor *g = kp_gradient(node->output[0]);
  const bool bias_done = time_backward(graph, node, g);
  kp_tensor *output[] = {kp_gradient_accumulator(graph, weight),
                         bias_done ? NULL : kp_gradient_accumulator(graph, bias)};
  if (output[0] != NULL || output[1] != NULL) {
    kp_graph_node(graph, KP_OP_LINEAR_BACKWARD_WEIGHT, NULL, 0, 2, (kp_tensor *[]){g, kp_saved(graph, x)}, 2,
                  output);
    kp_gradient_accumulated(graph, weight, output[0]);
    kp_gradient_accumulated(graph, bias, output[1]);
  }
  if (!x->needs_gradient) return;
  kp_tensor *gx = kp_graph_activation(graph, "g linear", x->type, x->dimensions, x->shape);
  kp_tensor *input[] = {g, kp_saved(graph, weight), kp_gradient_take(x)};
  kp_graph_node(graph, KP_OP_LINEAR_BACKWARD_INPUT, NULL, 0, 3, input, 1, &gx);
  kp_gradient_give(graph, x, gx);
}

kp_status kp_ref_linear(const kp_call *call, kp_error *error) {
  (void)error;
  const double *x = call->input[0], *weight = call->input[1], *bias = call->input[2];
  const double *time = call->input[3], *time_weight = call->input[4];
  double *y = call->output[0];
  const int64_t N = kp_tensor_rows(call->node->input[0]);
  const int64_t M = call->node->input[1]->shape[0], K = call->node->input[1]->shape[1];
  const int64_t G = time == NULL ? 0 : kp_tensor_columns(call->node->input[3]);
  for (int64_t n = 0; n < N; n++)
    for (int64_t m = 0; m < M; m++) {
      double sum = bias == NULL ? 0 : bias[m];
      for (int64_t g = 0; g < G; g++) sum += time[n * G + g] * time_weight[m * G + g];
      for (int64_t k = 0; k < K; k++) sum += x[n * K + k] * weight[m * K + k];
      y[n * M + m] = sum;
    }
  return KP_OK;
}

kp_status kp_ref_linear_backward_input(const kp_call *call, kp_error *error) {
  (void)error;
  const double *g = call->input[0], *weight = call->input[1], *direct = call->input[2];
  double *gx = call->output[0];
  const int64_t N = kp_tensor_rows(call->node->input[0]);
  const int64_t M = call->node->input[1]->shape[0], K = call->node->input[1]->shape[1];
  for (int64_t i = 0; i < N * K; i++) gx[i] = direct == NULL ? 0 : direct[i];
  for (int64_t n = 0; n < N; n++)
    for (int64_t m = 0; m < M; m++)
      for (int64_t k = 0; k < K; k++) gx[n * K + k] += g[n * M + m] * weight[m * K + k];
  return KP_OK;
}

kp_status kp_ref_linear_backward_weight(const kp_call *call, kp_error *error) {
  (void)error;
  const double *g = call->input[0], *x = call->input[1];
  double *weight = call->output[0], *bias = call->output[1];
  const int64_t N = kp_tensor_rows(call->node->input[0]);
  const int64_t M = kp_tensor_columns(call->node->input[0]), K = kp_tensor_columns(call->node->input[1]);
  for (int64_t n = 0; n < N; n++)
    for (int64_t m = 0; m < M; m++) {
      if (bias != NULL) bias[m] += g[n * M + m];
      if (weight == NULL) continue;
      for (int64_t k = 0; k < K; k++) weight[m * K + k] += g[n * M + m] * x[n * K + k];
    }
  return KP_OK;
}

kp_status kp_ref_linear_backward_time(const kp_call *call, kp_error *error) {
  (void)error;
  const double *g = call->input[0], *time = call->input[1], *weight = call->input[2];
  double *g_time = call->output[0], *g_weight = call->output[1], *g_bias = call->output[2];
  const int64_t N = kp_tensor_rows(call->node->input[0]), M = kp_tensor_columns(call->node->input[0]);
  const int64_t G = kp_tensor_columns(call->node->input[1]);
  for (int64_t i = 0; i < N * G && g_time != NULL; i++) g_time[i] = 0;
  for (int64_t n = 0; n < N; n++)
    for (int64_t m = 0; m < M; m++) {
      const double gy = g[n * M + m];
      if (g_bias != NULL) g_bias[m] += gy;
      for (int64_t i = 0; i < G && g_weight != NULL; i++) g_weight[m * G + i] += gy * time[n * G + i];
      for (int64_t i = 0; i < G && g_time != NULL; i++) g_time[n * G + i] += gy * weight[m * G + i];
    }
  return KP_OK;
}

/* ---- cross-entropy ---- */

kp_tensor *kp_cross_entropy(kp_graph *graph, kp_tensor *logits, kp_tensor *targets, int32_t ignore) {
  kp_assert(kp_tensor_rows(logits) == kp_tensor_count(targets), "one target for each row of logits");
  kp_tensor *output[] = {
      kp_graph_activation(graph, "loss", KP_TYPE_STATISTIC, 1, (int64_t[]){1}),
      kp_graph_activation(graph, "logsumexp", KP_TYPE_STATISTIC, 1, (int64_t[]){kp_tensor_rows(logits)})};
  kp_cross_entropy_arguments arguments = {ignore};
  kp_graph_node(graph, KP_OP_CROSS_ENTROPY, &arguments, sizeof arguments, 2, (kp_tensor *[]){logits, targets},
                2, output);
  return output[0];
}

void kp_backward_cross_entropy(kp_graph *graph, kp_node *node) {
  kp_tensor *logits = node->input[0];
  kp_tensor *g = kp_graph_activation(graph, "g logits", logits->type, logits->dimensions, logits->shape);
  kp_tensor *input[] = {kp_saved(graph, logits), node->input[1], node->output[1],
                        kp_gradient(node->output[0])};
  kp_graph_node(graph, KP_OP_CROSS_ENTROPY_BACKWARD, node->arguments, node->arguments_size, 4, input, 1, &g);
  kp_gradient_give(graph, logits, g);
}

static int64_t count_targets(const int32_t *targets, int64_t rows, int32_t ignore) {
  int64_t count = 0;
  for (int64_t n = 0; n < rows; n++) count += targets[n] != ignore;
  return count;
}

kp_status kp_ref_cross_entropy(const kp_call *call, kp_error *error) {
  const kp_cross_entropy_arguments *arguments = call->node->arguments;
  const double *logits = call->input[0];
  const int32_t *targets = call->input[1];
  double *loss = call->output[0], *logsumexp = call->output[1];
  const int64_t rows = kp_tensor_rows(call->node->input[0]), V = kp_tensor_columns(call->node->input[0]);
  const int64_t counted = count_targets(targets, rows, arguments->ignore);
  double total = 0;
  for (int64_t n = 0; n < rows; n++) {
    const double *row = logits + n * V;
    double largest = row[0], sum = 0;
    for (int64_t v = 1; v < V; v++) largest = fmax(largest, row[v]);
    for (int64_t v = 0; v < V; v++) sum += exp(row[v] - largest);
    logsumexp[n] = largest + log(sum);
    if (targets[n] == arguments->ignore) continue;
    KP_TRY(check_index(targets[n], V, "target", n, error));
    total += logsumexp[n] - row[targets[n]];
  }
  *loss = counted == 0 ? 0 : total / (double)counted;
  return KP_OK;
}

kp_status kp_ref_cross_entropy_backward(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_cross_entropy_arguments *arguments = call->node->arguments;
  const double *logits = call->input[0], *logsumexp = call->input[2];
  const int32_t *targets = call->input[1];
  double *g = call->output[0];
  const int64_t rows = kp_tensor_rows(call->node->input[0]), V = kp_tensor_columns(call->node->input[0]);
  const int64_t counted = count_targets(targets, rows, arguments->ignore);
  const double scale = counted == 0 ? 0 : *(const double *)call->input[3] / (double)counted;
  for (int64_t n = 0; n < rows; n++)
    for (int64_t v = 0; v < V; v++) {
      const double p = exp(logits[n * V + v] - logsumexp[n]);
      g[n * V + v] = targets[n] == arguments->ignore ? 0 : scale * (p - (v == targets[n]));
    }
  return KP_OK;
}
