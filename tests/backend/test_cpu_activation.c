/* Activations, plain and gated, on every instruction set. */
#include <math.h>
#include <stdlib.h>

#include "support/check.h"
#include "support/isa.h"
#include "support/kernel.h"

static const int sizes[] = {1, 3, 17, 63, 64, 65, 1000, 5000};
enum { SIZES = sizeof sizes / sizeof sizes[0] };

static double value(kp_activation_kind kind, double x) {
  switch (kind) {
  case KP_GELU_ERF: return x * 0.5 * erfc(-x / sqrt(2));
  case KP_GELU_TANH: return 0.5 * x * (1 + tanh(sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x)));
  default: return x / (1 + exp(-x));
  }
}

/* By a difference of fourth order; far out it is 0 or 1. */
static double slope(kp_activation_kind kind, double x) {
  const double h = 1e-3;
  if (fabs(x) > 100) return x > 0;
  return (8 * (value(kind, x + h) - value(kind, x - h)) - (value(kind, x + 2 * h) - value(kind, x - 2 * h))) /
         (12 * h);
}

/* Values that break careless formulas stand in front. */
static float *make_x(int count) {
  const float hostile[] = {0.0f,   -0.0f, 1e30f, -1e30f, 1e-40f, 3e38f,
                           -3e38f, NAN,   20.0f, -20.0f, -90.0f, 90.0f};
  float *x = kp_test_uniform(count, 8, 1);
  for (int i = 0; i < 12 && count > 20; i++) x[i] = hostile[i];
  return x;
}

static void check_plain(const kp_test_isa *isa, kp_activation_kind kind, int count, int threads) {
  kp_error error = {0};
  kp_test_kernel kernel;
  const kp_activation_arguments arguments = {kind};
  float *x = make_x(count), *gy = kp_test_uniform(count, 1, 2), *y = kp_test_unwritten(count);
  double *expected = malloc((size_t)count * sizeof *expected), *g = malloc((size_t)count * sizeof *g);
  for (int i = 0; i < count; i++) {
    expected[i] = value(kind, (double)x[i]);
    g[i] = (double)gy[i] * slope(kind, (double)x[i]);
  }
  kp_test_kernel_begin(&kernel, KP_OP_ACTIVATION, &arguments);
  kp_test_input(&kernel, x, KP_TYPE_REAL, 1, count);
  kp_test_output(&kernel, y, KP_TYPE_REAL, 1, count);
  check_ok(kp_test_run(&kernel, isa->backend, threads, &error), &error);
  kp_test_close("activation", isa->name, y, expected, count, 5e-7, 1);
  kp_test_kernel_begin(&kernel, KP_OP_ACTIVATION_BACKWARD, &arguments);
  kp_test_input(&kernel, x, KP_TYPE_REAL, 1, count);
  kp_test_input(&kernel, gy, KP_TYPE_REAL, 1, count);
  kp_test_output(&kernel, gy, KP_TYPE_REAL, 1, count); /* in place */
  check_ok(kp_test_run(&kernel, isa->backend, threads, &error), &error);
  kp_test_close("activation_backward", isa->name, gy, g, count, 5e-7, 1);
  free(x);
  free(gy);
  free(y);
  free(expected);
  free(g);
}

static void check_gated(const kp_test_isa *isa, kp_activation_kind kind, bool packed, int width,
                        int threads) {
  enum { ROWS = 3 };
  kp_error error = {0};
  kp_test_kernel kernel;
  const kp_gated_arguments arguments = {.kind = kind, .packed = packed};
  const int count = ROWS * width, step = packed ? 2 * width : width;
  float *both = kp_test_uniform(2 * count, 4, 3), *g_both = kp_test_unwritten(2 * count);
  float *u = both, *g = packed ? both + width : both + count;
  float *gu = g_both, *gg = packed ? g_both + width : g_both + count;
  float *gy = kp_test_uniform(count, 1, 4), *y = kp_test_unwritten(count);
  kp_test_kernel_begin(&kernel, KP_OP_GATED_ACTIVATION, &arguments);
  kp_test_input(&kernel, u, KP_TYPE_REAL, 2, ROWS, step);
  if (!packed) kp_test_input(&kernel, g, KP_TYPE_REAL, 2, ROWS, width);
  kp_test_output(&kernel, y, KP_TYPE_REAL, 2, ROWS, width);
  check_ok(kp_test_run(&kernel, isa->backend, threads, &error), &error);
  kp_test_kernel_begin(&kernel, KP_OP_GATED_ACTIVATION_BACKWARD, &arguments);
  kp_test_input(&kernel, u, KP_TYPE_REAL, 2, ROWS, step);
  kp_test_input(&kernel, packed ? NULL : g, KP_TYPE_REAL, 2, ROWS, width);
  kp_test_input(&kernel, gy, KP_TYPE_REAL, 2, ROWS, width);
  kp_test_output(&kernel, gu, KP_TYPE_REAL, 2, ROWS, step);
  if (!packed) kp_test_output(&kernel, gg, KP_TYPE_REAL, 2, ROWS, width);
  check_ok(kp_test_run(&kernel, isa->backend, threads, &error), &error);
  for (int i = 0; i < count; i++) {
    const int at = i / width * step + i % width;
    const double up = (double)u[at], gate = (double)g[at], gradient = (double)gy[i];
    const double expected[3] = {up * value(kind, gate), gradient * value(kind, gate),
                                gradient * up * slope(kind, gate)};
    const float actual[3] = {y[i], gu[at], gg[at]};
    kp_test_close("gated_activation", isa->name, actual, expected, 3, 5e-7, 4); /* |u| is up to 4 */
  }
  free(both);
  free(g_both);
  free(gy);
  free(y);
}

static void check_kind(const kp_test_isa *isa, kp_activation_kind kind) {
  for (int s = 0; s < SIZES; s++)
    for (int threads = 1; threads <= 3; threads++) {
      check_plain(isa, kind, sizes[s], threads);
      check_gated(isa, kind, false, sizes[s], threads);
      check_gated(isa, kind, true, sizes[s], threads);
    }
}

static void test_against_formulas(void **state) {
  (void)state;
  kp_test_isa isa[KP_TEST_ISAS];
  const int isas = kp_test_isas(isa);
  for (int i = 0; i < isas; i++) {
    check_kind(&isa[i], KP_GELU_ERF);
    check_kind(&isa[i], KP_GELU_TANH);
    check_kind(&isa[i], KP_SILU);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_formulas)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
