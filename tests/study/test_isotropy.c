/* Isotropy against clouds whose measures are known, and against a double loop over pairs. */
#include <math.h>
#include <stdlib.h>

#include "study/analyze.h"
#include "study/isotropy.h"
#include "near.h"
#include "support/check_fails.h"

static kp_isotropy_result measure(int64_t columns, int64_t count, const double *rows, double *eigenvalues) {
  kp_error error = {0};
  kp_isotropy *isotropy;
  kp_isotropy_result result;
  check_ok(kp_isotropy_create(columns, &isotropy, &error), &error);
  /* In two batches, to see that sums go on. */
  check_ok(kp_isotropy_add(isotropy, count / 2, rows, &error), &error);
  check_ok(kp_isotropy_add(isotropy, count - count / 2, rows + count / 2 * columns, &error), &error);
  check_ok(kp_isotropy_measure(isotropy, &result, eigenvalues, &error), &error);
  kp_isotropy_destroy(isotropy);
  return result;
}

static double *gaussian(int64_t count, uint64_t seed) {
  double *values = malloc((size_t)count * sizeof *values);
  srand48((long)seed);
  for (int64_t i = 0; i < count; i++)
    values[i] = sqrt(-2 * log(1 - drand48())) * cos(6.283185307179586 * drand48());
  return values;
}

static void orthogonal_vectors(void **state) {
  (void)state;
  double rows[16] = {0}, eigenvalues[4];
  for (int i = 0; i < 4; i++) rows[5 * i] = 3;
  const kp_isotropy_result r = measure(4, 4, rows, eigenvalues);
  check_near(r.mean_cosine, 0, 1e-15);
  check_near(r.mean_norm, 3, 1e-15);
  /* Covariance 9/4 (1 - J/4): three eigenvalues of 9/4 and one of 0. */
  check_near(eigenvalues[0], 2.25, 1e-14);
  check_near(eigenvalues[2], 2.25, 1e-14);
  check_near(eigenvalues[3], 0, 1e-14);
  check_near(r.participation_ratio, 3, 1e-13);
  check_near(r.effective_rank, 3, 1e-13);
}

static void identical_vectors(void **state) {
  (void)state;
  double rows[30], eigenvalues[3];
  for (int i = 0; i < 30; i++) rows[i] = 0.1 * (i % 3 + 1);
  const kp_isotropy_result r = measure(3, 10, rows, eigenvalues);
  check_near(r.mean_cosine, 1, 1e-14);
  assert_true(isnan(r.participation_ratio));
  assert_true(isnan(r.effective_rank));
}

static void vectors_on_a_line(void **state) {
  (void)state;
  double rows[40], eigenvalues[4];
  const double direction[] = {1, -2, 2, 0}; /* of length 3 */
  for (int r = 0; r < 10; r++)
    for (int i = 0; i < 4; i++) rows[4 * r + i] = (r % 2 == 0 ? 1 : -1) * (r + 1) * direction[i];
  const kp_isotropy_result r = measure(4, 10, rows, eigenvalues);
  /* Of 45 pairs 20 have cosine 1 and 25 have -1. */
  check_near(r.mean_cosine, -5.0 / 45.0, 1e-14);
  check_near(r.mean_norm, 3 * 5.5, 1e-13);
  check_near(r.participation_ratio, 1, 1e-12);
  check_near(r.effective_rank, 1, 1e-9);
}

static void rows_without_direction_are_counted(void **state) {
  (void)state;
  const double rows[] = {1, 0, 0, 0, 0, 1, 1, 0};
  double eigenvalues[2];
  const kp_isotropy_result r = measure(2, 4, rows, eigenvalues);
  assert_int_equal(r.rows, 4);
  assert_int_equal(r.zero_rows, 1);
  check_near(r.mean_cosine, 1.0 / 3.0, 1e-15);
}

static void cosines_equal_a_loop_over_pairs(void **state) {
  (void)state;
  enum { ROWS = 60, COLUMNS = 7 };
  double *rows = gaussian(ROWS * COLUMNS, 11), eigenvalues[COLUMNS], sum = 0;
  for (int i = 0; i < ROWS; i++) rows[i * COLUMNS] += 1.5;
  for (int i = 0; i < ROWS; i++)
    for (int j = 0; j < i; j++) {
      double dot = 0, a = 0, b = 0;
      for (int k = 0; k < COLUMNS; k++) {
        dot += rows[i * COLUMNS + k] * rows[j * COLUMNS + k];
        a += rows[i * COLUMNS + k] * rows[i * COLUMNS + k];
        b += rows[j * COLUMNS + k] * rows[j * COLUMNS + k];
      }
      sum += dot / sqrt(a * b);
    }
  const kp_isotropy_result r = measure(COLUMNS, ROWS, rows, eigenvalues);
  check_near(r.mean_cosine, sum / (ROWS * (ROWS - 1) / 2), 1e-13);
  free(rows);
}

/* n Gaussian rows of d columns: cosine 0, and by Marchenko and Pastur a participation ratio of d / (1 + d/n).
 */
static void gaussian_rows(void **state) {
  (void)state;
  enum { ROWS = 4096, COLUMNS = 64 };
  double *rows = gaussian(ROWS * COLUMNS, 3), eigenvalues[COLUMNS];
  const kp_isotropy_result r = measure(COLUMNS, ROWS, rows, eigenvalues);
  const double expected = COLUMNS / (1 + (double)COLUMNS / ROWS);
  assert_true(fabs(r.mean_cosine) < 1e-3);
  check_near(r.participation_ratio, expected, 0.2);
  assert_true(r.effective_rank > r.participation_ratio && r.effective_rank < COLUMNS);
  check_near(r.mean_norm, sqrt(COLUMNS - 0.5), 0.05);
  free(rows);
}

/* A mean 10⁶ times the spread must not cost the covariance its digits. */
static void a_distant_mean_costs_no_digits(void **state) {
  (void)state;
  enum { ROWS = 200, COLUMNS = 3 };
  double *rows = gaussian(ROWS * COLUMNS, 5), near[COLUMNS], far[COLUMNS];
  const kp_isotropy_result a = measure(COLUMNS, ROWS, rows, near);
  for (int i = 0; i < ROWS * COLUMNS; i++) rows[i] += 1e6;
  const kp_isotropy_result b = measure(COLUMNS, ROWS, rows, far);
  check_near(a.participation_ratio, b.participation_ratio, 1e-8);
  for (int i = 0; i < COLUMNS; i++) check_near(near[i], far[i], 1e-8);
  free(rows);
}

static void rows_that_are_not_finite_are_refused(void **state) {
  (void)state;
  kp_error error = {0};
  kp_isotropy *isotropy;
  const double rows[] = {1, 2, INFINITY, 1};
  check_ok(kp_isotropy_create(2, &isotropy, &error), &error);
  check_fails(kp_isotropy_add(isotropy, 2, rows, &error), &error, KP_ERR_NUMERIC, "row 1");
  kp_isotropy_destroy(isotropy);
}

/* √-κ d = 2√-κ|h| of a tangent vector; artanh and arctan of a point. */
static void radii(void **state) {
  (void)state;
  check_near(kp_scaled_radius(3, -0.25, KP_CHART_TANGENT), 3, 1e-15);
  check_near(kp_scaled_radius(3, 0, KP_CHART_TANGENT), 0, 0);
  check_near(kp_scaled_radius(1, -0.25, KP_CHART_BALL), 2 * atanh(0.5), 1e-15);
  check_near(kp_scaled_radius(2, -0.25, KP_CHART_BALL), 2 * atanh(1 - 0x1p-24), 1e-12);
  check_near(kp_scaled_radius(1, 1, KP_CHART_BALL), acos(-1.0) / 2, 1e-15);
  check_near(kp_scaled_radius(sinh(1.5) * 2, -0.25, KP_CHART_LORENTZ), 1.5, 1e-14);
  check_near(kp_boundary_distance(2 * atanh(0.75), -3), 0.25, 1e-15);
  assert_true(isnan(kp_boundary_distance(1, 0.5)));
  assert_true(kp_radius_is_edge(2 * atanh(0.991), -1));
  assert_false(kp_radius_is_edge(2 * atanh(0.989), -1));
  assert_true(kp_radius_is_edge(1.6, 1));
  assert_false(kp_radius_is_edge(1.5, 1));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(orthogonal_vectors),
      cmocka_unit_test(identical_vectors),
      cmocka_unit_test(vectors_on_a_line),
      cmocka_unit_test(rows_without_direction_are_counted),
      cmocka_unit_test(cosines_equal_a_loop_over_pairs),
      cmocka_unit_test(gaussian_rows),
      cmocka_unit_test(a_distant_mean_costs_no_digits),
      cmocka_unit_test(rows_that_are_not_finite_are_refused),
      cmocka_unit_test(radii),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
