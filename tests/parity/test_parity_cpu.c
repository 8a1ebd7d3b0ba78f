/* Every reference case in float32, on every instruction set that this processor has. */
#include "support/check.h"

#include "support/isa.h"
#include "support/parity.h"

static void test_goldens(void **state) {
  (void)state;
  kp_test_isa list[KP_TEST_ISAS];
  const int count = kp_test_isas(list);
  for (int i = 0; i < count; i++) {
    print_message("%s\n", list[i].name);
    check_goldens(list[i].backend);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_goldens)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
