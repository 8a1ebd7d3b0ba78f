/* Head and loss in one: the logits of a batch are never held whole.  The ref kernels hold those of one row.
 */
#include <math.h>
#include <string.h>

#include "core/assert.h"
#include "ops/rules.h"

void kp_check_logit_head(const kp_logit_head *head, const kp_tensor *targets) {
  const kp_tensor *x = head->x.space;
  const int64_t rows = kp_tensor_rows(x), vocabulary = head->weight->shape[0];
  kp_assert(kp_tensor_columns(x) == head->weight->shape[1], "%s has %lld columns, the matrix %s takes %lld",
            x->name, (long long)kp_tensor_columns(x), head->weight->name, (long long)head->weight->shape[1]);
  kp_assert(rows == kp_tensor_count(targets), "one target for each row of %s", x->name);
  kp_assert((head->x.time == NULL) == (head->time_weight == NULL), "time comes with its weight");
  kp_assert(head->x.time == NULL || kp_tensor_count(head->x.time) == rows, "one time for each row of %s",
            x->name);
  kp_assert(head->time_weight == NULL || kp_tensor_count(head->time_weight) == vocabulary,
            "one time weight for each row of %s", head->weight->name);
  kp_assert(head->scale == NULL || kp_tensor_count(head->scale) == vocabulary, "one scale for each row of %s",
            head->weight->name);
}

kp_tensor *kp_linear_cross_entropy(kp_graph *graph, kp_logit_head head, kp_tensor *targets,
                                   kp_linear_cross_entropy_arguments arguments) {
  const int64_t rows = kp_tensor_rows(head.x.space);
  kp_check_logit_head(&head, targets);
  if (arguments.factor == 0) arguments.factor = 1;
  kp_tensor *input[] = {head.x.space, head.weight, targets, head.x.time, head.time_weight, head.scale};
  kp_tensor *output[] = {kp_graph_activation(graph, "loss", KP_TYPE_STATISTIC, 1, (int64_t[]){1}),
                         kp_graph_activation(graph, "logsumexp", KP_TYPE_STATISTIC, 1, &rows)};
  kp_graph_node(graph, KP_OP_LINEAR_CROSS_ENTROPY, &arguments, sizeof arguments, 6, input, 2, output);
  return output[0];
}

kp_tensor *kp_fresh_gradient(kp_graph *graph, const char *name, const kp_tensor *of) {
  if (of == NULL || !of->needs_gradient) return NULL;
  return kp_graph_activation(graph, name, of->type, of->dimensions, of->shape);
}

void kp_backward_linear_cross_entropy(kp_graph *graph, kp_node *node) {
  kp_tensor *x = node->input[0], *weight = node->input[1], *time = node->input[3];
  kp_tensor *time_weight = node->input[4], *scale = node->input[5];
  kp_tensor *input[8];
  for (int i = 0; i < 6; i++) input[i] = kp_saved(graph, node->input[i]);
  input[6] = node->output[1];
  input[7] = kp_gradient(node->output[0]);
  kp_tensor *output[] = {kp_fresh_gradient(graph, "g head", x), kp_fresh_gradient(graph, "g head time", time),
                         kp_gradient_accumulator(graph, weight), kp_gradient_accumulator(graph, time_weight),
                         kp_gradient_accumulator(graph, scale)};
  kp_graph_node(graph, KP_OP_LINEAR_CROSS_ENTROPY_BACKWARD, node->arguments, node->arguments_size, 8, input,
                5, output);
  kp_gradient_give(graph, x, output[0]);
  kp_gradient_give(graph, time, output[1]);
  kp_gradient_accumulated(graph, weight, output[2]);
  kp_gradient_accumulated(graph, time_weight, output[3]);
  kp_gradient_accumulated(graph, scale, output[4]);
}

/* ---- ref ---- */

/* The products of a row and, behind them, its logits: 2 V. */
size_t kp_ref_scratch_linear_cross_entropy(const kp_node *node, int threads) {
  (void)threads;
  return 2 * (size_t)node->input[1]->shape[0] * sizeof(double);
}

/* The operands that both passes read. */
typedef struct operands {
  const kp_linear_cross_entropy_arguments *arguments;
  int64_t rows, vocabulary, columns, counted;
  const double *x, *weight, *time, *time_weight, *scale;
  const int32_t *targets;
} operands;

static kp_status read_operands(const kp_call *call, operands *o, kp_error *error) {
  const kp_node *node = call->node;
  *o = (operands){.arguments = node->arguments,
                  .rows = kp_tensor_rows(node->input[0]),
                  .vocabulary = node->input[1]->shape[0],
                  .columns = node->input[1]->shape[1],
                  .x = call->input[0],
                  .weight = call->input[1],
                  .targets = call->input[2],
                  .time = call->input[3],
                  .time_weight = call->input[4],
                  .scale = call->input[5]};
  for (int64_t n = 0; n < o->rows; n++) {
    if (o->targets[n] == o->arguments->ignore) continue;
    if (o->targets[n] < 0 || o->targets[n] >= o->vocabulary)
      return kp_fail(error, KP_ERR_INPUT, "row %lld has target %d, which is not in the vocabulary of %lld",
                     (long long)n, o->targets[n], (long long)o->vocabulary);
    o->counted++;
  }
  return KP_OK;
}

static double factor_of(const operands *o, int64_t v) {
  return o->arguments->factor * (o->scale == NULL ? 1 : o->scale[v]);
}

/* Row n: products (V) and logits (V) = factor · scale ⊙ products. */
static void fill_row(const operands *o, int64_t n, double *product, double *logit) {
  for (int64_t v = 0; v < o->vocabulary; v++) {
    double sum = o->time == NULL ? 0 : o->time[n] * o->time_weight[v];
    for (int64_t c = 0; c < o->columns; c++) sum += o->x[n * o->columns + c] * o->weight[v * o->columns + c];
    product[v] = sum;
    logit[v] = factor_of(o, v) * sum;
  }
}

kp_status kp_ref_linear_cross_entropy(const kp_call *call, kp_error *error) {
  operands o;
  KP_TRY(read_operands(call, &o, error));
  double *product = call->scratch, *logit = product + o.vocabulary;
  double *loss = call->output[0], *logsumexp = call->output[1], total = 0;
  for (int64_t n = 0; n < o.rows; n++) {
    fill_row(&o, n, product, logit);
    double largest = logit[0], sum = 0;
    for (int64_t v = 1; v < o.vocabulary; v++) largest = fmax(largest, logit[v]);
    for (int64_t v = 0; v < o.vocabulary; v++) sum += exp(logit[v] - largest);
    logsumexp[n] = largest + log(sum);
    if (o.targets[n] != o.arguments->ignore) total += logsumexp[n] - logit[o.targets[n]];
  }
  *loss = o.counted == 0 ? 0 : total / (double)o.counted;
  return KP_OK;
}

/* Where the gradients of a call go; any may be NULL. */
typedef struct gradients {
  double *x, *time, *weight, *time_weight, *scale;
} gradients;

/* What one product of row n, whose gradient is g, adds. */
static void spread(const operands *o, const gradients *to, int64_t n, int64_t v, double g) {
  const double *x = o->x + n * o->columns, *weight = o->weight + v * o->columns;
  for (int64_t c = 0; c < o->columns; c++) {
    if (to->x != NULL) to->x[n * o->columns + c] += g * weight[c];
    if (to->weight != NULL) to->weight[v * o->columns + c] += g * x[c];
  }
  if (to->time != NULL) to->time[n] += g * o->time_weight[v];
  if (to->time_weight != NULL) to->time_weight[v] += g * o->time[n];
}

kp_status kp_ref_linear_cross_entropy_backward(const kp_call *call, kp_error *error) {
  operands o;
  KP_TRY(read_operands(call, &o, error));
  const gradients to = {.x = call->output[0],
                        .time = call->output[1],
                        .weight = call->output[2],
                        .time_weight = call->output[3],
                        .scale = call->output[4]};
  const double *logsumexp = call->input[6], *g_loss = call->input[7];
  const double share = o.counted == 0 ? 0 : *g_loss / (double)o.counted;
  double *product = call->scratch, *logit = product + o.vocabulary;
  if (to.x != NULL) memset(to.x, 0, (size_t)(o.rows * o.columns) * sizeof *to.x);
  if (to.time != NULL) memset(to.time, 0, (size_t)o.rows * sizeof *to.time);
  for (int64_t n = 0; n < o.rows; n++) {
    if (o.targets[n] == o.arguments->ignore) continue;
    fill_row(&o, n, product, logit);
    for (int64_t v = 0; v < o.vocabulary; v++) {
      const double g = share * (exp(logit[v] - logsumexp[n]) - (v == o.targets[n]));
      if (to.scale != NULL) to.scale[v] += g * o.arguments->factor * product[v];
      spread(&o, &to, n, v, g * factor_of(&o, v));
    }
  }
  return KP_OK;
}
