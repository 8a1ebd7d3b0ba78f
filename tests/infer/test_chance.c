/* The exact test of a number of right answers against chance. */
#include "support/check.h"

#include <math.h>

#include "infer/multiple_choice.h"

static double p_of(const double *chances, size_t count, size_t right) {
  kp_error error = {0};
  double p;
  check_ok(kp_chance_test(chances, count, right, &p, &error), &error);
  return p;
}

static void check_close(double value, double expected, double tolerance) {
  if (!(fabs(value - expected) <= tolerance)) fail_msg("%.17g instead of %.17g", value, expected);
}

/* Four throws of a coin: 1 4 6 4 1 of 16. */
static void test_equal_chances(void **state) {
  (void)state;
  static const double coin[] = {0.5, 0.5, 0.5, 0.5}, die[] = {0.25, 0.25, 0.25};
  static const double expected[] = {2.0 / 16, 10.0 / 16, 1, 10.0 / 16, 2.0 / 16};
  for (size_t right = 0; right <= 4; right++) check_close(p_of(coin, 4, right), expected[right], 1e-15);
  /* 27 27 9 1 of 64 */
  check_close(p_of(die, 3, 2), 10.0 / 64, 1e-15);
  check_close(p_of(die, 3, 1), 1, 1e-15);
  check_close(p_of(die, 3, 3), 1.0 / 64, 1e-15);
}

/* A question of two choices and one of four: 3/8, 4/8, 1/8. */
static void test_unequal_chances(void **state) {
  (void)state;
  static const double chances[] = {0.5, 0.25};
  check_close(p_of(chances, 2, 0), 0.5, 1e-15);
  check_close(p_of(chances, 2, 1), 1, 1e-15);
  check_close(p_of(chances, 2, 2), 0.125, 1e-15);
}

/* Beyond what is summed exactly the normal distribution takes over without a jump. */
static void test_many(void **state) {
  (void)state;
  enum { MOST = 20001 };
  static double chances[MOST];
  for (size_t i = 0; i < MOST; i++) chances[i] = i % 2 == 0 ? 0.25 : 0.2;
  for (size_t right = 4300; right <= 4700; right += 50)
    check_close(p_of(chances, MOST, right), p_of(chances, MOST - 1, right), 0.01);
}

static void test_report(void **state) {
  (void)state;
  static const kp_choice_result results[] = {
      {.count = 4, .gold = 1, .chosen = 1, .chosen_norm = 0, .chosen_bytes = 1, .cut = true},
      {.count = 4, .gold = 0, .chosen = 0, .chosen_norm = 0, .chosen_bytes = 2},
      {.count = 2, .gold = 1, .chosen = 0, .chosen_norm = 0, .chosen_bytes = 0}};
  kp_choice_report r;
  kp_error error = {0};
  check_ok(kp_choice_report_of(results, 3, &r, &error), &error);
  check_close(r.accuracy, 2.0 / 3, 1e-15);
  check_close(r.accuracy_norm, 1.0 / 3, 1e-15);
  check_close(r.accuracy_bytes, 1.0 / 3, 1e-15);
  check_close(r.accuracy_error, sqrt(2.0 / 9 / 2), 1e-15);
  check_close(r.chance, 1.0 / 3, 1e-15);
  assert_int_equal(r.cut, 1);
  /* 0 right: 9/32, 1: 15/32, 2: 7/32, 3: 1/32 */
  check_close(r.p, 8.0 / 32, 1e-15);
  check_close(r.p_norm, 1, 1e-15);
  check_ok(kp_choice_report_of(results, 1, &r, &error), &error);
  assert_true(isnan(r.accuracy_error));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_equal_chances),
      cmocka_unit_test(test_unequal_chances),
      cmocka_unit_test(test_many),
      cmocka_unit_test(test_report),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
