/* Geometric attention in double, composed of the score's building blocks, against reference numbers. */
#include "support/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "geometry/geodesic_score.h"
#include "support/golden.h"

#define TOKENS 6
#define WIDTH  8

typedef struct head {
  const double *q, *k, *v, *cotangent;
  double kappa, beta;
  int power;
  double m_q[TOKENS][WIDTH], m_k[TOKENS][WIDTH];
  kp_geodesic_row rows[TOKENS], columns[TOKENS];
  kp_geodesic_pair pairs[TOKENS][TOKENS];
  double inner[TOKENS][TOKENS], weights[TOKENS][TOKENS], out[TOKENS][WIDTH];
} head;

typedef struct head_bar {
  double q[TOKENS][WIDTH], k[TOKENS][WIDTH], v[TOKENS][WIDTH];
  double theta, beta;
} head_bar;

static double dot(const double *a, const double *b) {
  double sum = 0;
  for (int i = 0; i < WIDTH; i++) sum += a[i] * b[i];
  return sum;
}

static void prologue(const double *u, double kappa, double m[WIDTH], kp_geodesic_row *row) {
  *row = kp_geodesic_row_of(dot(u, u), kappa);
  for (int i = 0; i < WIDTH; i++) m[i] = row->scale * u[i];
}

static void head_forward(head *h) {
  for (int t = 0; t < TOKENS; t++) {
    prologue(h->q + t * WIDTH, h->kappa, h->m_q[t], &h->rows[t]);
    prologue(h->k + t * WIDTH, h->kappa, h->m_k[t], &h->columns[t]);
  }
  memset(h->out, 0, sizeof h->out);
  for (int i = 0; i < TOKENS; i++) {
    double total = 0;
    for (int j = 0; j < TOKENS; j++) {
      h->inner[i][j] = dot(h->m_q[i], h->m_k[j]);
      h->pairs[i][j] = kp_geodesic_pair_of(&h->rows[i], &h->columns[j], h->inner[i][j], h->kappa, h->power);
      h->weights[i][j] = j <= i ? exp(-h->beta * h->pairs[i][j].distance) : 0;
      total += h->weights[i][j];
    }
    for (int j = 0; j <= i; j++) {
      h->weights[i][j] /= total;
      for (int d = 0; d < WIDTH; d++) h->out[i][d] += h->weights[i][j] * h->v[j * WIDTH + d];
    }
  }
}

static void row_backward(const double *u, double kappa, const kp_geodesic_row *row, const double *m,
                         double *m_bar, double alpha_bar, double cosine_bar, double *u_bar,
                         double *kappa_bar) {
  for (int d = 0; d < WIDTH; d++) m_bar[d] += 2 * alpha_bar * m[d];
  double z_bar = kp_geodesic_row_backward(dot(u, u), kappa, dot(m_bar, u), cosine_bar, kappa_bar);
  for (int d = 0; d < WIDTH; d++) u_bar[d] = row->scale * m_bar[d] + 2 * kappa * z_bar * u[d];
}

static void head_backward(const head *h, head_bar *bar) {
  double m_q_bar[TOKENS][WIDTH] = {{0}}, m_k_bar[TOKENS][WIDTH] = {{0}}, kappa_bar = 0;
  kp_geodesic_pair_slopes row_sum[TOKENS] = {{0}}, column_sum[TOKENS] = {{0}};
  memset(bar, 0, sizeof *bar);
  for (int i = 0; i < TOKENS; i++) {
    double along = dot(h->cotangent + i * WIDTH, h->out[i]);
    for (int j = 0; j <= i; j++) {
      double weight = h->weights[i][j];
      double score_bar = weight * (dot(h->cotangent + i * WIDTH, h->v + j * WIDTH) - along);
      bar->beta -= score_bar * h->pairs[i][j].distance;
      kp_geodesic_pair_slopes s = kp_geodesic_pair_backward(&h->pairs[i][j], &h->rows[i], &h->columns[j],
                                                            h->inner[i][j], -h->beta * score_bar);
      row_sum[i].alpha_i += s.alpha_i, row_sum[i].cosine_i += s.cosine_i;
      column_sum[j].alpha_j += s.alpha_j, column_sum[j].cosine_j += s.cosine_j;
      kappa_bar += s.kappa;
      for (int d = 0; d < WIDTH; d++) {
        m_q_bar[i][d] += s.inner * h->m_k[j][d];
        m_k_bar[j][d] += s.inner * h->m_q[i][d];
        bar->v[j][d] += weight * h->cotangent[i * WIDTH + d];
      }
    }
  }
  for (int t = 0; t < TOKENS; t++) {
    row_backward(h->q + t * WIDTH, h->kappa, &h->rows[t], h->m_q[t], m_q_bar[t], row_sum[t].alpha_i,
                 row_sum[t].cosine_i, bar->q[t], &kappa_bar);
    row_backward(h->k + t * WIDTH, h->kappa, &h->columns[t], h->m_k[t], m_k_bar[t], column_sum[t].alpha_j,
                 column_sum[t].cosine_j, bar->k[t], &kappa_bar);
  }
  bar->theta = kappa_bar * kp_bounded_curvature_derivative(h->kappa);
}

static void keep_worst(double *worst, const double *found, const double *expected, size_t count,
                       const golden_array *whole) {
  double scale = 0;
  for (size_t i = 0; i < whole->count; i++) scale = fmax(scale, fabs(whole->data[i]));
  for (size_t i = 0; i < count; i++) {
    double error = fabs(found[i] - expected[i]) / scale;
    if (!(error <= *worst)) *worst = error;
  }
}

static void compare_power(const golden *file, int power) {
  enum { OUT, W, DISTANCE, Q, K, V, THETA, BETA, QUANTITIES };
  const char *const names[QUANTITIES] = {"out",    "w",      "dist",       "grad_q",
                                         "grad_k", "grad_v", "grad_theta", "grad_beta"};
  double worst[QUANTITIES] = {0};
  static head h;
  static head_bar bar;
  for (size_t n = 0; n < golden_find(file, "p%d/theta", power)->count; n++) {
    size_t at = n * TOKENS * WIDTH;
    h.q = golden_find(file, "p%d/q", power)->data + at;
    h.k = golden_find(file, "p%d/k", power)->data + at;
    h.v = golden_find(file, "p%d/v", power)->data + at;
    h.cotangent = golden_find(file, "p%d/gout", power)->data + at;
    h.kappa = kp_bounded_curvature(golden_find(file, "p%d/theta", power)->data[n]);
    h.beta = golden_find(file, "p%d/beta", power)->data[n];
    h.power = power;
    head_forward(&h);
    head_backward(&h, &bar);
    double w[TOKENS * TOKENS], distance[TOKENS * TOKENS];
    for (int i = 0; i < TOKENS * TOKENS; i++) {
      const kp_geodesic_pair *pair = &h.pairs[i / TOKENS][i % TOKENS];
      w[i] = pair->sine_square;
      distance[i] = power == 1 ? pair->distance : sqrt(pair->distance);
    }
    const double *found[QUANTITIES] = {h.out[0], w,        distance,   bar.q[0],
                                       bar.k[0], bar.v[0], &bar.theta, &bar.beta};
    const size_t counts[QUANTITIES] = {TOKENS * WIDTH,
                                       TOKENS * TOKENS,
                                       TOKENS * TOKENS,
                                       TOKENS * WIDTH,
                                       TOKENS * WIDTH,
                                       TOKENS * WIDTH,
                                       1,
                                       1};
    for (int i = 0; i < QUANTITIES; i++) {
      const golden_array *expected = golden_find(file, "p%d/%s", power, names[i]);
      keep_worst(&worst[i], found[i], expected->data + n * counts[i], counts[i], expected);
    }
  }
  for (int i = 0; i < QUANTITIES; i++) {
    print_message("geoattn power %d %s: %.1e\n", power, names[i], worst[i]);
    assert_true(worst[i] <= 1e-9);
  }
}

static void test_attention(void **state) {
  (void)state;
  golden *file = golden_open("stereographic/geoattn");
  compare_power(file, 1);
  compare_power(file, 2);
  golden_close(file);
}

/* Far vectors, coincident vectors, and pairs at the cut locus of a sphere give finite scores and slopes. */
static void test_hostile_rows(void **state) {
  (void)state;
  const double lengths[] = {0, 1e-30, 1e-8, 1, 3.14159265358979, 1e4, 1e30};
  const double curvatures[] = {-2, -1e-6, 0, 1e-6, 2};
  for (size_t c = 0; c < 5; c++) {
    for (size_t i = 0; i < 7; i++) {
      for (size_t j = 0; j < 7; j++) {
        for (int sign = -1; sign <= 1; sign++) {
          kp_geodesic_row a = kp_geodesic_row_of(lengths[i] * lengths[i], curvatures[c]);
          kp_geodesic_row b = kp_geodesic_row_of(lengths[j] * lengths[j], curvatures[c]);
          double inner = sign * sqrt(a.alpha) * sqrt(b.alpha), kappa_bar = 0;
          for (int power = 1; power <= 2; power++) {
            kp_geodesic_pair pair = kp_geodesic_pair_of(&a, &b, inner, curvatures[c], power);
            kp_geodesic_pair_slopes s = kp_geodesic_pair_backward(&pair, &a, &b, inner, 1);
            assert_true(isfinite(pair.distance) && pair.distance >= 0);
            assert_true(isfinite(s.inner) && isfinite(s.alpha_i) && isfinite(s.cosine_i) &&
                        isfinite(s.kappa));
            assert_true(isfinite(kp_geodesic_row_backward(lengths[i] * lengths[i], curvatures[c], s.inner,
                                                          s.cosine_i, &kappa_bar)));
          }
        }
      }
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_attention),
      cmocka_unit_test(test_hostile_rows),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
