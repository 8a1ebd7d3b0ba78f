/* Spectra and their measures against values known by hand. */
#include <math.h>
#include <string.h>

#include "study/spectrum.h"
#include "near.h"
#include "support/check_fails.h"

static void eigenvalues_of_a_known_matrix(void **state) {
  (void)state;
  kp_error error = {0};
  /* [[2, 1], [1, 2]] has 3 and 1; the upper triangle must not be read. */
  double matrix[] = {2, 99, 1, 2}, values[2];
  check_ok(kp_symmetric_eigenvalues(2, matrix, values, &error), &error);
  check_near(values[0], 3, 1e-14);
  check_near(values[1], 1, 1e-14);
}

static void singular_values_of_known_matrices(void **state) {
  (void)state;
  kp_error error = {0};
  double wide[] = {3, 0, 0, 0, 4, 0}, tall[] = {3, 0, 0, 4, 0, 0}, values[2];
  check_ok(kp_singular_values(2, 3, wide, values, &error), &error);
  check_near(values[0], 4, 1e-14);
  check_near(values[1], 3, 1e-14);
  check_ok(kp_singular_values(3, 2, tall, values, &error), &error);
  check_near(values[0], 4, 1e-14);
  check_near(values[1], 3, 1e-14);
  /* u vᵀ with |u| = 5, |v| = 3: one singular value of 15. */
  double outer[] = {3 * 1, 3 * 2, 3 * 2, 4 * 1, 4 * 2, 4 * 2};
  check_ok(kp_singular_values(2, 3, outer, values, &error), &error);
  check_near(values[0], 15, 1e-13);
  check_near(values[1], 0, 1e-13);
}

static void measures_of_even_and_single_spectra(void **state) {
  (void)state;
  const double even[] = {2, 2, 2, 2}, single[] = {7, 0, 0}, both[] = {3, 1}, none[] = {0, 0};
  check_near(kp_participation_ratio(even, 4), 4, 1e-15);
  check_near(kp_spectral_entropy(even, 4), log(4), 1e-15);
  check_near(kp_participation_ratio(single, 3), 1, 1e-15);
  check_near(kp_spectral_entropy(single, 3), 0, 1e-15);
  check_near(kp_participation_ratio(both, 2), 16.0 / 10.0, 1e-15);
  check_near(kp_spectral_entropy(both, 2), -(0.75 * log(0.75) + 0.25 * log(0.25)), 1e-15);
  assert_true(isnan(kp_participation_ratio(none, 2)));
  assert_true(isnan(kp_spectral_entropy(none, 2)));
}

static void values_that_are_not_finite_are_refused(void **state) {
  (void)state;
  kp_error error = {0};
  double matrix[] = {1, 0, NAN, 1}, values[2];
  check_fails(kp_symmetric_eigenvalues(2, matrix, values, &error), &error, KP_ERR_NUMERIC, "not finite");
  check_fails(kp_singular_values(2, 2, matrix, values, &error), &error, KP_ERR_NUMERIC, "not finite");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(eigenvalues_of_a_known_matrix),
      cmocka_unit_test(singular_values_of_known_matrices),
      cmocka_unit_test(measures_of_even_and_single_spectra),
      cmocka_unit_test(values_that_are_not_finite_are_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
