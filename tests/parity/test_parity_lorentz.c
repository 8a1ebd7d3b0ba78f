/* Blocks of Lorentz networks against the published code's numbers: in double, and in float32 on every
 * instruction set that this processor has. */
#include "support/check.h"

#include "ops/ops.h"
#include "support/isa.h"
#include "support/parity.h"

#define HELM KP_TEST_DIRECTORY "/goldens/helm/"
static const char *const paths[] = {
    HELM "blk_linear_c1",        HELM "blk_linear_c07_to_c19", HELM "blk_linear_space",
    HELM "blk_rmsnorm",          HELM "blk_rmsnorm_space_in",  HELM "blk_residual_fixed",
    HELM "blk_residual_learned", HELM "blk_residual_weighted", HELM "blk_ffn",
    HELM "blk_expert_c06",
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
