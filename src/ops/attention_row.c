#include "ops/attention_row.h"

#include <math.h>
#include <string.h>

#include "backend/attention_values.h"
#include "geometry/geodesic_score.h"

static double scalar_of(const kp_tensor *tensor, const double *values, int h, double absent) {
  if (tensor == NULL) return absent;
  return values[kp_tensor_count(tensor) == 1 ? 0 : h];
}

kp_reference_head kp_reference_head_of(const kp_attention_arguments *a, const kp_tensor *curvature,
                                       const double *kappa, const kp_tensor *temperature, const double *beta,
                                       int h) {
  return (kp_reference_head){.score = a->score,
                             .values = a->values,
                             .size = a->head_size,
                             .value_size = kp_attention_value_size(a),
                             .scale = kp_attention_scale(a),
                             .kappa = scalar_of(curvature, kappa, h, kp_attention_curvature(a)),
                             .beta = scalar_of(temperature, beta, h, 1),
                             .causal = a->causal};
}

double kp_reference_dot(const double *a, const double *b, int size) {
  double sum = 0;
  for (int d = 0; d < size; d++) sum += a[d] * b[d];
  return sum;
}

/* ---- Geodesic scores ---- */

/* A pair of tangent vectors at the origin and the distance of the points that they lead to. */
typedef struct geodesic {
  kp_geodesic_row q, k;
  double inner; /* <m_q, m_k> */
  kp_geodesic_pair pair;
} geodesic;

static geodesic geodesic_of(const kp_reference_head *s, const double *q, const double *k) {
  const double square = s->scale * s->scale;
  geodesic g = {.q = kp_geodesic_row_of(square * kp_reference_dot(q, q, s->size), s->kappa),
                .k = kp_geodesic_row_of(square * kp_reference_dot(k, k, s->size), s->kappa)};
  g.inner = g.q.scale * g.k.scale * square * kp_reference_dot(q, k, s->size);
  g.pair = kp_geodesic_pair_of(&g.q, &g.k, g.inner, s->kappa, s->score == KP_SCORE_DISTANCE ? 1 : 2);
  return g;
}

/* Adds the gradient of row u through m = scale' scale u, alpha = |m|² and the cosine; `other` is the pair's
 * other row. */
static void geodesic_row_backward(const kp_reference_head *s, const kp_geodesic_row *row, const double *u,
                                  double other_scale, const double *other, double inner_bar, double alpha_bar,
                                  double cosine_bar, double *gu, double *gkappa) {
  const double square = s->scale * s->scale, norm = square * kp_reference_dot(u, u, s->size);
  const double along_other = inner_bar * other_scale, along_own = 2 * alpha_bar * row->scale;
  const double m_bar_u = along_other * square * kp_reference_dot(other, u, s->size) + along_own * norm;
  const double z_bar = kp_geodesic_row_backward(norm, s->kappa, m_bar_u, cosine_bar, gkappa);
  for (int d = 0; d < s->size; d++)
    gu[d] +=
        square * (row->scale * (along_other * other[d] + along_own * u[d]) + 2 * s->kappa * z_bar * u[d]);
}

static void geodesic_backward(const kp_reference_head *s, const double *q, const double *k, double g,
                              double *gq, double *gk, double *gkappa) {
  const geodesic p = geodesic_of(s, q, k);
  const kp_geodesic_pair_slopes slopes = kp_geodesic_pair_backward(&p.pair, &p.q, &p.k, p.inner, -g);
  *gkappa += slopes.kappa;
  geodesic_row_backward(s, &p.q, q, p.k.scale, k, slopes.inner, slopes.alpha_i, slopes.cosine_i, gq, gkappa);
  geodesic_row_backward(s, &p.k, k, p.q.scale, q, slopes.inner, slopes.alpha_j, slopes.cosine_j, gk, gkappa);
}

/* ---- Lorentz scores ---- */

static double row_time(const kp_reference_head *s, const double *u) {
  return kp_lorentz_time(s->scale * s->scale * kp_reference_dot(u, u, s->size), kp_lorentz_radius(s->kappa));
}

static double lorentz_score(const kp_reference_head *s, const double *q, const double *k) {
  const double inner = s->scale * s->scale * kp_reference_dot(q, k, s->size);
  return 2 * (kp_lorentz_radius(s->kappa) + inner - row_time(s, q) * row_time(s, k));
}

static void lorentz_backward(const kp_reference_head *s, const double *q, const double *k, double g,
                             double *gq, double *gk, double *gkappa) {
  const double qt = row_time(s, q), kt = row_time(s, k), c = kp_lorentz_radius(s->kappa);
  const double factor = 2 * g * s->scale * s->scale;
  for (int d = 0; d < s->size; d++) {
    gq[d] += factor * (k[d] - kt / qt * q[d]);
    gk[d] += factor * (q[d] - qt / kt * k[d]);
  }
  *gkappa += g * c * c * kp_lorentz_score_by_radius(qt, kt);
}

/* ---- All scores ---- */

double kp_reference_score(const kp_reference_head *s, const double *q, const double *k) {
  switch (s->score) {
  case KP_SCORE_DOT: return s->scale * kp_reference_dot(q, k, s->size);
  case KP_SCORE_LORENTZ: return lorentz_score(s, q, k);
  default: return -geodesic_of(s, q, k).pair.distance;
  }
}

void kp_reference_score_backward(const kp_reference_head *s, const double *q, const double *k, double g,
                                 double *gq, double *gk, double *gkappa) {
  if (s->score == KP_SCORE_LORENTZ) {
    lorentz_backward(s, q, k, g, gq, gk, gkappa);
  } else if (s->score != KP_SCORE_DOT) {
    geodesic_backward(s, q, k, g, gq, gk, gkappa);
  } else {
    for (int d = 0; d < s->size; d++) {
      gq[d] += g * s->scale * k[d];
      gk[d] += g * s->scale * q[d];
    }
  }
}

static bool sees(const kp_reference_head *s, int64_t t, int64_t j) {
  return (!s->causal || j <= t) && (s->documents == NULL || s->documents[t] == s->documents[j]);
}

double kp_reference_weights(const kp_reference_head *s, const double *q, int64_t t, kp_reference_rows k,
                            int64_t count, double *p) {
  double largest = -HUGE_VAL, sum = 0;
  for (int64_t j = 0; j < count; j++) {
    p[j] = sees(s, t, j) ? s->beta * kp_reference_score(s, q, kp_reference_row(k, j)) : -HUGE_VAL;
    largest = p[j] > largest || isnan(p[j]) ? p[j] : largest;
  }
  for (int64_t j = 0; j < count; j++) sum += exp(p[j] - largest);
  const double logsumexp = largest + log(sum);
  for (int64_t j = 0; j < count; j++) p[j] = exp(p[j] - logsumexp);
  return logsumexp;
}

void kp_reference_mean(const kp_reference_head *s, const double *p, kp_reference_rows v, int64_t count,
                       double *o, double *time, double *norm) {
  double extra = 0;
  memset(o, 0, (size_t)s->value_size * sizeof *o);
  for (int64_t j = 0; j < count; j++) {
    const double *row = kp_reference_row(v, j);
    if (p[j] == 0) continue;
    const kp_value_row at = kp_value_row_of(s->values, kp_reference_dot(row, row, s->value_size), s->kappa);
    for (int d = 0; d < s->value_size; d++) o[d] += p[j] * at.scale * row[d];
    extra += p[j] * at.extra;
  }
  const kp_value_mean mean =
      kp_value_mean_of(s->values, kp_reference_dot(o, o, s->value_size), extra, 1, s->kappa);
  for (int d = 0; d < s->value_size; d++) o[d] *= mean.scale;
  *time = mean.time;
  *norm = mean.norm;
}
