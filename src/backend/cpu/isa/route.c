/* The gate of a mixture of experts and its balance loss.
 *
 * Rows are shared among threads.  A row's choice is one pass over its scores
 * that keeps the k best so far in order; sorting the rows by expert is a
 * counting sort on the calling thread, some N·k steps. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "backend/cpu/isa/isa.h"
#include "backend/cpu/isa/split.h"
#include "backend/cpu/isa/vector_math.h"

/* Below this a sum of scores is no probability any more. */
static const float SMALLEST_SUM = 1e-20f;

/* ---- route ---- */

static void softmax_row(const float *l, int64_t E, float *p) {
  float largest = l[0], sum = 0;
  for (int64_t e = 1; e < E; e++) largest = l[e] > largest ? l[e] : largest;
#pragma omp simd reduction(+ : sum)
  for (int64_t e = 0; e < E; e++) {
    p[e] = kp_expf(l[e] - largest);
    sum += p[e];
  }
  const float factor = 1.0f / sum;
#pragma omp simd
  for (int64_t e = 0; e < E; e++) p[e] *= factor;
}

static void sigmoid_row(const float *l, int64_t E, float *p) {
#pragma omp simd
  for (int64_t e = 0; e < E; e++) p[e] = 1.0f / (1.0f + kp_expf(-l[e]));
}

/* Whether score a is chosen before score b: the larger, and what is not a number first of all. */
static inline bool before(float a, float b) {
  return isnan(a) ? !isnan(b) : a > b;
}

/* The sum of a group's two largest selection scores, or its only one. */
static float group_score(const float *selection, int64_t size) {
  float best = selection[0], second = -INFINITY;
  for (int64_t e = 1; e < size; e++) {
    const float s = selection[e];
    if (before(s, best)) {
      second = best;
      best = s;
    } else if (before(s, second)) {
      second = s;
    }
  }
  return size == 1 ? best : best + second;
}

/* Inserts experts [first, last) into the list of the best so far; returns its new length. */
static int insert_best(const float *selection, int64_t first, int64_t last, int choices, int32_t *indices,
                       int count) {
  for (int64_t e = first; e < last; e++) {
    if (count == choices && !before(selection[e], selection[indices[count - 1]])) continue;
    int place = count < choices ? count++ : count - 1;
    for (; place > 0 && before(selection[e], selection[indices[place - 1]]); place--)
      indices[place] = indices[place - 1];
    indices[place] = (int32_t)e;
  }
  return count;
}

/* `selection` holds E scores and behind them has room for one a group. */
static void choose(const kp_route_arguments *a, float *selection, int32_t *indices) {
  const int64_t size = a->experts / a->groups;
  float *of_group = selection + a->experts;
  int count = 0;
  for (int64_t g = 0; g < a->groups; g++) of_group[g] = group_score(selection + g * size, size);
  for (int64_t g = 0; g < a->groups; g++) {
    int ahead = 0;
    for (int64_t other = 0; other < a->groups; other++)
      ahead += before(of_group[other], of_group[g]) || (other < g && !before(of_group[g], of_group[other]));
    if (ahead < a->limited_groups)
      count = insert_best(selection, g * size, (g + 1) * size, a->choices, indices, count);
  }
}

static float log_sigmoid(float x) {
  return (x < 0 ? x : 0.0f) - log1pf(expf(-fabsf(x)));
}

/* Renormalised weights are a softmax of log p over the chosen: no sum can vanish. */
static void weigh(const kp_route_arguments *a, const float *l, const float *p, const int32_t *indices,
                  float *weights) {
  float largest = -INFINITY, sum = 0;
  for (int j = 0; j < a->choices; j++) {
    const float x = l[indices[j]];
    weights[j] = !a->renormalise ? p[indices[j]] : a->score == KP_GATE_SOFTMAX ? x : log_sigmoid(x);
    largest = weights[j] > largest ? weights[j] : largest;
  }
  for (int j = 0; j < a->choices && a->renormalise; j++) sum += weights[j] = expf(weights[j] - largest);
  const float factor = (float)a->scale / (a->renormalise ? sum : 1.0f);
  for (int j = 0; j < a->choices; j++) weights[j] *= factor;
}

/* Whether row n is no padding. */
static inline bool is_token(const int32_t *documents, int64_t n) {
  return documents == NULL || documents[n] >= 0;
}

static void count_choices(const int32_t *indices, const int32_t *documents, int64_t N, int64_t k,
                          int32_t *counts) {
  for (int64_t n = 0; n < N; n++)
    for (int64_t j = 0; j < k; j++) counts[indices[n * k + j]] += is_token(documents, n);
}

/* A stable sort of the (token, choice) pairs by expert; `next` has room for E places. */
static void sort_rows(const int32_t *indices, int64_t N, int64_t k, int64_t E, int32_t *next, int32_t *order,
                      int32_t *offsets, int32_t *slot) {
  memset(offsets, 0, (size_t)(E + 1) * sizeof *offsets);
  for (int64_t i = 0; i < N * k; i++) offsets[indices[i] + 1]++;
  for (int64_t e = 0; e < E; e++) offsets[e + 1] += offsets[e];
  memcpy(next, offsets, (size_t)E * sizeof *next);
  for (int64_t i = 0; i < N * k; i++) {
    slot[i] = next[indices[i]]++;
    order[slot[i]] = (int32_t)(i / k);
  }
}

/* Floats that a thread needs: a selection score an expert and one a group. */
static size_t selection_floats(const kp_route_arguments *a) {
  return (size_t)(a->experts + a->groups);
}

size_t KP_SCRATCH(route)(const kp_node *node, int threads) {
  const kp_route_arguments *a = node->arguments;
  return (size_t)a->experts * sizeof(int32_t) + (size_t)threads * selection_floats(a) * sizeof(float);
}

kp_status KP_KERNEL(route)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_route_arguments *a = call->node->arguments;
  const float *logits = call->input[0], *bias = call->input[1];
  int32_t *indices = call->output[0], *counts = call->output[3], *next = call->scratch;
  float *weights = call->output[1], *scores = call->output[2], *selections = (float *)(next + a->experts);
  const int64_t N = kp_tensor_rows(call->node->input[0]), E = a->experts, k = a->choices;
  const int threads = kp_threads_for(call, 20 * N * E);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; part++) {
    const kp_range range = kp_split(N, 1, part, threads);
    float *selection = selections + (size_t)part * selection_floats(a);
    for (int64_t n = range.first; n < range.last; n++) {
      float *p = scores + n * E;
      if (a->score == KP_GATE_SOFTMAX)
        softmax_row(logits + n * E, E, p);
      else
        sigmoid_row(logits + n * E, E, p);
      for (int64_t e = 0; e < E; e++) selection[e] = p[e] + (bias == NULL ? 0.0f : bias[e]);
      choose(a, selection, indices + n * k);
      weigh(a, logits + n * E, p, indices + n * k, weights + n * k);
    }
  }
  memset(counts, 0, (size_t)E * sizeof *counts);
  count_choices(indices, call->input[2], N, k, counts);
  sort_rows(indices, N, k, E, next, call->output[4], call->output[5], call->output[6]);
  return KP_OK;
}

/* gl holds the gradient of p and becomes that of the logits. */
static void score_backward(kp_gate_score score, const float *p, int64_t E, float *gl) {
  if (score == KP_GATE_SIGMOID) {
#pragma omp simd
    for (int64_t e = 0; e < E; e++) gl[e] = p[e] * (1.0f - p[e]) * gl[e];
    return;
  }
  double mean = 0;
#pragma omp simd reduction(+ : mean)
  for (int64_t e = 0; e < E; e++) mean += (double)p[e] * (double)gl[e];
#pragma omp simd
  for (int64_t e = 0; e < E; e++) gl[e] = p[e] * (gl[e] - (float)mean);
}

static void renormalised_backward(const kp_route_arguments *a, const float *p, const int32_t *indices,
                                  const float *w, const float *gw, float *gl) {
  double drawn = 0;
  for (int j = 0; j < a->choices; j++) drawn += (double)w[j] * (double)gw[j] / a->scale;
  for (int j = 0; j < a->choices; j++) {
    const float slope = a->score == KP_GATE_SOFTMAX ? 1.0f : 1.0f - p[indices[j]];
    gl[indices[j]] += w[j] * (float)((double)gw[j] - drawn) * slope;
  }
}

kp_status KP_KERNEL(route_backward)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_route_arguments *a = call->node->arguments;
  const float *scores = call->input[0], *weights = call->input[2], *gw = call->input[3], *gp = call->input[4];
  const int32_t *indices = call->input[1];
  float *g = call->output[0];
  const int64_t N = kp_tensor_rows(call->node->input[0]), E = a->experts, k = a->choices;
#pragma omp parallel for schedule(static) num_threads(kp_threads_for(call, 4 * N * E))
  for (int64_t n = 0; n < N; n++) {
    float *gl = g + n * E;
    if (gp != NULL)
      memcpy(gl, gp + n * E, (size_t)E * sizeof *gl);
    else
      memset(gl, 0, (size_t)E * sizeof *gl);
    for (int64_t j = 0; j < k && gw != NULL && !a->renormalise; j++)
      gl[indices[n * k + j]] += (float)a->scale * gw[n * k + j];
    score_backward(a->score, scores + n * E, E, gl);
    if (gw != NULL && a->renormalise)
      renormalised_backward(a, scores + n * E, indices + n * k, weights + n * k, gw + n * k, gl);
  }
  return KP_OK;
}

/* ---- balance_loss: a sum over rows of <f, p>/Σp, where f holds what each expert's share counts ---- */

size_t KP_SCRATCH(balance_loss)(const kp_node *node, int threads) {
  const kp_balance_arguments *a = node->arguments;
  const int64_t sequences = kp_tensor_rows(node->input[0]) / a->length;
  return (size_t)(sequences * kp_tensor_columns(node->input[0]) + threads) * sizeof(double);
}

size_t KP_SCRATCH(balance_loss_backward)(const kp_node *node, int threads) {
  return KP_SCRATCH(balance_loss)(node, threads);
}

/* f (sequences, E): alpha · frequency / (tokens that are no padding · sequences). */
static void frequencies(const kp_call *call, double *f) {
  const kp_balance_arguments *a = call->node->arguments;
  const int32_t *indices = call->input[1], *documents = call->input[2];
  const int64_t N = kp_tensor_rows(call->node->input[0]), E = kp_tensor_columns(call->node->input[0]);
  const int64_t k = kp_tensor_columns(call->node->input[1]), sequences = N / a->length;
  memset(f, 0, (size_t)(sequences * E) * sizeof *f);
  for (int64_t s = 0; s < sequences; s++) {
    int64_t tokens = 0;
    for (int64_t n = s * a->length; n < (s + 1) * a->length; n++) {
      if (!is_token(documents, n)) continue;
      tokens++;
      for (int64_t j = 0; j < k; j++) f[s * E + indices[n * k + j]]++;
    }
    if (tokens == 0) continue;
    const double factor = a->alpha * (double)E / ((double)a->choices * (double)(tokens * tokens * sequences));
    for (int64_t e = 0; e < E; e++) f[s * E + e] *= factor;
  }
}

/* The row's <f, p>/Σp; the floored sum goes to `sum`, with its sign turned where it was floored. */
static double balance_row(const double *f, const float *p, int64_t E, double *sum) {
  double weighted = 0, total = 0;
#pragma omp simd reduction(+ : weighted, total)
  for (int64_t e = 0; e < E; e++) {
    weighted += f[e] * (double)p[e];
    total += (double)p[e];
  }
  *sum = total < (double)SMALLEST_SUM ? -(double)SMALLEST_SUM : total;
  return weighted / fabs(*sum);
}

kp_status KP_KERNEL(balance_loss)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_balance_arguments *a = call->node->arguments;
  const float *scores = call->input[0];
  const int32_t *documents = call->input[2];
  const int64_t N = kp_tensor_rows(call->node->input[0]), E = kp_tensor_columns(call->node->input[0]);
  const int threads = kp_threads_for(call, 2 * N * E);
  double *f = call->scratch, *parts = f + N / a->length * E, loss = 0;
  frequencies(call, f);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; part++) {
    const kp_range range = kp_split(N, 1, part, threads);
    double own = 0, sum;
    for (int64_t n = range.first; n < range.last; n++)
      if (is_token(documents, n)) own += balance_row(f + n / a->length * E, scores + n * E, E, &sum);
    parts[part] = own;
  }
  for (int part = 0; part < threads; part++) loss += parts[part];
  *(float *)call->output[0] = (float)loss;
  return KP_OK;
}

kp_status KP_KERNEL(balance_loss_backward)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_balance_arguments *a = call->node->arguments;
  const float *scores = call->input[0];
  const int32_t *documents = call->input[2];
  const double g = (double)*(const float *)call->input[3];
  const int64_t N = kp_tensor_rows(call->node->input[0]), E = kp_tensor_columns(call->node->input[0]);
  double *f = call->scratch;
  float *gp = call->output[0];
  frequencies(call, f);
#pragma omp parallel for schedule(static) num_threads(kp_threads_for(call, 4 * N * E))
  for (int64_t n = 0; n < N; n++) {
    const double *own = f + n / a->length * E;
    float *row = gp + n * E;
    double sum = 1, mean = 0;
    const bool counts = is_token(documents, n);
    if (counts) mean = balance_row(own, scores + n * E, E, &sum);
    if (sum < 0) mean = 0, sum = -sum;
    const double factor = counts ? g / sum : 0;
#pragma omp simd
    for (int64_t e = 0; e < E; e++) row[e] = (float)(factor * (own[e] - mean));
  }
  return KP_OK;
}
