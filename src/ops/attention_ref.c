/* The ref kernels of attention: one row of scores at a time, differentiated by the definition. */
#include <math.h>
#include <string.h>

#include "backend/attention_values.h"
#include "ops/attention_row.h"
#include "ops/rules.h"

static kp_reference_rows rows_at(void *tensor, int64_t stride, int64_t first_token, int64_t column) {
  return (kp_reference_rows){(double *)tensor + first_token * stride + column, stride};
}

typedef struct head_view {
  kp_reference_rows q, k, v;
} head_view;

/* Head h of sequence b in q, k, v, or in their gradients, laid out alike. */
static head_view view_of(const kp_attention_arguments *a, void *q, void *k, void *v, int64_t b, int h) {
  const int64_t D = a->head_size, Dv = kp_attention_value_size(a), kv = h / (a->heads / a->kv_heads);
  const int64_t token = b * a->length;
  if (a->packed) {
    const int64_t stride = D * (a->heads + 2 * a->kv_heads);
    return (head_view){rows_at(q, stride, token, h * D), rows_at(q, stride, token, (a->heads + kv) * D),
                       rows_at(q, stride, token, (a->heads + a->kv_heads + kv) * D)};
  }
  return (head_view){rows_at(q, a->heads * D, token, h * D), rows_at(k, a->kv_heads * D, token, kv * D),
                     rows_at(v, a->kv_heads * Dv, token, kv * Dv)};
}

/* Where row t of head h of sequence b stands in o, and in what has one number a row and head. */
typedef struct output_place {
  int64_t vector, number;
} output_place;

static output_place place_of(const kp_attention_arguments *a, int64_t b, int64_t t, int h) {
  const int64_t number = (b * a->length + t) * a->heads + h;
  return (output_place){number * kp_attention_value_size(a), number};
}

size_t kp_ref_scratch_attention(const kp_node *node, int threads) {
  (void)threads;
  const kp_attention_arguments *a = node->arguments;
  const int64_t keys = node->operation == KP_OP_ATTENTION_CACHED ? node->input[1]->shape[2] : a->length;
  return (size_t)(keys + kp_attention_value_size(a)) * sizeof(double);
}

kp_status kp_ref_attention(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_node *node = call->node;
  const kp_attention_arguments *a = node->arguments;
  double *out = call->output[0], *logsumexp = call->output[1], *times = call->output[2],
         *norms = call->output[3], *p = call->scratch, time, norm;
  const int64_t T = a->length;
  for (int64_t b = 0; b < a->batch; b++)
    for (int h = 0; h < a->heads; h++) {
      const head_view view = view_of(a, call->input[0], call->input[1], call->input[2], b, h);
      kp_reference_head head =
          kp_reference_head_of(a, node->input[3], call->input[3], node->input[4], call->input[4], h);
      if (call->input[5] != NULL) head.documents = (const int32_t *)call->input[5] + b * T;
      for (int64_t t = 0; t < T; t++) {
        const output_place at = place_of(a, b, t, h);
        logsumexp[(b * a->heads + h) * T + t] =
            kp_reference_weights(&head, kp_reference_row(view.q, t), t, view.k, T, p);
        kp_reference_mean(&head, p, view.v, T, out + at.vector, &time, &norm);
        if (times != NULL) times[at.number] = time;
        if (norms != NULL) norms[at.number] = norm;
      }
    }
  return KP_OK;
}

/* ---- Backward ---- */

/* One row of the output and its gradient; what is absent is 0. */
typedef struct output_row {
  const double *o, *g; /* (D'); g may be NULL */
  double norm, time_bar;
} output_row;

/* The gradient of the mean's ambient coordinates: vector (D') to `bar`, E's is returned.  Adds to *gkappa. */
static double mean_bar(const kp_reference_head *head, const output_row *row, double *bar, double *gkappa) {
  const int size = head->value_size;
  const double product = row->g == NULL ? 0 : kp_reference_dot(row->g, row->o, size);
  const kp_value_mean_slopes slopes = kp_value_mean_backward(
      head->values, kp_reference_dot(row->o, row->o, size), row->norm, product, row->time_bar, head->kappa);
  for (int d = 0; d < size; d++)
    bar[d] = (row->g == NULL ? 0 : slopes.gradient * row->g[d]) + slopes.along * row->o[d];
  *gkappa += slopes.kappa;
  return slopes.extra;
}

/* d loss/d score_j = p_j (p'_j - Σ p p'), p' the gradient of the weights: the softmax's own gradient.  The
 * sum is <g, o> for the plain mean, and 0 for the others, which do not depend on the size of the weights. */
static void backward_row(const kp_reference_head *head, head_view view, head_view grad, int64_t t,
                         int64_t count, const output_row *row, double *p, double *gkappa, double *gbeta) {
  const int size = head->value_size;
  const double *q = kp_reference_row(view.q, t);
  double *bar = p + count;
  const double extra_bar = mean_bar(head, row, bar, gkappa);
  const double mean = head->values == KP_VALUES_MEAN ? kp_reference_dot(bar, row->o, size) : 0;
  kp_reference_weights(head, q, t, view.k, count, p);
  for (int64_t j = 0; j < count; j++) {
    const double *k = kp_reference_row(view.k, j), *v = kp_reference_row(view.v, j);
    double *gv = kp_reference_row(grad.v, j);
    if (p[j] == 0) continue;
    const double square = kp_reference_dot(v, v, size), along_v = kp_reference_dot(bar, v, size);
    const kp_value_row at = kp_value_row_of(head->values, square, head->kappa);
    const double along =
        kp_value_row_backward(head->values, square, head->kappa, p[j] * along_v, p[j] * extra_bar, gkappa);
    for (int d = 0; d < size; d++) gv[d] += p[j] * at.scale * bar[d] + along * v[d];
    const double gscore = p[j] * (at.scale * along_v + at.extra * extra_bar - mean);
    *gbeta += gscore * kp_reference_score(head, q, k);
    kp_reference_score_backward(head, q, k, head->beta * gscore, kp_reference_row(grad.q, t),
                                kp_reference_row(grad.k, j), gkappa);
  }
}

static double number_at(const double *numbers, int64_t i) {
  return numbers == NULL ? 0 : numbers[i];
}

/* Adds to the head's place in a gradient of (H) or (1) numbers. */
static void add_scalar(double *gradient, const kp_tensor *tensor, int h, double value) {
  if (gradient != NULL) gradient[kp_tensor_count(tensor) == 1 ? 0 : h] += value;
}

kp_status kp_ref_attention_backward(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_node *node = call->node;
  const kp_attention_arguments *a = node->arguments;
  const double *o = call->input[6], *go = call->input[9];
  for (int i = 0; i < 3; i++)
    if (call->output[i] != NULL)
      memset(call->output[i], 0, (size_t)kp_tensor_count(node->output[i]) * sizeof(double));
  for (int64_t b = 0; b < a->batch; b++)
    for (int h = 0; h < a->heads; h++) {
      const head_view view = view_of(a, call->input[0], call->input[1], call->input[2], b, h);
      const head_view grad = view_of(a, call->output[0], call->output[1], call->output[2], b, h);
      kp_reference_head head =
          kp_reference_head_of(a, node->input[3], call->input[3], node->input[4], call->input[4], h);
      if (call->input[5] != NULL) head.documents = (const int32_t *)call->input[5] + b * a->length;
      double kappa_bar = 0, beta_bar = 0;
      for (int64_t t = 0; t < a->length; t++) {
        const output_place at = place_of(a, b, t, h);
        const output_row row = {o + at.vector, go == NULL ? NULL : go + at.vector,
                                number_at(call->input[8], at.number), number_at(call->input[10], at.number)};
        backward_row(&head, view, grad, t, a->length, &row, call->scratch, &kappa_bar, &beta_bar);
      }
      add_scalar(call->output[3], node->input[3], h, kappa_bar);
      add_scalar(call->output[4], node->input[4], h, beta_bar);
    }
  return KP_OK;
}

/* ---- Over a cache ---- */

static kp_status check_room(int64_t start, int64_t length, int64_t room, kp_error *error) {
  if (start >= 0 && start + length <= room) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "positions %lld to %lld do not fit a cache of %lld", (long long)start,
                 (long long)(start + length - 1), (long long)room);
}

/* The new rows of a head over keys and values 0 … start+T-1. */
static void attend_new_rows(const kp_attention_arguments *a, const kp_reference_head *head,
                            kp_reference_rows q, kp_reference_rows k, kp_reference_rows v, int64_t b, int h,
                            int64_t start, void *const output[2], double *p) {
  double *out = output[0], *times = output[1], time, norm;
  for (int64_t t = 0; t < a->length; t++) {
    const output_place at = place_of(a, b, t, h);
    const int64_t seen = start + t + 1;
    kp_reference_weights(head, kp_reference_row(q, t), start + t, k, seen, p);
    kp_reference_mean(head, p, v, seen, out + at.vector, &time, &norm);
    if (times != NULL) times[at.number] = time;
  }
}

kp_status kp_ref_attention_cached(const kp_call *call, kp_error *error) {
  const kp_node *node = call->node;
  const kp_attention_arguments *a = node->arguments;
  const int64_t T = a->length, P = node->input[1]->shape[2], start = *(const int32_t *)call->input[3];
  const int64_t D = a->head_size, Dv = kp_attention_value_size(a);
  KP_TRY(check_room(start, T, P, error));
  for (int64_t b = 0; b < a->batch; b++)
    for (int h = 0; h < a->heads; h++) {
      const head_view view = view_of(a, call->input[0], call->input[6], call->input[7], b, h);
      const kp_reference_head head =
          kp_reference_head_of(a, node->input[4], call->input[4], node->input[5], call->input[5], h);
      const int64_t cache = (b * a->kv_heads + h / (a->heads / a->kv_heads)) * P;
      const kp_reference_rows k = {(double *)call->input[1] + cache * D, D},
                              v = {(double *)call->input[2] + cache * Dv, Dv};
      for (int64_t t = 0; t < T; t++) {
        memcpy(kp_reference_row(k, start + t), kp_reference_row(view.k, t), (size_t)D * sizeof(double));
        memcpy(kp_reference_row(v, start + t), kp_reference_row(view.v, t), (size_t)Dv * sizeof(double));
      }
      attend_new_rows(a, &head, view.q, k, v, b, h, start, call->output, call->scratch);
    }
  return KP_OK;
}

/* ---- Over a cache of latents ---- */

/* What expands a latent. */
typedef struct expansion {
  const double *norm_weight, *weight, *time_weight, *bias;
  int64_t latent_size, shared_size;
  double epsilon, c;
} expansion;

static expansion expansion_of(const kp_call *call) {
  const kp_attention_latent_arguments *l = call->node->arguments;
  const double *kappa = call->input[8];
  return (expansion){.norm_weight = call->input[4],
                     .weight = call->input[5],
                     .time_weight = call->input[6],
                     .bias = call->input[7],
                     .latent_size = l->latent_size,
                     .shared_size = l->shared_size,
                     .epsilon = l->epsilon,
                     .c = kappa == NULL ? 1 : kp_lorentz_radius(*kappa)};
}

/* The normalised latent to L (r); returns its time. */
static double normalise_latent(const expansion *e, const double *latent, double *L) {
  const int size = (int)e->latent_size;
  const double square = kp_reference_dot(latent, latent, size);
  const double inverse = 1 / sqrt(square / size + e->epsilon);
  for (int i = 0; i < size; i++)
    L[i] = e->norm_weight == NULL ? latent[i] : latent[i] * inverse * e->norm_weight[i];
  return kp_lorentz_time(kp_reference_dot(L, L, size), e->c);
}

/* Channels `first` … first+count-1 of z. */
static void expand(const expansion *e, const double *L, double time, int64_t first, int64_t count,
                   double *z) {
  for (int64_t i = 0; i < count; i++) {
    z[i] = kp_reference_dot(L, e->weight + (first + i) * e->latent_size, (int)e->latent_size);
    if (e->time_weight != NULL) z[i] += time * e->time_weight[first + i];
    if (e->bias != NULL) z[i] += e->bias[first + i];
  }
}

/* Key and value of head h at one position, from its row in the cache. */
static void expand_head(const expansion *e, const kp_attention_arguments *a, int h, const double *row,
                        double *L, double *k, double *v) {
  const int64_t own = a->head_size - e->shared_size, Dv = kp_attention_value_size(a);
  const double time = normalise_latent(e, row, L);
  expand(e, L, time, h * (own + Dv), own, k);
  expand(e, L, time, h * (own + Dv) + own, Dv, v);
  memcpy(k + own, row + e->latent_size, (size_t)e->shared_size * sizeof(double));
}

size_t kp_ref_scratch_attention_latent(const kp_node *node, int threads) {
  (void)threads;
  const kp_attention_latent_arguments *l = node->arguments;
  const int64_t row = l->attention.head_size + kp_attention_value_size(&l->attention) + 1;
  return (size_t)(node->input[2]->shape[1] * row + l->latent_size) * sizeof(double);
}

kp_status kp_ref_attention_latent_cached(const kp_call *call, kp_error *error) {
  const kp_node *node = call->node;
  const kp_attention_latent_arguments *l = node->arguments;
  const kp_attention_arguments *a = &l->attention;
  const int64_t T = a->length, P = node->input[2]->shape[1], start = *(const int32_t *)call->input[3];
  const int64_t D = a->head_size, Dv = kp_attention_value_size(a), width = l->latent_size + l->shared_size;
  const expansion e = expansion_of(call);
  KP_TRY(check_room(start, T, P, error));
  const kp_reference_rows k = {call->scratch, D}, v = {k.base + P * D, Dv};
  double *p = v.base + P * Dv, *L = p + P;
  for (int64_t b = 0; b < a->batch; b++) {
    double *rows = (double *)call->input[2] + b * P * width;
    memcpy(rows + start * width, (const double *)call->input[1] + b * T * width,
           (size_t)(T * width) * sizeof(double));
    for (int h = 0; h < a->heads; h++) {
      const kp_reference_head head =
          kp_reference_head_of(a, node->input[8], call->input[8], node->input[9], call->input[9], h);
      const kp_reference_rows q = rows_at(call->input[0], a->heads * D, b * T, h * D);
      for (int64_t j = 0; j < start + T; j++)
        expand_head(&e, a, h, rows + j * width, L, kp_reference_row(k, j), kp_reference_row(v, j));
      attend_new_rows(a, &head, q, k, v, b, h, start, call->output, p);
    }
  }
  return KP_OK;
}
