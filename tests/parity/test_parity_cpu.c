/* Every reference case in float32, on every instruction set that this processor has. */
#include "support/check.h"

#include "support/isa.h"
#include "support/parity.h"

static void check_on_all(const char *folder) {
  kp_test_isa list[KP_TEST_ISAS];
  const int count = kp_test_isas(list);
  for (int i = 0; i < count; i++) {
    print_message("%s\n", list[i].name);
    check_cases(folder, list[i].backend);
  }
}

static void test_mixed(void **state) {
  (void)state;
  check_on_all(KP_TEST_DIRECTORY "/goldens/mixed");
}

static void test_stereographic(void **state) {
  (void)state;
  check_on_all(KP_TEST_DIRECTORY "/goldens/stereographic");
}

static void test_ngpt(void **state) {
  (void)state;
  check_on_all(KP_TEST_DIRECTORY "/goldens/ngpt");
}

static void test_helm(void **state) {
  (void)state;
  check_on_all(KP_TEST_DIRECTORY "/goldens/helm");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_mixed), cmocka_unit_test(test_stereographic),
                                     cmocka_unit_test(test_ngpt), cmocka_unit_test(test_helm)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
