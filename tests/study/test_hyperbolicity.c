/* Gromov's δ of spaces where it is known. */
#include <math.h>
#include <stdlib.h>

#include "near.h"
#include "study/hyperbolicity.h"
#include "support/check_fails.h"

static int smaller(int a, int b) {
  return a < b ? a : b;
}

/* A complete binary tree: parents of i are (i - 1) / 2. */
static double tree_distance(int a, int b) {
  int steps = 0;
  for (; a != b; steps++)
    if (a > b)
      a = (a - 1) / 2;
    else
      b = (b - 1) / 2;
  return steps;
}

static void a_tree_has_none(void **state) {
  (void)state;
  enum { N = 31 };
  double d[N * N];
  for (int i = 0; i < N; i++)
    for (int j = 0; j < N; j++) d[i * N + j] = tree_distance(i, j);
  const kp_four_point r = kp_four_point_of(N, d);
  check_near(r.delta, 0, 0);
  check_near(r.mean, 0, 0);
  check_near(r.diameter, 8, 0);
}

/* The cycle of 4k + r vertices has δ = k, but k - 1/2 for r = 1. */
static void cycles_are_known(void **state) {
  (void)state;
  for (int n = 4; n <= 19; n++) {
    double d[19 * 19];
    for (int i = 0; i < n; i++)
      for (int j = 0; j < n; j++) d[i * n + j] = smaller(abs(i - j), n - abs(i - j));
    check_near(kp_four_point_of(n, d).delta, n % 4 == 1 ? n / 4 - 0.5 : n / 4, 1e-15);
  }
}

static void a_square_and_a_line(void **state) {
  (void)state;
  kp_error error = {0};
  kp_hyperbolicity r;
  const double square[] = {0, 0, 0, 1, 1, 1, 1, 0}, line[] = {0, 3, 1, 9, 4, 27};
  check_ok(kp_hyperbolicity_measure(4, 2, square, kp_metric_euclidean, NULL, 5, 50, 1, &r, &error), &error);
  assert_int_equal(r.samples, 1);
  assert_int_equal(r.points, 4);
  check_near(r.relative, 2 * (sqrt(2) - 1) / sqrt(2), 1e-14); /* δ = √2 - 1 */
  assert_true(isnan(r.low) && isnan(r.high));
  check_ok(kp_hyperbolicity_measure(6, 1, line, kp_metric_euclidean, NULL, 5, 50, 1, &r, &error), &error);
  check_near(r.relative, 0, 1e-14);
}

static void samples_have_an_interval(void **state) {
  (void)state;
  enum { N = 300, D = 3 };
  static double rows[N * D];
  kp_error error = {0};
  kp_hyperbolicity r, again;
  kp_cloud_gaussian(N, D, 7, rows);
  check_ok(kp_hyperbolicity_measure(N, D, rows, kp_metric_euclidean, NULL, 8, 20, 3, &r, &error), &error);
  check_ok(kp_hyperbolicity_measure(N, D, rows, kp_metric_euclidean, NULL, 8, 20, 3, &again, &error), &error);
  assert_int_equal(r.samples, 8);
  assert_true(r.low > 0 && r.low < r.relative && r.relative < r.high && r.high < 1);
  assert_true(r.mean_relative > 0 && r.mean_relative < r.relative);
  assert_true(r.relative == again.relative);
}

/* δ of the hyperbolic plane is at most ln 2 / √-κ, so a wide cloud is close to a tree; a flat one as wide is
 * not. */
static void a_wide_hyperbolic_cloud_is_a_tree(void **state) {
  (void)state;
  enum { N = 40 };
  double rows[N * 2];
  kp_error error = {0};
  kp_hyperbolicity curved, flat;
  for (int i = 0; i < N; i++) { /* points h = log_0(x) at distance 2 |h| = 20 */
    rows[2 * i] = 10 * cos(0.1571 * i);
    rows[2 * i + 1] = 10 * sin(0.1571 * i);
  }
  const kp_product_space plane = {1, (const double[]){-1}};
  check_ok(kp_hyperbolicity_measure(N, 2, rows, kp_metric_geodesic, &plane, 1, 50, 1, &curved, &error),
           &error);
  check_ok(kp_hyperbolicity_measure(N, 2, rows, kp_metric_euclidean, NULL, 1, 50, 1, &flat, &error), &error);
  assert_true(curved.relative * 40 / 2 <= log(2) + 1e-9);
  assert_true(flat.relative > 0.3);
}

/* √(Σ d²) over the slices: a flat one (where the distance is 2 |h - h'|), a spherical one, a hyperbolic one.
 */
static void distances_of_a_product(void **state) {
  (void)state;
  const double a[] = {0, 0, 0.3, 0, 0.5, 0}, b[] = {3, 4, -0.3, 0, -0.5, 0};
  const kp_product_space space = {3, (const double[]){0, 1, -4}};
  check_near(kp_metric_geodesic(a, b, 6, &space), sqrt(100 + 1.2 * 1.2 + 2 * 2), 1e-9);
}

static void clouds_have_the_moments_that_they_should(void **state) {
  (void)state;
  enum { N = 200, WANTED = 20000 };
  static double rows[N * 2], out[WANTED * 2];
  double mean[2] = {0}, wanted_mean[2] = {0}, product[3] = {0}, wanted[3] = {0};
  kp_cloud_gaussian(N, 2, 1, rows);
  for (int i = 0; i < N; i++) rows[2 * i + 1] = 5 + 3 * rows[2 * i] + 0.5 * rows[2 * i + 1];
  kp_cloud_like(N, 2, rows, WANTED, 2, out);
  for (int i = 0; i < N; i++)
    for (int j = 0; j < 2; j++) wanted_mean[j] += rows[2 * i + j] / N;
  for (int i = 0; i < WANTED; i++)
    for (int j = 0; j < 2; j++) mean[j] += out[2 * i + j] / WANTED;
  for (int k = 0; k < 3; k++) {
    const int x = k == 2, y = k > 0;
    for (int i = 0; i < N; i++)
      wanted[k] += (rows[2 * i + x] - wanted_mean[x]) * (rows[2 * i + y] - wanted_mean[y]) / N;
    for (int i = 0; i < WANTED; i++)
      product[k] += (out[2 * i + x] - mean[x]) * (out[2 * i + y] - mean[y]) / WANTED;
    check_near(product[k], wanted[k], 0.03 * wanted[k]);
  }
  for (int j = 0; j < 2; j++) check_near(mean[j], wanted_mean[j], 0.1);
}

static void what_is_not_finite_is_refused(void **state) {
  (void)state;
  kp_error error = {0};
  kp_hyperbolicity r;
  const double rows[] = {0, 1, NAN, 2};
  check_fails(kp_hyperbolicity_measure(4, 1, rows, kp_metric_euclidean, NULL, 1, 4, 1, &r, &error), &error,
              KP_ERR_NUMERIC, "not finite");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_tree_has_none),
      cmocka_unit_test(cycles_are_known),
      cmocka_unit_test(a_square_and_a_line),
      cmocka_unit_test(samples_have_an_interval),
      cmocka_unit_test(a_wide_hyperbolic_cloud_is_a_tree),
      cmocka_unit_test(distances_of_a_product),
      cmocka_unit_test(clouds_have_the_moments_that_they_should),
      cmocka_unit_test(what_is_not_finite_is_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
