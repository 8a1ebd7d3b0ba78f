/* Every reference case in double precision. */
#include "support/check.h"

#include "ops/ops.h"
#include "support/parity.h"

static void test_goldens(void **state) {
  (void)state;
  check_goldens(kp_backend_ref());
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_goldens)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
