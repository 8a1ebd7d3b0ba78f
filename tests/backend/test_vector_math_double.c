/* The elementary functions of the lanes against libm in long double, on the ranges that they are stated for.
 */
#include "support/check.h"

#include <math.h>

#include "backend/cpu/isa/vector_math_double.h"

enum { STEPS = 40000 };

typedef struct function_case {
  const char *name;
  void (*apply)(double *y, const double *x, int count);
  long double (*reference)(long double x);
  double lowest, highest;
  int geometric; /* points are spread over the exponents */
} function_case;

/* The functions in the setting that they are written for. */
#define APPLY(name)                                                                                          \
  static void apply_##name(double *y, const double *x, int count) {                                          \
    _Pragma("omp simd") for (int i = 0; i < count; i++) y[i] = kp_lane_##name(x[i]);                         \
  }
APPLY(exp)
APPLY(expm1)
APPLY(log)
APPLY(log1p)
APPLY(tanh)
APPLY(sinh)
APPLY(cosh)
APPLY(sin)
APPLY(cos)
APPLY(tan)
APPLY(atan)

static const function_case cases[] = {
    {"exp", apply_exp, expl, -708, 709, 0},           {"exp", apply_exp, expl, -1, 1, 0},
    {"expm1", apply_expm1, expm1l, -700, 700, 0},     {"expm1", apply_expm1, expm1l, 1e-300, 1, 1},
    {"log", apply_log, logl, 1e-307, 1e308, 1},       {"log", apply_log, logl, 0.5, 2, 0},
    {"log1p", apply_log1p, log1pl, 1e-300, 1e300, 1}, {"tanh", apply_tanh, tanhl, -100, 100, 0},
    {"tanh", apply_tanh, tanhl, 1e-300, 10, 1},       {"sinh", apply_sinh, sinhl, -700, 700, 0},
    {"sinh", apply_sinh, sinhl, 1e-300, 10, 1},       {"cosh", apply_cosh, coshl, -700, 700, 0},
    {"sin", apply_sin, sinl, -1e5, 1e5, 0},           {"sin", apply_sin, sinl, 1e-300, 1, 1},
    {"cos", apply_cos, cosl, -1e5, 1e5, 0},           {"tan", apply_tan, tanl, -1.5698, 1.5698, 0},
    {"atan", apply_atan, atanl, 1e-300, 1e300, 1},    {"atan", apply_atan, atanl, 0.1, 10, 0},
};

static double point(const function_case *f, int i) {
  const double share = (i + 0.37) / STEPS;
  return f->geometric ? exp(log(f->lowest) + share * (log(f->highest) - log(f->lowest)))
                      : f->lowest + share * (f->highest - f->lowest);
}

static void errors_are_at_most_four_units(void **state) {
  (void)state;
  static double x[STEPS], y[STEPS];
  for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
    for (int i = 0; i < STEPS; i++) x[i] = point(&cases[k], i);
    cases[k].apply(y, x, STEPS);
    for (int i = 0; i < STEPS; i++) {
      const long double expected = cases[k].reference((long double)x[i]);
      const double unit = nextafter(fabs((double)expected), INFINITY) - fabs((double)expected);
      if (!(fabsl((long double)y[i] - expected) <= 4 * (long double)unit))
        fail_msg("%s(%.17g) is %.17g, not %.17Lg", cases[k].name, x[i], y[i], expected);
    }
  }
}

static void limits_and_nan_come_out(void **state) {
  (void)state;
  for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
    const double x = (double)NAN;
    double y;
    cases[k].apply(&y, &x, 1);
    assert_true(isnan(y));
  }
  assert_true(kp_lane_log(0) == -(double)INFINITY && kp_lane_log((double)INFINITY) == (double)INFINITY);
  assert_true(isnan(kp_lane_log(-1)) && kp_lane_log(1) == 0 && kp_lane_log1p(0) == 0);
  assert_true(kp_lane_exp(0) == 1 && kp_lane_expm1(0) == 0 && kp_lane_tanh(1000) == 1);
  assert_true(kp_lane_exp(-(double)INFINITY) < 1e-307 && kp_lane_sinh(0) == 0 && kp_lane_cosh(0) == 1);
  assert_true(kp_lane_atan2(0, 1) == 0 && fabs(kp_lane_atan2(1, 0) - 1.5707963267948966) < 1e-15);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(errors_are_at_most_four_units),
      cmocka_unit_test(limits_and_nan_come_out),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
