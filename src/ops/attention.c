/* Attention: softmax over causal or full rows of scores; the score is a parameter.
 *
 * The ref kernels hold one row of T scores at a time and differentiate it by
 * the definition; the fast ones tile.  Geodesic scores: q and k are tangent
 * vectors at the origin, d the distance of exp_0(q) and exp_0(k) in the space
 * of curvature κ (geometry/geodesic_score.h). */
#include <math.h>
#include <string.h>

#include "core/assert.h"
#include "geometry/geodesic_score.h"
#include "ops/rules.h"

kp_tensor *kp_attention(kp_graph *graph, kp_tensor *q, kp_tensor *k, kp_tensor *v, kp_tensor *curvature,
                        kp_tensor *temperature, kp_attention_arguments arguments) {
  const int64_t rows = arguments.batch * arguments.length;
  kp_assert(kp_tensor_rows(q) == rows, "%s has %lld rows for %lld", q->name, (long long)kp_tensor_rows(q),
            (long long)rows);
  kp_assert(arguments.heads % arguments.kv_heads == 0, "%d heads over %d key heads", arguments.heads,
            arguments.kv_heads);
  kp_assert(kp_tensor_columns(q) == (int64_t)arguments.head_size *
                                        (arguments.heads + (arguments.packed ? 2 * arguments.kv_heads : 0)),
            "%s has %lld columns", q->name, (long long)kp_tensor_columns(q));
  int64_t shape[KP_MAX_DIMENSIONS];
  memcpy(shape, q->shape, sizeof shape);
  shape[q->dimensions - 1] = (int64_t)arguments.heads * arguments.head_size;
  kp_tensor *output[] = {
      kp_graph_activation(graph, "attention", KP_TYPE_REAL, q->dimensions, shape),
      kp_graph_activation(graph, "logsumexp", KP_TYPE_STATISTIC, 3,
                          (int64_t[]){arguments.batch, arguments.heads, arguments.length})};
  kp_tensor *input[] = {q, k, v, curvature, temperature};
  kp_graph_node(graph, KP_OP_ATTENTION, &arguments, sizeof arguments, 5, input, 2, output);
  return output[0];
}

static kp_tensor *like(kp_graph *graph, const kp_tensor *tensor, const char *name) {
  return tensor == NULL ? NULL
                        : kp_graph_activation(graph, name, tensor->type, tensor->dimensions, tensor->shape);
}

void kp_backward_attention(kp_graph *graph, kp_node *node) {
  kp_tensor **in = node->input;
  kp_tensor *input[] = {kp_saved(graph, in[0]),           kp_saved(graph, in[1]),
                        kp_saved(graph, in[2]),           kp_saved(graph, in[3]),
                        kp_saved(graph, in[4]),           kp_saved(graph, node->output[0]),
                        kp_saved(graph, node->output[1]), kp_gradient(node->output[0])};
  kp_tensor *output[] = {like(graph, in[0], "g q"), like(graph, in[1], "g k"), like(graph, in[2], "g v"),
                         kp_gradient_accumulator(graph, in[3]), kp_gradient_accumulator(graph, in[4])};
  kp_graph_node(graph, KP_OP_ATTENTION_BACKWARD, node->arguments, node->arguments_size, 8, input, 5, output);
  for (int i = 0; i < 3; i++) kp_gradient_give(graph, in[i], output[i]);
  kp_gradient_accumulated(graph, in[3], output[3]);
  kp_gradient_accumulated(graph, in[4], output[4]);
}

kp_tensor *kp_attention_cached(kp_graph *graph, kp_tensor *qkv, kp_tensor *keys, kp_tensor *values,
                               kp_tensor *start, kp_tensor *curvature, kp_tensor *temperature,
                               kp_attention_arguments arguments) {
  int64_t shape[KP_MAX_DIMENSIONS];
  memcpy(shape, qkv->shape, sizeof shape);
  shape[qkv->dimensions - 1] = (int64_t)arguments.heads * arguments.head_size;
  kp_tensor *out = kp_graph_activation(graph, "attention", KP_TYPE_REAL, qkv->dimensions, shape);
  kp_tensor *input[] = {qkv, keys, values, start, curvature, temperature};
  kp_graph_node(graph, KP_OP_ATTENTION_CACHED, &arguments, sizeof arguments, 6, input, 1, &out);
  return out;
}

/* ---- ref ---- */

/* Where the rows of q, k, v (or their gradients) of one batch element and head stand. */
typedef struct head_rows {
  double *base;
  int64_t stride; /* between tokens */
} head_rows;

static head_rows rows_at(void *tensor, int64_t stride, int64_t first_token, int64_t column) {
  return (head_rows){(double *)tensor + first_token * stride + column, stride};
}

typedef struct head_view {
  head_rows q, k, v;
} head_view;

/* `part`: the tensors q, k, v or their gradients, laid out alike. */
static head_view view_of(const kp_attention_arguments *a, void *const part[3], int64_t b, int h) {
  const int D = a->head_size, kv = h / (a->heads / a->kv_heads);
  const int64_t token = b * a->length;
  if (a->packed) {
    const int64_t stride = (int64_t)D * (a->heads + 2 * a->kv_heads);
    return (head_view){rows_at(part[0], stride, token, (int64_t)h * D),
                       rows_at(part[0], stride, token, (int64_t)(a->heads + kv) * D),
                       rows_at(part[0], stride, token, (int64_t)(a->heads + a->kv_heads + kv) * D)};
  }
  const int64_t width = (int64_t)a->heads * D, kv_width = (int64_t)a->kv_heads * D;
  return (head_view){rows_at(part[0], width, token, (int64_t)h * D),
                     rows_at(part[1], kv_width, token, (int64_t)kv * D),
                     rows_at(part[2], kv_width, token, (int64_t)kv * D)};
}

/* The score of one pair and its derivatives. */
typedef struct head_score {
  kp_score kind;
  int D;
  double scale, kappa, beta;
} head_score;

static double dot(const double *a, const double *b, int D) {
  double sum = 0;
  for (int d = 0; d < D; d++) sum += a[d] * b[d];
  return sum;
}

/* A pair of tangent vectors at the origin and the distance of the points that they lead to. */
typedef struct geodesic {
  kp_geodesic_row q, k;
  double inner; /* <m_q, m_k> */
  kp_geodesic_pair pair;
} geodesic;

static geodesic geodesic_of(const head_score *s, const double *q, const double *k) {
  geodesic g = {.q = kp_geodesic_row_of(dot(q, q, s->D), s->kappa),
                .k = kp_geodesic_row_of(dot(k, k, s->D), s->kappa)};
  g.inner = g.q.scale * g.k.scale * dot(q, k, s->D);
  g.pair = kp_geodesic_pair_of(&g.q, &g.k, g.inner, s->kappa, s->kind == KP_SCORE_DISTANCE ? 1 : 2);
  return g;
}

static double score(const head_score *s, const double *q, const double *k) {
  if (s->kind == KP_SCORE_DOT) return s->scale * dot(q, k, s->D);
  return -s->beta * geodesic_of(s, q, k).pair.distance;
}

/* Adds the gradient of u through m = scale u, alpha = |m|² and the cosine; m_other is the pair's other m. */
static void row_backward(const head_score *s, const kp_geodesic_row *row, const double *u, double other_scale,
                         const double *other, double inner_bar, double alpha_bar, double cosine_bar,
                         double *gu, double *gkappa) {
  const double along_other = inner_bar * other_scale, along_own = 2 * alpha_bar * row->scale;
  const double m_bar_u = along_other * dot(other, u, s->D) + along_own * dot(u, u, s->D);
  const double z_bar = kp_geodesic_row_backward(dot(u, u, s->D), s->kappa, m_bar_u, cosine_bar, gkappa);
  for (int d = 0; d < s->D; d++)
    gu[d] += row->scale * (along_other * other[d] + along_own * u[d]) + 2 * s->kappa * z_bar * u[d];
}

/* Adds the gradients of the score times `g`. */
static void score_backward(const head_score *s, const double *q, const double *k, double g, double *gq,
                           double *gk, double *gkappa, double *gbeta) {
  if (s->kind == KP_SCORE_DOT) {
    for (int d = 0; d < s->D; d++) {
      gq[d] += g * s->scale * k[d];
      gk[d] += g * s->scale * q[d];
    }
    return;
  }
  const geodesic p = geodesic_of(s, q, k);
  const kp_geodesic_pair_slopes slopes =
      kp_geodesic_pair_backward(&p.pair, &p.q, &p.k, p.inner, -s->beta * g);
  *gbeta -= g * p.pair.distance;
  *gkappa += slopes.kappa;
  row_backward(s, &p.q, q, p.k.scale, k, slopes.inner, slopes.alpha_i, slopes.cosine_i, gq, gkappa);
  row_backward(s, &p.k, k, p.q.scale, q, slopes.inner, slopes.alpha_j, slopes.cosine_j, gk, gkappa);
}

static head_score head_score_of(const kp_attention_arguments *a, const double *kappa, const double *beta,
                                int h) {
  return (head_score){a->score, a->head_size, a->scale, kappa == NULL ? 0 : kappa[h],
                      beta == NULL ? 1 : beta[h]};
}

/* One row of scores for a query that sees `visible` keys; turned into probabilities.  Returns their
 * log-sum-exp. */
static double softmax_row(const head_score *s, const double *q, head_rows k, int64_t visible, double *p) {
  double largest = -HUGE_VAL, sum = 0;
  for (int64_t j = 0; j < visible; j++) {
    p[j] = score(s, q, k.base + j * k.stride);
    largest = p[j] > largest || isnan(p[j]) ? p[j] : largest;
  }
  for (int64_t j = 0; j < visible; j++) sum += exp(p[j] - largest);
  const double logsumexp = largest + log(sum);
  for (int64_t j = 0; j < visible; j++) p[j] = exp(p[j] - logsumexp);
  return logsumexp;
}

static void weigh_values(const double *p, head_rows v, int64_t visible, int D, double *out) {
  memset(out, 0, (size_t)D * sizeof *out);
  for (int64_t j = 0; j < visible; j++)
    for (int d = 0; d < D; d++) out[d] += p[j] * v.base[j * v.stride + d];
}

size_t kp_ref_scratch_attention(const kp_node *node, int threads) {
  (void)threads;
  const kp_attention_arguments *a = node->arguments;
  int64_t keys = node->operation == KP_OP_ATTENTION_CACHED ? node->input[1]->shape[2] : a->length;
  return (size_t)keys * sizeof(double);
}

kp_status kp_ref_attention(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_attention_arguments *a = call->node->arguments;
  double *out = call->output[0], *logsumexp = call->output[1], *p = call->scratch;
  const int64_t T = a->length, width = (int64_t)a->heads * a->head_size;
  for (int64_t b = 0; b < a->batch; b++)
    for (int h = 0; h < a->heads; h++) {
      const head_view view = view_of(a, call->input, b, h);
      const head_score s = head_score_of(a, call->input[3], call->input[4], h);
      for (int64_t t = 0; t < T; t++) {
        const int64_t visible = a->causal ? t + 1 : T;
        logsumexp[(b * a->heads + h) * T + t] =
            softmax_row(&s, view.q.base + t * view.q.stride, view.k, visible, p);
        weigh_values(p, view.v, visible, a->head_size, out + (b * T + t) * width + (int64_t)h * a->head_size);
      }
    }
  return KP_OK;
}

/* d loss/d score_j = p_j (<go, v_j> - <go, o>): the softmax's own gradient. */
static void backward_row(const head_score *s, const kp_attention_arguments *a, head_view view, head_view grad,
                         int64_t t, const double *o, const double *go, double *p, double *gkappa,
                         double *gbeta) {
  const int D = a->head_size;
  const int64_t visible = a->causal ? t + 1 : a->length;
  const double *q = view.q.base + t * view.q.stride;
  const double mean = dot(go, o, D);
  softmax_row(s, q, view.k, visible, p);
  for (int64_t j = 0; j < visible; j++) {
    const double *v = view.v.base + j * view.v.stride;
    double *gv = grad.v.base + j * grad.v.stride;
    const double gscore = p[j] * (dot(go, v, D) - mean);
    for (int d = 0; d < D; d++) gv[d] += p[j] * go[d];
    score_backward(s, q, view.k.base + j * view.k.stride, gscore, grad.q.base + t * grad.q.stride,
                   grad.k.base + j * grad.k.stride, gkappa, gbeta);
  }
}

kp_status kp_ref_attention_backward(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_attention_arguments *a = call->node->arguments;
  const double *o = call->input[5], *go = call->input[7];
  double *gkappa = call->output[3], *gbeta = call->output[4], *p = call->scratch;
  const int64_t T = a->length, width = (int64_t)a->heads * a->head_size;
  for (int i = 0; i < 3; i++)
    if (call->output[i] != NULL)
      memset(call->output[i], 0, (size_t)kp_tensor_count(call->node->output[i]) * sizeof(double));
  for (int64_t b = 0; b < a->batch; b++)
    for (int h = 0; h < a->heads; h++) {
      const head_view view = view_of(a, call->input, b, h), grad = view_of(a, call->output, b, h);
      const head_score s = head_score_of(a, call->input[3], call->input[4], h);
      double kappa_bar = 0, beta_bar = 0;
      for (int64_t t = 0; t < T; t++) {
        const int64_t at = (b * T + t) * width + (int64_t)h * a->head_size;
        backward_row(&s, a, view, grad, t, o + at, go + at, p, &kappa_bar, &beta_bar);
      }
      if (gkappa != NULL) gkappa[h] += kappa_bar;
      if (gbeta != NULL) gbeta[h] += beta_bar;
    }
  return KP_OK;
}

kp_status kp_ref_attention_cached(const kp_call *call, kp_error *error) {
  const kp_attention_arguments *a = call->node->arguments;
  const int64_t T = a->length, P = call->node->input[1]->shape[2], start = *(const int32_t *)call->input[3];
  const int D = a->head_size;
  if (start < 0 || start + T > P)
    return kp_fail(error, KP_ERR_INPUT, "positions %lld to %lld do not fit a cache of %lld", (long long)start,
                   (long long)(start + T - 1), (long long)P);
  double *keys = call->input[1], *values = call->input[2], *out = call->output[0], *p = call->scratch;
  for (int64_t b = 0; b < a->batch; b++)
    for (int h = 0; h < a->heads; h++) {
      const head_view view = view_of(a, call->input, b, h);
      const head_score s = head_score_of(a, call->input[4], call->input[5], h);
      const int64_t cache = (b * a->kv_heads + h / (a->heads / a->kv_heads)) * P * D;
      const head_rows k = {keys + cache, D}, v = {values + cache, D};
      for (int64_t t = 0; t < T; t++) {
        memcpy(k.base + (start + t) * D, view.k.base + t * view.k.stride, (size_t)D * sizeof(double));
        memcpy(v.base + (start + t) * D, view.v.base + t * view.v.stride, (size_t)D * sizeof(double));
        softmax_row(&s, view.q.base + t * view.q.stride, k, start + t + 1, p);
        weigh_values(p, v, start + t + 1, D, out + (b * T + t) * (int64_t)a->heads * D + (int64_t)h * D);
      }
    }
  return KP_OK;
}
