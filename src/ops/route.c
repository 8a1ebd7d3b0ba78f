/* The gate of a mixture of experts: which experts a token goes to, with what weights, and the loss that keeps
 * them equally busy. */
#include <math.h>
#include <string.h>

#include "core/assert.h"
#include "ops/rules.h"

/* Below this a sum of scores is no probability any more. */
static const double SMALLEST_SUM = 1e-20;

static kp_tensor *integers(kp_graph *graph, const char *name, int64_t count) {
  return kp_graph_activation(graph, name, KP_TYPE_INT32, 1, &count);
}

/* ---- route ---- */

static kp_tensor *widened(kp_graph *graph, const kp_tensor *tensor, const char *name, kp_type type,
                          int64_t columns) {
  int64_t shape[KP_MAX_DIMENSIONS];
  memcpy(shape, tensor->shape, sizeof shape);
  shape[tensor->dimensions - 1] = columns;
  return kp_graph_activation(graph, name, type, tensor->dimensions, shape);
}

kp_routing kp_route_tokens(kp_graph *graph, kp_tensor *logits, kp_tensor *bias, kp_tensor *documents,
                           kp_route_arguments arguments) {
  const int64_t N = kp_tensor_rows(logits), E = arguments.experts, k = arguments.choices;
  const int groups = arguments.groups < 1 ? 1 : arguments.groups;
  const int limited = groups == 1 ? 1 : arguments.limited_groups;
  kp_assert(kp_tensor_columns(logits) == E, "%s is not a logit for each of %lld experts", logits->name,
            (long long)E);
  kp_assert(E % groups == 0 && limited >= 1 && limited <= groups, "%d of %d groups of %lld experts", limited,
            groups, (long long)E);
  kp_assert(k >= 1 && k <= E / groups * limited, "%lld choices among %lld experts", (long long)k,
            (long long)(E / groups * limited));
  kp_assert(documents == NULL || kp_tensor_count(documents) == N, "one document for each row of logits");
  arguments.groups = groups;
  arguments.limited_groups = limited;
  const kp_routing r = {.indices = widened(graph, logits, "experts", KP_TYPE_INT32, k),
                        .weights = widened(graph, logits, "weights", KP_TYPE_STATISTIC, k),
                        .scores = widened(graph, logits, "scores", KP_TYPE_STATISTIC, E),
                        .counts = integers(graph, "counts", E),
                        .order = integers(graph, "order", N * k),
                        .offsets = integers(graph, "offsets", E + 1),
                        .slot = widened(graph, logits, "slot", KP_TYPE_INT32, k)};
  kp_tensor *input[] = {logits, bias, documents};
  kp_tensor *output[] = {r.indices, r.weights, r.scores, r.counts, r.order, r.offsets, r.slot};
  kp_graph_node(graph, KP_OP_ROUTE, &arguments, sizeof arguments, 3, input, 7, output);
  return r;
}

void kp_backward_route(kp_graph *graph, kp_node *node) {
  kp_tensor *logits = node->input[0], *indices = node->output[0], *weights = node->output[1],
            *scores = node->output[2];
  kp_tensor *input[] = {kp_saved(graph, scores), kp_saved(graph, indices), kp_saved(graph, weights),
                        kp_gradient(weights), kp_gradient(scores)};
  kp_tensor *g = kp_graph_activation(graph, "g logits", logits->type, logits->dimensions, logits->shape);
  kp_graph_node(graph, KP_OP_ROUTE_BACKWARD, node->arguments, node->arguments_size, 5, input, 1, &g);
  kp_gradient_give(graph, logits, g);
}

static void score_row(kp_gate_score score, const double *l, int64_t E, double *p) {
  double largest = l[0], sum = 0;
  if (score == KP_GATE_SIGMOID) {
    for (int64_t e = 0; e < E; e++) p[e] = l[e] >= 0 ? 1 / (1 + exp(-l[e])) : exp(l[e]) / (1 + exp(l[e]));
    return;
  }
  for (int64_t e = 1; e < E; e++) largest = fmax(largest, l[e]);
  for (int64_t e = 0; e < E; e++) sum += p[e] = exp(l[e] - largest);
  for (int64_t e = 0; e < E; e++) p[e] /= sum;
}

static bool before(double a, double b) {
  return isnan(a) ? !isnan(b) : a > b;
}

static double selection(const double *p, const double *bias, int64_t e) {
  return p[e] + (bias == NULL ? 0 : bias[e]);
}

/* The sum of a group's two largest selection scores, or its only one. */
static double group_score(const double *p, const double *bias, int64_t first, int64_t size) {
  double best = selection(p, bias, first), second = -HUGE_VAL;
  for (int64_t e = first + 1; e < first + size; e++) {
    const double s = selection(p, bias, e);
    if (before(s, best)) {
      second = best;
      best = s;
    } else if (before(s, second)) {
      second = s;
    }
  }
  return size == 1 ? best : best + second;
}

/* Whether fewer than `limited_groups` groups come before this expert's. */
static bool in_reach(const kp_route_arguments *a, const double *p, const double *bias, int64_t e) {
  const int64_t size = a->experts / a->groups, own = e / size;
  const double score = group_score(p, bias, own * size, size);
  int64_t ahead = 0;
  for (int64_t g = 0; g < a->groups; g++) {
    const double other = group_score(p, bias, g * size, size);
    ahead += before(other, score) || (g < own && !before(score, other));
  }
  return ahead < a->limited_groups;
}

static bool among(const int32_t *indices, int64_t count, int64_t e) {
  for (int64_t j = 0; j < count; j++)
    if (indices[j] == e) return true;
  return false;
}

static void choose(const kp_route_arguments *a, const double *p, const double *bias, int32_t *indices) {
  for (int64_t j = 0; j < a->choices; j++) {
    int64_t best = -1;
    for (int64_t e = 0; e < a->experts; e++) {
      if (among(indices, j, e) || !in_reach(a, p, bias, e)) continue;
      if (best < 0 || before(selection(p, bias, e), selection(p, bias, best))) best = e;
    }
    indices[j] = (int32_t)best;
  }
}

/* Renormalised weights are a softmax of log p over the chosen: no sum can vanish. */
static void weigh(const kp_route_arguments *a, const double *l, const double *p, const int32_t *indices,
                  double *weights) {
  double largest = -HUGE_VAL, sum = 0;
  for (int64_t j = 0; j < a->choices; j++) {
    const double x = l[indices[j]];
    weights[j] = !a->renormalise               ? p[indices[j]]
                 : a->score == KP_GATE_SOFTMAX ? x
                                               : fmin(x, 0) - log1p(exp(-fabs(x)));
    largest = fmax(largest, weights[j]);
  }
  if (a->renormalise) {
    for (int64_t j = 0; j < a->choices; j++) sum += weights[j] = exp(weights[j] - largest);
    for (int64_t j = 0; j < a->choices; j++) weights[j] /= sum;
  }
  for (int64_t j = 0; j < a->choices; j++) weights[j] *= a->scale;
}

/* A stable sort of the (token, choice) pairs by expert. */
static void sort_rows(const int32_t *indices, int64_t N, int64_t k, int64_t E, int32_t *order,
                      int32_t *offsets, int32_t *slot) {
  int32_t row = 0;
  for (int64_t e = 0; e < E; e++) {
    offsets[e] = row;
    for (int64_t i = 0; i < N * k; i++) {
      if (indices[i] != e) continue;
      order[row] = (int32_t)(i / k);
      slot[i] = row++;
    }
  }
  offsets[E] = row;
}

kp_status kp_ref_route(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_route_arguments *a = call->node->arguments;
  const double *logits = call->input[0], *bias = call->input[1];
  const int32_t *documents = call->input[2];
  int32_t *indices = call->output[0], *counts = call->output[3];
  double *weights = call->output[1], *scores = call->output[2];
  const int64_t N = kp_tensor_rows(call->node->input[0]), E = a->experts, k = a->choices;
  memset(counts, 0, (size_t)E * sizeof *counts);
  for (int64_t n = 0; n < N; n++) {
    score_row(a->score, logits + n * E, E, scores + n * E);
    choose(a, scores + n * E, bias, indices + n * k);
    weigh(a, logits + n * E, scores + n * E, indices + n * k, weights + n * k);
    for (int64_t j = 0; j < k; j++) counts[indices[n * k + j]] += documents == NULL || documents[n] >= 0;
  }
  sort_rows(indices, N, k, E, call->output[4], call->output[5], call->output[6]);
  return KP_OK;
}

/* Without renormalisation g p gains scale · g w, and goes through softmax or sigmoid; with it, the weights
 * are scale times a softmax over the chosen of l or log sigmoid(l). */
kp_status kp_ref_route_backward(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_route_arguments *a = call->node->arguments;
  const double *scores = call->input[0], *weights = call->input[2], *gw = call->input[3],
               *gp = call->input[4];
  const int32_t *indices = call->input[1];
  double *g = call->output[0];
  const int64_t N = kp_tensor_rows(call->node->input[0]), E = a->experts, k = a->choices;
  for (int64_t n = 0; n < N; n++) {
    const double *p = scores + n * E;
    double *gl = g + n * E, mean = 0, drawn = 0;
    for (int64_t e = 0; e < E; e++) gl[e] = gp == NULL ? 0 : gp[n * E + e];
    for (int64_t j = 0; j < k && gw != NULL && !a->renormalise; j++)
      gl[indices[n * k + j]] += a->scale * gw[n * k + j];
    for (int64_t e = 0; e < E; e++) mean += p[e] * gl[e];
    for (int64_t e = 0; e < E; e++)
      gl[e] = a->score == KP_GATE_SOFTMAX ? p[e] * (gl[e] - mean) : p[e] * (1 - p[e]) * gl[e];
    if (gw == NULL || !a->renormalise) continue;
    for (int64_t j = 0; j < k; j++) drawn += weights[n * k + j] * gw[n * k + j] / a->scale;
    for (int64_t j = 0; j < k; j++) {
      const int64_t e = indices[n * k + j];
      gl[e] += weights[n * k + j] * (gw[n * k + j] - drawn) * (a->score == KP_GATE_SOFTMAX ? 1 : 1 - p[e]);
    }
  }
  return KP_OK;
}

/* ---- balance_loss ---- */

kp_tensor *kp_balance_loss(kp_graph *graph, const kp_routing *routing, kp_tensor *documents,
                           kp_balance_arguments arguments) {
  const int64_t N = kp_tensor_rows(routing->scores);
  if (arguments.length == 0) arguments.length = N;
  kp_assert(N % arguments.length == 0, "%lld rows are no sequences of %lld", (long long)N,
            (long long)arguments.length);
  kp_assert(arguments.choices >= 1, "%d choices", arguments.choices);
  kp_tensor *loss = kp_graph_activation(graph, "balance", KP_TYPE_STATISTIC, 1, (int64_t[]){1});
  kp_tensor *input[] = {routing->scores, routing->indices, documents};
  kp_graph_node(graph, KP_OP_BALANCE_LOSS, &arguments, sizeof arguments, 3, input, 1, &loss);
  return loss;
}

void kp_backward_balance_loss(kp_graph *graph, kp_node *node) {
  kp_tensor *scores = node->input[0];
  kp_tensor *input[] = {kp_saved(graph, scores), kp_saved(graph, node->input[1]), node->input[2],
                        kp_gradient(node->output[0])};
  kp_tensor *g = kp_graph_activation(graph, "g scores", scores->type, scores->dimensions, scores->shape);
  kp_graph_node(graph, KP_OP_BALANCE_LOSS_BACKWARD, node->arguments, node->arguments_size, 4, input, 1, &g);
  kp_gradient_give(graph, scores, g);
}

/* What forward and backward share: the frequency of one expert in the sequence that starts at row `first`,
 * times what the P of each of its tokens counts in the loss. */
typedef struct balance {
  const kp_balance_arguments *arguments;
  const int32_t *indices, *documents;
  int64_t N, E, k;
} balance;

static balance balance_of(const kp_call *call) {
  return (balance){.arguments = call->node->arguments,
                   .indices = call->input[1],
                   .documents = call->input[2],
                   .N = kp_tensor_rows(call->node->input[0]),
                   .E = kp_tensor_columns(call->node->input[0]),
                   .k = kp_tensor_columns(call->node->input[1])};
}

static bool is_token(const balance *b, int64_t n) {
  return b->documents == NULL || b->documents[n] >= 0;
}

static double frequency(const balance *b, int64_t first, int64_t e) {
  const int64_t T = b->arguments->length;
  int64_t tokens = 0, chosen = 0;
  for (int64_t n = first; n < first + T; n++) {
    if (!is_token(b, n)) continue;
    tokens++;
    for (int64_t j = 0; j < b->k; j++) chosen += b->indices[n * b->k + j] == e;
  }
  if (tokens == 0) return 0;
  const double f = (double)(chosen * b->E) / (double)(b->arguments->choices * tokens);
  return b->arguments->alpha * f / (double)tokens * (double)T / (double)b->N;
}

static double score_sum(const double *p, int64_t E) {
  double sum = 0;
  for (int64_t e = 0; e < E; e++) sum += p[e];
  return sum;
}

kp_status kp_ref_balance_loss(const kp_call *call, kp_error *error) {
  (void)error;
  const balance b = balance_of(call);
  const double *scores = call->input[0];
  const int64_t T = b.arguments->length;
  double loss = 0;
  for (int64_t first = 0; first < b.N; first += T)
    for (int64_t e = 0; e < b.E; e++) {
      const double f = frequency(&b, first, e);
      for (int64_t n = first; n < first + T; n++) {
        const double sum = score_sum(scores + n * b.E, b.E);
        if (is_token(&b, n)) loss += f * scores[n * b.E + e] / (sum < SMALLEST_SUM ? SMALLEST_SUM : sum);
      }
    }
  *(double *)call->output[0] = loss;
  return KP_OK;
}

kp_status kp_ref_balance_loss_backward(const kp_call *call, kp_error *error) {
  (void)error;
  const balance b = balance_of(call);
  const double *scores = call->input[0], g = *(const double *)call->input[3];
  double *gp = call->output[0];
  const int64_t T = b.arguments->length;
  for (int64_t n = 0; n < b.N; n++) {
    const double *p = scores + n * b.E, sum = score_sum(p, b.E);
    const bool tiny = sum < SMALLEST_SUM;
    double mean = 0;
    for (int64_t e = 0; e < b.E; e++) gp[n * b.E + e] = is_token(&b, n) ? g * frequency(&b, n / T * T, e) : 0;
    for (int64_t e = 0; e < b.E && !tiny; e++) mean += gp[n * b.E + e] * p[e] / sum;
    for (int64_t e = 0; e < b.E; e++)
      gp[n * b.E + e] = (gp[n * b.E + e] - mean) / (tiny ? SMALLEST_SUM : sum);
  }
  return KP_OK;
}
