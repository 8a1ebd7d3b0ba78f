/* The rules by which an expert's selection bias follows its load. */
#include "models/balance.h"

#include <math.h>

#include "support/check.h"

enum { EXPERTS = 4 };

static void check_bias(const double *counts, kp_balance_rule rule, const double *want) {
  double bias[EXPERTS] = {0.1, 0.2, 0.3, 0.4};
  kp_balance_update(bias, counts, EXPERTS, 0.5, rule);
  for (int e = 0; e < EXPERTS; e++) assert_true(fabs(bias[e] - want[e]) < 1e-15);
}

static void test_proportional(void **state) {
  (void)state;
  check_bias((double[]){1, 2, 5, 0}, KP_BALANCE_PROPORTIONAL,
             (double[]){0.1 + 0.5 * (0.25 - 0.125), 0.2, 0.3 + 0.5 * (0.25 - 0.625), 0.4 + 0.5 * 0.25});
}

static void test_sign(void **state) {
  (void)state;
  check_bias((double[]){1, 2, 5, 0}, KP_BALANCE_SIGN, (double[]){0.6, 0.2, -0.2, 0.9});
}

/* No tokens, or the same number for each: nothing moves. */
static void test_at_rest(void **state) {
  (void)state;
  static const double start[EXPERTS] = {0.1, 0.2, 0.3, 0.4};
  for (int rule = 0; rule < 2; rule++) {
    check_bias((double[EXPERTS]){0}, (kp_balance_rule)rule, start);
    check_bias((double[]){7, 7, 7, 7}, (kp_balance_rule)rule, start);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_proportional), cmocka_unit_test(test_sign),
                                     cmocka_unit_test(test_at_rest)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
