#include "support/attention_oracle.h"

#include <math.h>
#include <stdlib.h>

#include "support/check.h"

/* What the published score adds to w under the square root. */
static const double shift = 1e-12;
static const double cut_floor = 1e-6;

static void *zeros(size_t count, size_t size) {
  void *memory = calloc(count > 0 ? count : 1, size);
  assert_non_null(memory);
  return memory;
}

static size_t q_count(const oracle_problem *p) {
  return (size_t)p->batch * (size_t)p->heads * (size_t)p->length * (size_t)p->size;
}

static size_t k_count(const oracle_problem *p) {
  return q_count(p) / (size_t)p->heads * (size_t)p->kv_heads;
}

void oracle_problem_create(oracle_problem *p) {
  p->q = zeros(q_count(p), sizeof(float));
  p->k = zeros(k_count(p), sizeof(float));
  p->v = zeros(k_count(p), sizeof(float));
  p->out_bar = zeros(q_count(p), sizeof(float));
  p->kappa = zeros((size_t)p->heads, sizeof(float));
  p->beta = zeros((size_t)p->heads, sizeof(float));
}

void oracle_problem_destroy(oracle_problem *p) {
  float *arrays[] = {p->q, p->k, p->v, p->out_bar, p->kappa, p->beta};
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) free(arrays[i]);
}

void oracle_result_create(oracle_result *r, const oracle_problem *p) {
  r->out = zeros(q_count(p), sizeof(double));
  r->logsumexp = zeros(q_count(p) / (size_t)p->size, sizeof(double));
  r->q_bar = zeros(q_count(p), sizeof(double));
  r->k_bar = zeros(k_count(p), sizeof(double));
  r->v_bar = zeros(k_count(p), sizeof(double));
  r->kappa_bar = zeros((size_t)p->heads, sizeof(double));
  r->beta_bar = zeros((size_t)p->heads, sizeof(double));
}

void oracle_result_destroy(oracle_result *r) {
  double *arrays[] = {r->out, r->logsumexp, r->q_bar, r->k_bar, r->v_bar, r->kappa_bar, r->beta_bar};
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) free(arrays[i]);
}

/* S, its derivative and C at z = κ|u|². */
typedef struct row_functions {
  double sine, sine_slope, cosine;
} row_functions;

static row_functions functions_at(double z) {
  const double s = sqrt(fabs(z));
  row_functions f;
  f.cosine = z > 0 ? cos(s) : cosh(s);
  f.sine = s < 1e-4 ? 1 - z / 6 : (z > 0 ? sin(s) : sinh(s)) / s;
  f.sine_slope = fabs(z) < 1e-3 ? -1.0 / 6 + z / 60 - z * z / 1680 : (f.cosine - f.sine) / (2 * z);
  return f;
}

static double dot(const float *x, const float *y, int size) {
  double sum = 0;
  for (int d = 0; d < size; d++) sum += (double)x[d] * (double)y[d];
  return sum;
}

/* c_k m_q - c_q m_k, and returns w. */
static double difference_vector(const float *q, const float *k, int size, double kappa, double *delta) {
  const row_functions fq = functions_at(kappa * dot(q, q, size)), fk = functions_at(kappa * dot(k, k, size));
  double w = shift;
  for (int d = 0; d < size; d++) {
    delta[d] = fk.cosine * fq.sine * (double)q[d] - fq.cosine * fk.sine * (double)k[d];
    w += delta[d] * delta[d];
  }
  return w;
}

static double arcsine_ratio(double z, double complement) {
  const double s = sqrt(fabs(z));
  if (s < 1e-4) return 1 + z / 6;
  return (z > 0 ? atan2(s, sqrt(complement)) : asinh(s)) / s;
}

/* φ'(z), where the closed form cancels by its series. */
static double arcsine_slope(double z, double complement) {
  if (fabs(z) < 1e-3) return 1.0 / 6 + 3 * z / 20 + 15 * z * z / 112;
  return (1 / sqrt(complement) - arcsine_ratio(z, complement)) / (2 * z);
}

static double separation(const float *q, const float *k, int size, double kappa, int power) {
  double delta[512];
  const double w = difference_vector(q, k, size, kappa, delta);
  const double distance = 2 * sqrt(w) * arcsine_ratio(kappa * w, fmax(1 - kappa * w, cut_floor));
  return power == 1 ? distance : distance * distance;
}

static double score(const oracle_problem *p, int h, const float *q, const float *k) {
  if (p->power == 0) return p->scale * dot(q, k, p->size);
  return -(double)p->beta[h] * separation(q, k, p->size, (double)p->kappa[h], p->power);
}

/* Adds w_bar times the gradient of w through (m, c) of row u to u_bar, and returns that through κ.  `other`
 * is the other row; sign is that of m_u in the difference vector. */
static double row_backward(const float *u, const float *other, int size, double kappa, const double *delta,
                           double sign, double w_bar, double *u_bar) {
  const double square = dot(u, u, size);
  const row_functions f = functions_at(kappa * square), g = functions_at(kappa * dot(other, other, size));
  double along_u = 0, along_other = 0;
  for (int d = 0; d < size; d++) {
    along_u += delta[d] * (double)u[d];
    along_other += delta[d] * (double)other[d];
  }
  /* dw/dS = 2 sign c' <delta, u>, dw/dc = -2 sign S' <delta, u'>; dS/dz is the slope, dC/dz = -S/2. */
  const double by_z = 2 * sign * (g.cosine * along_u * f.sine_slope + g.sine * along_other * f.sine / 2);
  for (int d = 0; d < size; d++)
    u_bar[d] += w_bar * (2 * sign * g.cosine * f.sine * delta[d] + by_z * 2 * kappa * (double)u[d]);
  return w_bar * by_z * square;
}

static void score_backward(const oracle_problem *p, int h, const float *q, const float *k, double bar,
                           double *q_bar, double *k_bar, oracle_result *r) {
  if (p->power == 0) {
    for (int d = 0; d < p->size; d++) {
      q_bar[d] += bar * p->scale * (double)k[d];
      k_bar[d] += bar * p->scale * (double)q[d];
    }
    return;
  }
  double delta[512];
  const double kappa = (double)p->kappa[h], distance_bar = -(double)p->beta[h] * bar;
  const double w = difference_vector(q, k, p->size, kappa, delta),
               complement = fmax(1 - kappa * w, cut_floor);
  const double ratio = arcsine_ratio(kappa * w, complement), slope = arcsine_slope(kappa * w, complement);
  const double by_w = p->power == 1 ? 1 / sqrt(w * complement) : 4 * ratio / sqrt(complement);
  const double by_kappa = p->power == 1 ? 2 * w * sqrt(w) * slope : 8 * w * w * ratio * slope;
  r->kappa_bar[h] += distance_bar * by_kappa;
  r->kappa_bar[h] += row_backward(q, k, p->size, kappa, delta, 1, distance_bar * by_w, q_bar);
  r->kappa_bar[h] += row_backward(k, q, p->size, kappa, delta, -1, distance_bar * by_w, k_bar);
  r->beta_bar[h] -= bar * separation(q, k, p->size, kappa, p->power);
}

static void run_row(const oracle_problem *p, oracle_result *r, int b, int h, int t, double *weight) {
  const int D = p->size, T = p->length, visible = p->causal ? t + 1 : T;
  const size_t row = ((size_t)(b * p->heads + h) * (size_t)T + (size_t)t), at = row * (size_t)D;
  const size_t keys = (size_t)(b * p->kv_heads + h / (p->heads / p->kv_heads)) * (size_t)T * (size_t)D;
  double largest = -HUGE_VAL, sum = 0, mean = 0;
  for (int j = 0; j < visible; j++) {
    weight[j] = score(p, h, p->q + at, p->k + keys + j * D);
    largest = fmax(largest, weight[j]);
  }
  for (int j = 0; j < visible; j++) sum += exp(weight[j] - largest);
  r->logsumexp[row] = largest + log(sum);
  for (int j = 0; j < visible; j++) {
    weight[j] = exp(weight[j] - largest) / sum;
    for (int d = 0; d < D; d++)
      r->out[at + (size_t)d] += weight[j] * (double)p->v[keys + (size_t)(j * D + d)];
  }
  for (int d = 0; d < D; d++) mean += r->out[at + (size_t)d] * (double)p->out_bar[at + (size_t)d];
  for (int j = 0; j < visible; j++) {
    const double weight_bar = dot(p->out_bar + at, p->v + keys + j * D, D);
    for (int d = 0; d < D; d++)
      r->v_bar[keys + (size_t)(j * D + d)] += weight[j] * (double)p->out_bar[at + (size_t)d];
    score_backward(p, h, p->q + at, p->k + keys + j * D, weight[j] * (weight_bar - mean), r->q_bar + at,
                   r->k_bar + keys + j * D, r);
  }
}

void oracle_run(const oracle_problem *p, oracle_result *r) {
  double *weight = zeros((size_t)p->length, sizeof(double));
  for (int b = 0; b < p->batch; b++)
    for (int h = 0; h < p->heads; h++)
      for (int t = 0; t < p->length; t++) run_row(p, r, b, h, t, weight);
  free(weight);
}
