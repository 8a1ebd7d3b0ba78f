/* The elementary functions of the kernels against libm in double, over all exponents. */
#include "support/check.h"

#include <math.h>
#include <string.h>

#include "backend/cpu/isa/vector_math.h"

enum { BLOCK = 256, STEP = 1009 };

typedef struct function_case {
  const char *name;
  void (*apply)(float *y, const float *x, int count);
  double (*reference)(double x);
  float lowest, highest; /* where the error is measured in units of the last place */
} function_case;

/* The functions in the setting that they are written for. */
#define APPLY(name)                                                                                          \
  static void apply_##name(float *y, const float *x, int count) {                                            \
    _Pragma("omp simd") for (int i = 0; i < count; i++) y[i] = name(x[i]);                                   \
  }
APPLY(kp_expf)
APPLY(kp_logf)
APPLY(kp_tanhf)
APPLY(kp_erff)

static const function_case cases[] = {
    {"kp_expf", apply_kp_expf, exp, -86.9f, 88.72283f},
    {"kp_logf", apply_kp_logf, log, 0x1p-149f, 0x1.fffffep127f},
    {"kp_tanhf", apply_kp_tanhf, tanh, -0x1.fffffep127f, 0x1.fffffep127f},
    {"kp_erff", apply_kp_erff, erf, -0x1.fffffep127f, 0x1.fffffep127f},
};

static float from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* The distance of neighbouring floats around `value`. */
static double unit_of(double value) {
  int exponent;
  frexp(value, &exponent);
  return ldexp(1.0, (exponent < -125 ? -125 : exponent) - 24);
}

static double worst_error(const function_case *function, float *where) {
  double worst = 0;
  float x[BLOCK], y[BLOCK];
  int count = 0;
  for (uint64_t bits = 0; bits <= UINT32_MAX; bits += STEP) {
    float value = from_bits((uint32_t)bits);
    if (!(value >= function->lowest && value <= function->highest)) continue;
    x[count++] = value;
    if (count < BLOCK) continue;
    function->apply(y, x, count);
    for (int i = 0; i < count; i++) {
      double expected = function->reference((double)x[i]);
      double error = fabs((double)y[i] - expected) / unit_of(expected);
      if (!(error <= worst)) worst = error, *where = x[i];
    }
    count = 0;
  }
  return worst;
}

static void test_error_is_two_units(void **state) {
  (void)state;
  for (size_t f = 0; f < sizeof cases / sizeof *cases; f++) {
    float where = 0;
    double worst = worst_error(&cases[f], &where);
    if (!(worst <= 2.0)) fail_msg("%s: %.3f units at %.9g", cases[f].name, worst, (double)where);
  }
}

static void test_special_values(void **state) {
  (void)state;
  for (size_t f = 0; f < sizeof cases / sizeof *cases; f++) {
    float x[BLOCK], y[BLOCK];
    for (int i = 0; i < BLOCK; i++) x[i] = NAN;
    cases[f].apply(y, x, BLOCK);
    for (int i = 0; i < BLOCK; i++) assert_true(isnan(y[i]));
  }
  assert_true(kp_expf(0.0f) == 1.0f && kp_expf(-0.0f) == 1.0f);
  assert_true(kp_expf(-86.91f) == 0.0f && kp_expf(-1e30f) == 0.0f && kp_expf(-INFINITY) == 0.0f);
  assert_true(kp_expf(88.73f) == INFINITY && kp_expf(1e30f) == INFINITY && kp_expf(INFINITY) == INFINITY);
  assert_true(kp_logf(1.0f) == 0.0f && kp_logf(0.0f) == -INFINITY && kp_logf(-0.0f) == -INFINITY);
  assert_true(kp_logf(INFINITY) == INFINITY && isnan(kp_logf(-1.0f)) && isnan(kp_logf(-INFINITY)));
  assert_true(kp_tanhf(INFINITY) == 1.0f && kp_tanhf(-INFINITY) == -1.0f);
  assert_true(kp_erff(INFINITY) == 1.0f && kp_erff(-INFINITY) == -1.0f);
  assert_true(kp_tanhf(0.0f) == 0.0f && kp_erff(0.0f) == 0.0f);
  assert_true(signbit(kp_tanhf(-0.0f)) && signbit(kp_erff(-0.0f)));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_error_is_two_units),
      cmocka_unit_test(test_special_values),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
