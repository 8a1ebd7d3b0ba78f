/* Operators without a shape, copies of rows and curvatures, on every instruction set. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/check.h"
#include "support/isa.h"
#include "support/kernel.h"

static const int sizes[] = {1, 3, 17, 63, 64, 65, 1000, 40001};
enum { SIZES = sizeof sizes / sizeof sizes[0] };

/* Calls `test` for every instruction set, size and number of threads. */
static void for_all(void (*test)(const kp_test_isa *isa, int count, int threads)) {
  kp_test_isa isa[KP_TEST_ISAS];
  const int isas = kp_test_isas(isa);
  for (int i = 0; i < isas; i++)
    for (int s = 0; s < SIZES; s++)
      for (int threads = 1; threads <= 3; threads++) test(&isa[i], sizes[s], threads);
}

/* Values that break careless arithmetic, at the front of `x`. */
static void make_hostile(float *x, int count) {
  const float hostile[] = {0.0f, -0.0f, 1e38f, -1e38f, 1e-44f, NAN};
  for (int i = 0; i < 6 && i < count; i++) x[i] = hostile[i];
}

static void add(const kp_test_isa *isa, int count, int threads) {
  kp_error error = {0};
  kp_test_kernel kernel;
  float *a = kp_test_uniform(count, 2, 1), *b = kp_test_uniform(count, 2, 2);
  double *expected = malloc((size_t)count * sizeof *expected);
  make_hostile(a, count);
  for (int i = 0; i < count; i++) expected[i] = (double)(a[i] + b[i]);
  kp_test_kernel_begin(&kernel, KP_OP_ADD, NULL);
  kp_test_input(&kernel, a, KP_TYPE_REAL, 1, count);
  kp_test_input(&kernel, b, KP_TYPE_REAL, 1, count);
  kp_test_output(&kernel, a, KP_TYPE_REAL, 1, count); /* in place */
  check_ok(kp_test_run(&kernel, isa->backend, threads, &error), &error);
  kp_test_close("add", isa->name, a, expected, count, 0, 0);
  free(a);
  free(b);
  free(expected);
}

static void scale(const kp_test_isa *isa, int count, int threads) {
  kp_error error = {0};
  kp_test_kernel kernel;
  const kp_scale_arguments arguments = {0.25};
  float *x = kp_test_uniform(count, 2, 1), *y = kp_test_unwritten(count);
  double *expected = malloc((size_t)count * sizeof *expected);
  make_hostile(x, count);
  for (int i = 0; i < count; i++) expected[i] = (double)(x[i] * 0.25f);
  kp_test_kernel_begin(&kernel, KP_OP_SCALE, &arguments);
  kp_test_input(&kernel, x, KP_TYPE_REAL, 1, count);
  kp_test_output(&kernel, y, KP_TYPE_REAL, 1, count);
  check_ok(kp_test_run(&kernel, isa->backend, threads, &error), &error);
  kp_test_close("scale", isa->name, y, expected, count, 0, 0);
  free(x);
  free(y);
  free(expected);
}

static void zero(const kp_test_isa *isa, int count, int threads) {
  kp_error error = {0};
  kp_test_kernel kernel;
  float *y = kp_test_unwritten(count);
  kp_test_kernel_begin(&kernel, KP_OP_ZERO, NULL);
  kp_test_output(&kernel, y, KP_TYPE_REAL, 1, count);
  check_ok(kp_test_run(&kernel, isa->backend, threads, &error), &error);
  for (int i = 0; i < count; i++) assert_true(y[i] == 0.0f);
  free(y);
}

static float sum_of(const kp_test_isa *isa, const float *x, int count, int threads) {
  kp_error error = {0};
  kp_test_kernel kernel;
  const kp_scale_arguments arguments = {-3.0};
  float y = NAN;
  kp_test_kernel_begin(&kernel, KP_OP_SUM, &arguments);
  kp_test_input(&kernel, x, KP_TYPE_REAL, 1, count);
  kp_test_output(&kernel, &y, KP_TYPE_STATISTIC, 1, 1);
  check_ok(kp_test_run(&kernel, isa->backend, threads, &error), &error);
  return y;
}

static void sum(const kp_test_isa *isa, int count, int threads) {
  float *x = kp_test_uniform(count, 1e6, 5);
  double expected = 0;
  for (int i = 0; i < count; i++) expected += (double)x[i];
  expected *= -3.0;
  const float y = sum_of(isa, x, count, threads);
  kp_test_close("sum", isa->name, &y, &expected, 1, 1e-7, 1e-3);
  assert_true(y == sum_of(isa, x, count, 1));
  x[count / 2] = NAN;
  assert_true(isnan(sum_of(isa, x, count, threads)));
  free(x);
}

static void sum_backward(const kp_test_isa *isa, int count, int threads) {
  kp_error error = {0};
  kp_test_kernel kernel;
  const kp_scale_arguments arguments = {0.5};
  const float g = 3.0f;
  float *y = kp_test_unwritten(count);
  kp_test_kernel_begin(&kernel, KP_OP_SUM_BACKWARD, &arguments);
  kp_test_input(&kernel, &g, KP_TYPE_STATISTIC, 1, 1);
  kp_test_output(&kernel, y, KP_TYPE_REAL, 1, count);
  check_ok(kp_test_run(&kernel, isa->backend, threads, &error), &error);
  for (int i = 0; i < count; i++) assert_true(y[i] == 1.5f);
  free(y);
}

static void select_row(const kp_test_isa *isa, int channels, int threads) {
  enum { BATCH = 3, LENGTH = 5 };
  kp_error error = {0};
  kp_test_kernel kernel;
  const int count = BATCH * LENGTH * channels;
  float *x = kp_test_uniform(count, 1, 3), *y = kp_test_unwritten(BATCH * channels);
  float *gx = kp_test_unwritten(count);
  for (int row = -LENGTH; row < LENGTH; row += 3) {
    const kp_select_arguments arguments = {LENGTH, row};
    const int t = (row + LENGTH) % LENGTH;
    kp_test_kernel_begin(&kernel, KP_OP_SELECT_ROW, &arguments);
    kp_test_input(&kernel, x, KP_TYPE_REAL, 3, BATCH, LENGTH, channels);
    kp_test_output(&kernel, y, KP_TYPE_REAL, 2, BATCH, channels);
    check_ok(kp_test_run(&kernel, isa->backend, threads, &error), &error);
    kp_test_kernel_begin(&kernel, KP_OP_SELECT_ROW_BACKWARD, &arguments);
    kp_test_input(&kernel, y, KP_TYPE_REAL, 2, BATCH, channels);
    kp_test_output(&kernel, gx, KP_TYPE_REAL, 3, BATCH, LENGTH, channels);
    check_ok(kp_test_run(&kernel, isa->backend, threads, &error), &error);
    for (int i = 0; i < count; i++) {
      const int n = i / channels;
      const bool chosen = n % LENGTH == t;
      assert_true(gx[i] == (chosen ? x[i] : 0.0f));
      if (chosen) assert_true(y[n / LENGTH * channels + i % channels] == x[i]);
    }
  }
  free(x);
  free(y);
  free(gx);
}

enum { BATCH = 2, WINDOW = 4, ROWS = 12, LONGEST = 6 };

/* What the state holds after `seen` of the rows of `all` (B, ROWS, C): its element i, (B, window, C). */
static double stored(const float *all, int i, int channels, int window, int seen, bool mean) {
  const int c = i % channels, w = i / channels % window, b = i / channels / window;
  double sum = 0;
  if (!mean) return seen - window + w < 0 ? 0 : (double)all[(b * ROWS + seen - window + w) * channels + c];
  for (int t = 0; t < seen; t++) sum += (double)all[(b * ROWS + t) * channels + c];
  return sum / seen;
}

/* Rows enter in chunks of several lengths. */
static void store(const kp_test_isa *isa, int channels, int threads, bool mean) {
  static const int chunks[] = {1, 3, LONGEST, 2};
  kp_error error = {0};
  kp_test_kernel kernel;
  const int window = mean ? 1 : WINDOW;
  float *all = kp_test_uniform(BATCH * ROWS * channels, 1, 4),
        *x = kp_test_unwritten(BATCH * LONGEST * channels);
  float *state = calloc((size_t)(BATCH * window * channels), sizeof *state);
  int32_t seen = 0;
  for (int chunk = 0; chunk < 4; chunk++) {
    const int length = chunks[chunk];
    const size_t bytes = (size_t)(length * channels) * sizeof *x;
    const kp_store_arguments arguments = {length, mean};
    for (int b = 0; b < BATCH; b++)
      memcpy(x + b * length * channels, all + (b * ROWS + seen) * channels, bytes);
    kp_test_kernel_begin(&kernel, KP_OP_STORE_ROWS, &arguments);
    kp_test_input(&kernel, x, KP_TYPE_REAL, 2, BATCH * length, channels);
    kp_test_input(&kernel, state, KP_TYPE_REAL, 3, BATCH, window, channels);
    if (mean) kp_test_input(&kernel, &seen, KP_TYPE_INT32, 1, 1);
    check_ok(kp_test_run(&kernel, isa->backend, threads, &error), &error);
    seen += length;
    for (int i = 0; i < BATCH * window * channels; i++) {
      const double expected = stored(all, i, channels, window, seen, mean);
      kp_test_close("store_rows", isa->name, &state[i], &expected, 1, mean ? 1e-6 : 0, 1);
    }
  }
  free(all);
  free(state);
  free(x);
}

static void store_rows(const kp_test_isa *isa, int channels, int threads) {
  store(isa, channels, threads, false);
  store(isa, channels, threads, true);
}

static double curvature_of(kp_curvature_map map, double theta) {
  switch (map) {
  case KP_CURVATURE_NEGATE: return -theta;
  case KP_CURVATURE_TANH: return 2 * tanh(theta);
  case KP_CURVATURE_SOFTPLUS: return theta > 30 ? -theta : -log1p(exp(theta));
  case KP_CURVATURE_SIGMOID: return -1 / (1 + exp(-theta));
  default: return theta;
  }
}

static double curvature_slope(kp_curvature_map map, double theta) {
  const double h = 1e-5;
  return (curvature_of(map, theta + h) - curvature_of(map, theta - h)) / (2 * h);
}

static void curvature_map(const kp_test_isa *isa, int count, int threads, kp_curvature_map map) {
  kp_error error = {0};
  kp_test_kernel kernel;
  const kp_curvature_arguments arguments = {map};
  const float hostile[] = {60.0f, -60.0f, 200.0f, NAN};
  float *theta = kp_test_uniform(count, 3, 6), *g = kp_test_uniform(count, 1, 7);
  float *y = kp_test_unwritten(count), *g_theta = kp_test_unwritten(count);
  double *expected = malloc((size_t)count * sizeof *expected), *slope = malloc((size_t)count * sizeof *slope);
  for (int i = 0; i < 4 && count > 4; i++) theta[i] = hostile[i];
  for (int i = 0; i < count; i++) {
    expected[i] = curvature_of(map, (double)theta[i]);
    slope[i] = (double)g[i] * curvature_slope(map, (double)theta[i]);
    if (map == KP_CURVATURE_IDENTITY) slope[i] = (double)g[i];
    if (map == KP_CURVATURE_NEGATE) slope[i] = -(double)g[i];
  }
  kp_test_kernel_begin(&kernel, KP_OP_CURVATURE, &arguments);
  kp_test_input(&kernel, theta, KP_TYPE_STATISTIC, 1, count);
  kp_test_output(&kernel, y, KP_TYPE_STATISTIC, 1, count);
  check_ok(kp_test_run(&kernel, isa->backend, threads, &error), &error);
  kp_test_close("curvature", isa->name, y, expected, count, 1e-7, 0);
  kp_test_kernel_begin(&kernel, KP_OP_CURVATURE_BACKWARD, &arguments);
  kp_test_input(&kernel, theta, KP_TYPE_STATISTIC, 1, count);
  kp_test_input(&kernel, g, KP_TYPE_STATISTIC, 1, count);
  kp_test_output(&kernel, g_theta, KP_TYPE_STATISTIC, 1, count);
  check_ok(kp_test_run(&kernel, isa->backend, threads, &error), &error);
  kp_test_close("curvature_backward", isa->name, g_theta, slope, count, 1e-6, 1e-3);
  free(theta);
  free(g);
  free(y);
  free(g_theta);
  free(expected);
  free(slope);
}

static void curvature(const kp_test_isa *isa, int count, int threads) {
  for (int map = KP_CURVATURE_IDENTITY; map <= KP_CURVATURE_SIGMOID; map++)
    curvature_map(isa, count, threads, (kp_curvature_map)map);
}

static void test_add(void **state) {
  (void)state;
  for_all(add);
}

static void test_scale(void **state) {
  (void)state;
  for_all(scale);
}

static void test_zero(void **state) {
  (void)state;
  for_all(zero);
}

static void test_sum(void **state) {
  (void)state;
  for_all(sum);
  for_all(sum_backward);
}

static void test_select_row(void **state) {
  (void)state;
  for_all(select_row);
}

static void test_store_rows(void **state) {
  (void)state;
  for_all(store_rows);
}

static void test_curvature(void **state) {
  (void)state;
  for_all(curvature);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_add),       cmocka_unit_test(test_scale),      cmocka_unit_test(test_zero),
      cmocka_unit_test(test_sum),       cmocka_unit_test(test_select_row), cmocka_unit_test(test_store_rows),
      cmocka_unit_test(test_curvature),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
