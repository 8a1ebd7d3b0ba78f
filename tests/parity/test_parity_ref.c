/* Every reference case in double precision. */
#include "support/check.h"

#include "ops/ops.h"
#include "support/parity.h"

static void test_mixed(void **state) {
  (void)state;
  check_cases(KP_TEST_DIRECTORY "/goldens/mixed", kp_backend_ref());
}

static void test_stereographic(void **state) {
  (void)state;
  check_cases(KP_TEST_DIRECTORY "/goldens/stereographic", kp_backend_ref());
}

static void test_ngpt(void **state) {
  (void)state;
  check_cases(KP_TEST_DIRECTORY "/goldens/ngpt", kp_backend_ref());
}

static void test_helm(void **state) {
  (void)state;
  check_cases(KP_TEST_DIRECTORY "/goldens/helm", kp_backend_ref());
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_mixed), cmocka_unit_test(test_stereographic),
                                     cmocka_unit_test(test_ngpt), cmocka_unit_test(test_helm)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
