/* Optimizers and schedules against the published code's numbers: in double, and in float32 on every
 * instruction set that this processor has. */
#include "support/check.h"

#include "ops/ops.h"
#include "support/isa.h"
#include "support/parity.h"

static const char *const paths[] = {
    KP_TEST_DIRECTORY "/goldens/muon/newton_schulz",  KP_TEST_DIRECTORY "/goldens/muon/muon3_plain",
    KP_TEST_DIRECTORY "/goldens/muon/muon3_nesterov", KP_TEST_DIRECTORY "/goldens/helm/opt_radam_c1",
    KP_TEST_DIRECTORY "/goldens/helm/opt_radam_c2",   KP_TEST_DIRECTORY "/goldens/helm/sched",
};
enum { PATHS = sizeof paths / sizeof *paths };

static void test_double(void **state) {
  (void)state;
  for (int i = 0; i < PATHS; i++) check_case(paths[i], kp_backend_ref());
}

static void test_float(void **state) {
  (void)state;
  kp_test_isa list[KP_TEST_ISAS];
  const int count = kp_test_isas(list);
  for (int isa = 0; isa < count; isa++)
    for (int i = 0; i < PATHS; i++) check_case(paths[i], list[isa].backend);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_double), cmocka_unit_test(test_float)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
