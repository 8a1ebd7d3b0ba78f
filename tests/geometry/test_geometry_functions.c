/* The scalar functions against long double closed forms, on both sides of 0, of the series' end and of the
 * clamps. */
#include "support/check.h"

#include <math.h>
#include <stdlib.h>

#include "geometry/functions.h"

typedef struct wide_slope {
  long double value, derivative;
} wide_slope;

static wide_slope wide_tan(long double z) {
  long double s = sqrtl(fabsl(z)), f = z > 0 ? tanl(s) / s : tanhl(s) / s;
  long double growth = z > 0 ? 1 + z * f * f : 1 / (coshl(s) * coshl(s));
  return (wide_slope){f, (growth - f) / (2 * z)};
}
static wide_slope wide_atan(long double z) {
  long double s = sqrtl(fabsl(z)), f = z > 0 ? atanl(s) / s : atanhl(s) / s;
  return (wide_slope){f, (1 / (1 + z) - f) / (2 * z)};
}
static wide_slope wide_asin(long double z) {
  long double s = sqrtl(fabsl(z)), f = z > 0 ? asinl(s) / s : asinhl(s) / s;
  return (wide_slope){f, (1 / sqrtl(1 - z) - f) / (2 * z)};
}
static wide_slope wide_cosine(long double z) {
  long double s = sqrtl(fabsl(z));
  return (wide_slope){z > 0 ? cosl(s) : coshl(s), -(z > 0 ? sinl(s) : sinhl(s)) / (2 * s)};
}
static wide_slope wide_sine(long double z) {
  long double s = sqrtl(fabsl(z)), f = (z > 0 ? sinl(s) : sinhl(s)) / s;
  return (wide_slope){f, (wide_cosine(z).value - f) / (2 * z)};
}

static void check_function(const char *name, kp_slope (*function)(kp_real), wide_slope (*wide)(long double),
                           double from, double to) {
  double worst_value = 0, worst_derivative = 0;
  for (int i = -4000; i <= 4000; i++) {
    double z = (i < 0 ? -1 : 1) * exp(abs(i) * 0.005 - 12);
    if (i == 0 || z < from || z > to) continue;
    kp_slope found = function(z);
    wide_slope expected = wide((long double)z);
    /* The closed form of the derivative itself has 64 bits / |z| only. */
    double derivative_error =
        (double)fabsl(((long double)found.derivative - expected.derivative) / expected.derivative);
    double floor = fabs(z) < 1e-2 ? 1e-18 / fabs(z) : 0;
    worst_value = fmax(worst_value, (double)fabsl(((long double)found.value - expected.value) /
                                                  fmaxl(fabsl(expected.value), 0.2L)));
    if (fabsl(expected.derivative) > 0.02L * fabsl(expected.value))
      worst_derivative = fmax(worst_derivative, derivative_error - floor);
  }
  print_message("%s: value %.1e derivative %.1e\n", name, worst_value, worst_derivative);
  assert_true(worst_value <= 5e-15);
  assert_true(worst_derivative <= 3e-14);
}

static void test_closed_forms(void **state) {
  (void)state;
  check_function("tan ratio", kp_tan_ratio_both, wide_tan, -900, 2.2);
  check_function("atan ratio", kp_atan_ratio_both, wide_atan, -0.9, 1e6);
  check_function("asin ratio", kp_asin_ratio_both, wide_asin, -1e6, 0.9);
  check_function("sine ratio", kp_sine_ratio_both, wide_sine, -900, 30);
  check_function("cosine", kp_cosine_both, wide_cosine, -100, 30);
}

static void check_continuous(const char *name, kp_slope (*function)(kp_real), double z) {
  double step = 1e-15 * fmax(fabs(z), 1e-3);
  kp_slope below = function(z - step), above = function(z + step);
  double value_jump = fabs(above.value - below.value),
         derivative_jump = fabs(above.derivative - below.derivative);
  if (value_jump > 3e-15 || derivative_jump > 2e-14)
    fail_msg("%s jumps at %g: value %g, derivative %g", name, z, value_jump, derivative_jump);
}

static void test_no_jumps(void **state) {
  (void)state;
  const double places[] = {0, KP_SERIES_RADIUS, -KP_SERIES_RADIUS};
  for (int i = 0; i < 3; i++) {
    check_continuous("tan ratio", kp_tan_ratio_both, places[i]);
    check_continuous("atan ratio", kp_atan_ratio_both, places[i]);
    check_continuous("asin ratio", kp_asin_ratio_both, places[i]);
    check_continuous("sine ratio", kp_sine_ratio_both, places[i]);
    check_continuous("cosine", kp_cosine_both, places[i]);
  }
}

static void test_clamps(void **state) {
  (void)state;
  kp_radial far = kp_radial_of(1e8);
  assert_true(far.clamped && far.complement_derivative == 0);
  assert_true(far.ratio * 1e4 <= 1001 && far.ratio * 1e4 >= 999);
  kp_radial deep = kp_radial_of(-1e8);
  assert_true(deep.clamped && deep.complement > 0 && deep.ratio * 1e4 == 1);
  assert_false(kp_radial_of(-400).clamped);
  kp_radial twenty = kp_radial_of(-400);
  assert_true(fabs(twenty.complement * cosh(20) * cosh(20) - 1) < 1e-14);
  assert_true(isfinite(kp_atan_ratio(-1)) && isfinite(kp_atan_ratio(-1e60)) && isfinite(kp_atan_ratio(1e60)));
  assert_true(isfinite(kp_asin_ratio_derivative(1)) && isfinite(kp_asin_ratio(-1e300)));
}

/* psi with the complement given beside z keeps its digits where 1 + z has none. */
static void test_complement_at_the_boundary(void **state) {
  (void)state;
  for (int s = 1; s <= 90; s += 7) {
    double t = tanh(s), complement = 1 / (cosh(s) * cosh(s));
    assert_true(fabs(kp_atan_ratio_split(-t * t, complement).value * t / s - 1) < 1e-14);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_closed_forms),
      cmocka_unit_test(test_no_jumps),
      cmocka_unit_test(test_clamps),
      cmocka_unit_test(test_complement_at_the_boundary),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
