/* Dropout and rotary positions on every instruction set. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/random.h"
#include "support/check.h"
#include "support/isa.h"
#include "support/kernel.h"

static const int sizes[] = {1, 3, 17, 63, 64, 65, 1000, 5001};
enum { SIZES = sizeof sizes / sizeof sizes[0] };

/* ---- dropout ---- */

static void run_dropout(const kp_test_isa *isa, kp_dropout_arguments arguments, uint64_t step, const float *x,
                        float *y, int count, int threads) {
  kp_error error = {0};
  kp_test_kernel kernel;
  kp_test_kernel_begin(&kernel, KP_OP_DROPOUT, &arguments);
  kp_test_input(&kernel, x, KP_TYPE_REAL, 1, count);
  kp_test_output(&kernel, y, KP_TYPE_REAL, 1, count);
  kernel.run.seed = UINT64_C(0x123456789abcdef);
  kernel.run.step = step;
  check_ok(kp_test_run(&kernel, isa->backend, threads, &error), &error);
}

/* The mask as the operator's contract defines it, drawn element by element. */
static bool kept(kp_dropout_arguments arguments, uint64_t step, int i) {
  const kp_philox_block block = kp_random_block(UINT64_C(0x123456789abcdef), KP_RANDOM_DROPOUT,
                                                (uint32_t)step, (arguments.stream << 40) + (uint64_t)(i / 4));
  return (double)block.word[i % 4] >= arguments.rate * 0x1p32;
}

static void check_dropout(const kp_test_isa *isa, int count, double rate, uint64_t stream, int threads) {
  const kp_dropout_arguments arguments = {rate, stream};
  const uint64_t step = 77;
  float *x = kp_test_uniform(count, 1, 1), *y = kp_test_unwritten(count);
  double *expected = malloc((size_t)count * sizeof *expected);
  for (int i = 0; i < count; i++) expected[i] = kept(arguments, step, i) ? (double)x[i] / (1 - rate) : 0;
  run_dropout(isa, arguments, step, x, y, count, threads);
  kp_test_close("dropout", isa->name, y, expected, count, 2e-7, 0);
  run_dropout(isa, arguments, step, x, x, count, threads); /* in place */
  assert_memory_equal(x, y, (size_t)count * sizeof *x);
  free(x);
  free(y);
  free(expected);
}

static void test_dropout(void **state) {
  (void)state;
  static const double rates[] = {0, 0.1, 0.5, 0.999};
  kp_test_isa isa[KP_TEST_ISAS];
  const int isas = kp_test_isas(isa);
  for (int i = 0; i < isas; i++)
    for (int s = 0; s < SIZES; s++)
      for (int r = 0; r < 4; r++)
        for (int threads = 1; threads <= 3; threads++)
          check_dropout(&isa[i], sizes[s], rates[r], (uint64_t)(s * 4 + r), threads);
}

static void test_dropout_keeps_its_share_and_shows_nan(void **state) {
  (void)state;
  enum { COUNT = 100000 };
  const kp_dropout_arguments arguments = {0.2, 3};
  kp_test_isa isa[KP_TEST_ISAS];
  const int isas = kp_test_isas(isa);
  float *x = kp_test_unwritten(COUNT), *y = kp_test_unwritten(COUNT);
  for (int i = 0; i < isas; i++) {
    int zeros = 0;
    run_dropout(&isa[i], arguments, 5, x, y, COUNT, 2);
    for (int j = 0; j < COUNT; j++) assert_true(isnan(y[j]));
    for (int j = 0; j < COUNT; j++) y[j] = 1.0f;
    run_dropout(&isa[i], arguments, 5, y, y, COUNT, 2);
    for (int j = 0; j < COUNT; j++) zeros += y[j] == 0.0f;
    assert_in_range(zeros, 20000 - 700, 20000 + 700); /* five deviations */
  }
  free(x);
  free(y);
}

/* ---- rotary ---- */

typedef struct rotary_case {
  kp_rotary_arguments arguments;
  int rows, width, first, period; /* positions: first + n mod period, times step */
  int step;
} rotary_case;

static const rotary_case rotary_cases[] = {
    {{.heads = 1, .head_size = 2, .base = 10000, .halves = false, .transposed = false}, 1, 2, 0, 1, 1},
    {{.heads = 1, .head_size = 2, .base = 10000, .halves = true, .transposed = true}, 3, 5, 7, 3, 1},
    {{.heads = 3, .head_size = 16, .base = 10000, .halves = false, .transposed = true}, 17, 50, 0, 8, 1},
    {{.heads = 2, .head_size = 64, .base = 500000, .halves = true, .transposed = false}, 65, 128, 0, 65, 1},
    {{.heads = 2, .head_size = 64, .base = 10000, .halves = false, .transposed = false}, 64, 384, 0, 32, 1},
    {{.heads = 4, .head_size = 34, .base = 10000, .halves = true, .transposed = false},
     5,
     140,
     100000,
     5,
     1000},
    {{.heads = 1, .head_size = 128, .base = 10000, .halves = true, .transposed = true}, 1, 128, 8191, 1, 1},
    {{.heads = 6, .head_size = 64, .base = 10000, .halves = false, .transposed = false}, 63, 1152, 3, 63, -2},
};
enum { ROTARY_CASES = sizeof rotary_cases / sizeof rotary_cases[0] };

/* Element `c` of a row `x` after the rotation. */
static double rotated(const kp_rotary_arguments *a, const float *x, int c, int position) {
  if (c >= a->heads * a->head_size) return (double)x[c];
  const int head = c / a->head_size * a->head_size, d = c % a->head_size, half = a->head_size / 2;
  const int pair = a->halves ? d % half : d / 2;
  const bool second = a->halves ? d >= half : d % 2 == 1;
  const double sign = a->transposed ? -1 : 1, angle = position * pow(a->base, -2.0 * pair / a->head_size);
  const double p = (double)x[head + (a->halves ? pair : 2 * pair)];
  const double q = (double)x[head + (a->halves ? pair + half : 2 * pair + 1)];
  return second ? p * sign * sin(angle) + q * cos(angle) : p * cos(angle) - q * sign * sin(angle);
}

static void check_rotary(const kp_test_isa *isa, const rotary_case *test, int threads) {
  kp_error error = {0};
  kp_test_kernel kernel;
  const int count = test->rows * test->width;
  float *x = kp_test_uniform(count, 1, 1), *y = kp_test_unwritten(count);
  int32_t *position = malloc((size_t)test->rows * sizeof *position);
  double *expected = malloc((size_t)count * sizeof *expected);
  x[count - 1] = NAN;
  for (int n = 0; n < test->rows; n++) position[n] = test->first + n % test->period * test->step;
  for (int i = 0; i < count; i++) {
    const int n = i / test->width;
    expected[i] = rotated(&test->arguments, x + n * test->width, i % test->width, position[n]);
  }
  kp_test_kernel_begin(&kernel, KP_OP_ROTARY, &test->arguments);
  kp_test_input(&kernel, x, KP_TYPE_REAL, 2, test->rows, test->width);
  kp_test_input(&kernel, position, KP_TYPE_INT32, 1, test->rows);
  kp_test_output(&kernel, y, KP_TYPE_REAL, 2, test->rows, test->width);
  check_ok(kp_test_run(&kernel, isa->backend, threads, &error), &error);
  kp_test_close("rotary", isa->name, y, expected, count, 3e-7, 1);
  kernel.call.output[0] = x; /* in place */
  check_ok(kp_test_run(&kernel, isa->backend, threads, &error), &error);
  kp_test_close("rotary in place", isa->name, x, expected, count, 3e-7, 1);
  free(x);
  free(y);
  free(position);
  free(expected);
}

static void test_rotary(void **state) {
  (void)state;
  kp_test_isa isa[KP_TEST_ISAS];
  const int isas = kp_test_isas(isa);
  for (int i = 0; i < isas; i++)
    for (int c = 0; c < ROTARY_CASES; c++)
      for (int threads = 1; threads <= 3; threads++) check_rotary(&isa[i], &rotary_cases[c], threads);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_dropout),
      cmocka_unit_test(test_dropout_keeps_its_share_and_shows_nan),
      cmocka_unit_test(test_rotary),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
