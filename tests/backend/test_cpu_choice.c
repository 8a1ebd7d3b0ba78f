/* The choice of an instruction set, and that the limits are numbers. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/limits.h"
#include "backend/operators.h"
#include "support/check.h"
#include "support/isa.h"

static void test_every_table_is_complete(void **state) {
  (void)state;
  kp_test_isa isa[KP_TEST_ISAS];
  const int isas = kp_test_isas(isa);
  assert_in_range(isas, 1, KP_TEST_ISAS);
  for (int i = 0; i < isas; i++) {
    assert_non_null(strstr(isa[i].backend->name, isa[i].name));
    assert_int_equal(isa[i].backend->real_size, sizeof(float));
    for (int operation = 0; operation < KP_OP_COUNT; operation++)
      assert_non_null(isa[i].backend->kernels[operation]);
  }
}

static void test_environment_forces_an_instruction_set(void **state) {
  (void)state;
  kp_test_isa isa[KP_TEST_ISAS];
  const int isas = kp_test_isas(isa);
  unsetenv("KAPPA_ISA");
  const kp_backend *best = kp_backend_cpu();
  for (int i = 0; i < isas; i++) {
    setenv("KAPPA_ISA", isa[i].name, 1);
    assert_ptr_equal(kp_backend_cpu(), isa[i].backend);
    assert_string_equal(kp_cpu_isa_name(), isa[i].name);
  }
  setenv("KAPPA_ISA", "abacus", 1);
  assert_ptr_equal(kp_backend_cpu(), best);
  unsetenv("KAPPA_ISA");
}

static void test_unknown_names_are_refused(void **state) {
  (void)state;
  kp_error error = {0};
  assert_null(kp_backend_cpu_named("abacus", &error));
  assert_int_equal(error.status, KP_ERR_INPUT);
  assert_non_null(strstr(error.message, "'abacus'"));
}

static void test_limits_are_positive(void **state) {
  (void)state;
  kp_error error = {0};
  double copy = 0, read = 0, product = 0;
  check_ok(kp_limits_copy(1 << 16, 2, &copy, &error), &error);
  check_ok(kp_limits_read(1 << 16, 2, &read, &error), &error);
  check_ok(kp_limits_product(64, 64, 64, 2, &product, &error), &error);
  assert_true(copy > 0 && isfinite(copy) && read > 0 && isfinite(read) && product > 0 && isfinite(product));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_every_table_is_complete),
      cmocka_unit_test(test_environment_forces_an_instruction_set),
      cmocka_unit_test(test_unknown_names_are_refused),
      cmocka_unit_test(test_limits_are_positive),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
