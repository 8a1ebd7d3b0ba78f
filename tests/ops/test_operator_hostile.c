/* Every operator on values that hurt: zeros, the smallest and the largest, and not-a-numbers.  Curvatures,
 * temperatures and weights of a mean keep their values: only vectors are replaced. */
#include "support/check.h"
#include "support/isa.h"
#include "support/operator_compare.h"

static const kp_backend *backend;

static void test_extremes(void **state) {
  operator_case_extremes(*state, backend);
}

static void test_nan(void **state) {
  operator_case_nan(*state, backend);
}

static bool differentiable(const operator_case *c) {
  return !c->decoding;
}

int main(void) {
  kp_test_isa isas[KP_TEST_ISAS];
  const int count = kp_test_isas(isas);
  int failures = 0;
  for (int i = -1; i < count; i++) {
    backend = i < 0 ? kp_backend_ref() : isas[i].backend;
    print_message("%s\n", backend->name);
    failures += operator_cases_run("extremes", test_extremes, NULL);
    failures += operator_cases_run("not a number", test_nan, differentiable);
  }
  return failures;
}
