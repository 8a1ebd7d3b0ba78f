/* Statistics against tables and worked examples. */
#include <math.h>

#include "near.h"
#include "study/exact_tests.h"
#include "study/statistics.h"

/* Of any table of Student's distribution. */
static void quantiles_of_students_t(void **state) {
  (void)state;
  check_near(kp_student_quantile(0.05, 1), 12.7062047364, 1e-8);
  check_near(kp_student_quantile(0.05, 2), 4.3026527299, 1e-9);
  check_near(kp_student_quantile(0.05, 4), 2.7764451052, 1e-9);
  check_near(kp_student_quantile(0.01, 10), 3.1692726726, 1e-9);
  check_near(kp_student_quantile(0.05, 1e7), 1.9599642, 1e-5);
  check_near(kp_student_tail(0, 3), 1, 1e-15);
  check_near(kp_student_tail(1, 1), 0.5, 1e-14); /* Cauchy */
  check_near(kp_student_tail(-sqrt(2), 2), 1 - sqrt(0.5), 1e-14);
  assert_true(isnan(kp_student_tail(1, 0)));
}

static void means_leave_out_what_is_unknown(void **state) {
  (void)state;
  const double values[] = {1, NAN, 3, HUGE_VAL};
  kp_statistic s = kp_statistic_of(values, 4);
  assert_int_equal(s.count, 2);
  check_near(s.mean, 2, 0);
  check_near(s.spread, sqrt(2), 1e-15);
  s = kp_statistic_of(values + 1, 1);
  assert_true(s.count == 0 && isnan(s.mean) && isnan(s.spread));
  assert_true(isnan(kp_statistic_of(values, 1).spread));
}

/* Two samples of three: equal spreads of 1 give 4 degrees of freedom. */
static void welch_of_two_samples(void **state) {
  (void)state;
  const double a[] = {4, 5, 6}, b[] = {1, 2, 3}, wide[] = {0, 5, 10};
  kp_difference d = kp_welch(kp_statistic_of(a, 3), kp_statistic_of(b, 3));
  check_near(d.value, 3, 1e-15);
  check_near(d.error, sqrt(2.0 / 3), 1e-15);
  check_near(d.freedom, 4, 1e-12);
  check_near(d.low, 3 - 2.7764451052 * sqrt(2.0 / 3), 1e-9);
  check_near(d.high, 3 + 2.7764451052 * sqrt(2.0 / 3), 1e-9);
  check_near(d.p, 0.021311641, 1e-8); /* t = 3.674 with 4 degrees of freedom */
  assert_int_equal(kp_verdict_of(&d), KP_VERDICT_HIGHER);
  d = kp_welch(kp_statistic_of(b, 3), kp_statistic_of(a, 3));
  assert_int_equal(kp_verdict_of(&d), KP_VERDICT_LOWER);
  d = kp_welch(kp_statistic_of(b, 3), kp_statistic_of(wide, 3));
  assert_int_equal(kp_verdict_of(&d), KP_VERDICT_SAME);
  assert_true(d.freedom > 2 && d.freedom < 2.2); /* nearly that of the wide sample alone */
  d = kp_welch(kp_statistic_of(a, 1), kp_statistic_of(b, 3));
  assert_int_equal(kp_verdict_of(&d), KP_VERDICT_UNKNOWN);
  check_near(d.value, 2, 1e-15);
}

static void samples_without_spread(void **state) {
  (void)state;
  const double a[] = {2, 2}, b[] = {1, 1};
  kp_difference d = kp_welch(kp_statistic_of(a, 2), kp_statistic_of(b, 2));
  assert_int_equal(kp_verdict_of(&d), KP_VERDICT_HIGHER);
  check_near(d.p, 0, 0);
  d = kp_welch(kp_statistic_of(a, 2), kp_statistic_of(a, 2));
  assert_int_equal(kp_verdict_of(&d), KP_VERDICT_SAME);
  check_near(d.p, 1, 0);
}

/* What is common to pairs hides a difference from Welch's test and not from the paired one. */
static void pairs_cancel_what_they_share(void **state) {
  (void)state;
  const double a[] = {1.1, 5.2, 9.15}, b[] = {1, 5, 9};
  const kp_difference paired = kp_paired(a, b, 3);
  const kp_difference welch = kp_welch(kp_statistic_of(a, 3), kp_statistic_of(b, 3));
  check_near(paired.value, 0.15, 1e-12);
  check_near(paired.error, 0.05 / sqrt(3), 1e-12);
  check_near(paired.freedom, 2, 0);
  assert_int_equal(kp_verdict_of(&paired), KP_VERDICT_HIGHER);
  assert_int_equal(kp_verdict_of(&welch), KP_VERDICT_SAME);
}

static void spearman_of_ranks(void **state) {
  (void)state;
  const double x[] = {1, 2, 3, 4, 5}, cubes[] = {1, 8, 27, 64, 125}, falling[] = {9, 7, 5, 3, 1};
  const double mixed[] = {2, 1, 4, 3, 5}, tied[] = {1, 1, 2, 2, 2}, constant[] = {3, 3, 3, 3, 3};
  check_near(kp_spearman(x, cubes, 5).value, 1, 1e-15);
  check_near(kp_spearman(x, falling, 5).value, -1, 1e-15);
  check_near(kp_spearman(x, mixed, 5).value, 0.8, 1e-15); /* 1 - 6 · 4 / (5 · 24) */
  check_near(kp_spearman(x, mixed, 5).p, 0.104088, 1e-6);
  check_near(kp_spearman(x, tied, 5).value, 7.5 / sqrt(10 * 7.5), 1e-15);
  assert_true(isnan(kp_spearman(x, constant, 5).value));
  assert_true(isnan(kp_spearman(x, cubes, 2).value));
}

static void binomial_tests(void **state) {
  (void)state;
  check_near(kp_binomial_test(0, 0, 0.5), 1, 0);
  check_near(kp_binomial_test(5, 10, 0.5), 1, 1e-12);
  check_near(kp_binomial_test(10, 10, 0.5), 2.0 / 1024, 1e-15);
  check_near(kp_binomial_test(1, 8, 0.5), 18.0 / 256, 1e-14);
  check_near(kp_binomial_test(3, 3, 0.1), 0.001, 1e-15); /* the other tail has no outcome as unlikely */
  check_near(kp_binomial_test(1, 4, 0), 0, 0);
}

/* Fisher's lady, who told three of four cups of each kind: 34/70 two-sided; all of them: 2/70. */
static void fishers_lady(void **state) {
  (void)state;
  check_near(kp_fisher_test((const int[2][2]){{3, 1}, {1, 3}}), 34.0 / 70, 1e-12);
  check_near(kp_fisher_test((const int[2][2]){{4, 0}, {0, 4}}), 2.0 / 70, 1e-13);
  check_near(kp_fisher_test((const int[2][2]){{2, 2}, {2, 2}}), 1, 1e-12);
  check_near(kp_fisher_test((const int[2][2]){{3, 0}, {5, 0}}), 1, 1e-12);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(quantiles_of_students_t),
      cmocka_unit_test(means_leave_out_what_is_unknown),
      cmocka_unit_test(welch_of_two_samples),
      cmocka_unit_test(samples_without_spread),
      cmocka_unit_test(pairs_cancel_what_they_share),
      cmocka_unit_test(spearman_of_ranks),
      cmocka_unit_test(binomial_tests),
      cmocka_unit_test(fishers_lady),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
