/* Linear layers and their gradients on every instruction set. */
#include <math.h>
#include <stdlib.h>

#include "support/check.h"
#include "support/isa.h"
#include "support/kernel.h"

typedef struct shape {
  int rows, columns, depth;
} shape;

/* Up to 8 rows take the streaming kernel; (300, 64, 65) splits the rows for its weight gradient; (9, 200,
 * 170) the columns; one-element sizes and sizes beside multiples of the vector length try the edges. */
static const shape shapes[] = {{1, 1, 1},     {1, 65, 63},   {2, 3, 17},   {3, 17, 1000}, {4, 1000, 64},
                               {8, 63, 65},   {9, 1, 3},     {17, 64, 64}, {9, 200, 170}, {65, 63, 1000},
                               {300, 64, 65}, {1000, 3, 17}, {64, 65, 63}};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

typedef struct arrays {
  float *x, *w, *b, *gy; /* (N, K), (M, K), (M), (N, M) */
} arrays;

static arrays make_arrays(shape s) {
  return (arrays){kp_test_uniform(s.rows * s.depth, 1, 1), kp_test_uniform(s.columns * s.depth, 1, 2),
                  kp_test_uniform(s.columns, 1, 3), kp_test_uniform(s.rows * s.columns, 1, 4)};
}

static void free_arrays(arrays a) {
  free(a.x);
  free(a.w);
  free(a.b);
  free(a.gy);
}

static void check_forward(const kp_test_isa *isa, shape s, const arrays *a, bool bias, int threads) {
  kp_error error = {0};
  kp_test_kernel kernel;
  const int count = s.rows * s.columns;
  float *y = kp_test_unwritten(count);
  double *expected = malloc((size_t)count * sizeof *expected);
  for (int i = 0; i < count; i++) {
    const float *x = a->x + i / s.columns * s.depth, *w = a->w + i % s.columns * s.depth;
    expected[i] = bias ? (double)a->b[i % s.columns] : 0;
    for (int k = 0; k < s.depth; k++) expected[i] += (double)x[k] * (double)w[k];
  }
  kp_test_kernel_begin(&kernel, KP_OP_LINEAR, NULL);
  kp_test_input(&kernel, a->x, KP_TYPE_REAL, 2, s.rows, s.depth);
  kp_test_input(&kernel, a->w, KP_TYPE_REAL, 2, s.columns, s.depth);
  if (bias) kp_test_input(&kernel, a->b, KP_TYPE_REAL, 1, s.columns);
  kp_test_output(&kernel, y, KP_TYPE_REAL, 2, s.rows, s.columns);
  check_ok(kp_test_run(&kernel, isa->backend, threads, &error), &error);
  kp_test_close("linear", isa->name, y, expected, count, 1e-6, sqrt(s.depth));
  free(y);
  free(expected);
}

static void check_backward_input(const kp_test_isa *isa, shape s, const arrays *a, int threads) {
  kp_error error = {0};
  kp_test_kernel kernel;
  const int count = s.rows * s.depth;
  float *gx = kp_test_unwritten(count);
  double *expected = calloc((size_t)count, sizeof *expected);
  for (int n = 0; n < s.rows; n++)
    for (int m = 0; m < s.columns; m++)
      for (int k = 0; k < s.depth; k++)
        expected[n * s.depth + k] += (double)a->gy[n * s.columns + m] * (double)a->w[m * s.depth + k];
  kp_test_kernel_begin(&kernel, KP_OP_LINEAR_BACKWARD_INPUT, NULL);
  kp_test_input(&kernel, a->gy, KP_TYPE_REAL, 2, s.rows, s.columns);
  kp_test_input(&kernel, a->w, KP_TYPE_REAL, 2, s.columns, s.depth);
  kp_test_output(&kernel, gx, KP_TYPE_REAL, 2, s.rows, s.depth);
  check_ok(kp_test_run(&kernel, isa->backend, threads, &error), &error);
  kp_test_close("linear_backward_input", isa->name, gx, expected, count, 1e-6, sqrt(s.columns));
  free(gx);
  free(expected);
}

/* Gradients are added to what is there; either may be absent. */
static void check_backward_weight(const kp_test_isa *isa, shape s, const arrays *a, bool weight, bool bias,
                                  int threads) {
  kp_error error = {0};
  kp_test_kernel kernel;
  const int count = s.columns * s.depth;
  float *gw = kp_test_uniform(count, 1, 5), *gb = kp_test_uniform(s.columns, 1, 6);
  double *sum_w = calloc((size_t)count, sizeof *sum_w), *sum_b = calloc((size_t)s.columns, sizeof *sum_b);
  for (int i = 0; i < count; i++) sum_w[i] = (double)gw[i];
  for (int m = 0; m < s.columns; m++) sum_b[m] = (double)gb[m];
  for (int n = 0; n < s.rows; n++)
    for (int m = 0; m < s.columns; m++) {
      const double g = (double)a->gy[n * s.columns + m];
      sum_b[m] += g;
      for (int k = 0; k < s.depth; k++) sum_w[m * s.depth + k] += g * (double)a->x[n * s.depth + k];
    }
  kp_test_kernel_begin(&kernel, KP_OP_LINEAR_BACKWARD_WEIGHT, NULL);
  kp_test_input(&kernel, a->gy, KP_TYPE_REAL, 2, s.rows, s.columns);
  kp_test_input(&kernel, a->x, KP_TYPE_REAL, 2, s.rows, s.depth);
  kp_test_output(&kernel, weight ? gw : NULL, KP_TYPE_REAL, 2, s.columns, s.depth);
  if (bias) kp_test_output(&kernel, gb, KP_TYPE_REAL, 1, s.columns);
  check_ok(kp_test_run(&kernel, isa->backend, threads, &error), &error);
  if (weight) kp_test_close("linear_backward_weight", isa->name, gw, sum_w, count, 1e-6, sqrt(s.rows));
  if (bias) kp_test_close("linear_backward_weight bias", isa->name, gb, sum_b, s.columns, 1e-6, sqrt(s.rows));
  free(gw);
  free(gb);
  free(sum_w);
  free(sum_b);
}

static void test_against_loops(void **state) {
  (void)state;
  kp_test_isa isa[KP_TEST_ISAS];
  const int isas = kp_test_isas(isa);
  for (int s = 0; s < SHAPES; s++) {
    const arrays a = make_arrays(shapes[s]);
    for (int i = 0; i < isas; i++)
      for (int threads = 1; threads <= 4; threads++) {
        check_forward(&isa[i], shapes[s], &a, threads % 2 == 0, threads);
        check_backward_input(&isa[i], shapes[s], &a, threads);
        check_backward_weight(&isa[i], shapes[s], &a, threads != 3, threads > 1, threads);
      }
    free_arrays(a);
  }
}

/* A NaN in one row of x reaches that row of y and no other; a NaN in the bias its column. */
static void check_nan(const kp_test_isa *isa, shape s) {
  kp_error error = {0};
  kp_test_kernel kernel;
  const arrays a = make_arrays(s);
  float *y = kp_test_unwritten(s.rows * s.columns);
  a.x[s.depth + 5] = NAN;
  a.b[7] = NAN;
  kp_test_kernel_begin(&kernel, KP_OP_LINEAR, NULL);
  kp_test_input(&kernel, a.x, KP_TYPE_REAL, 2, s.rows, s.depth);
  kp_test_input(&kernel, a.w, KP_TYPE_REAL, 2, s.columns, s.depth);
  kp_test_input(&kernel, a.b, KP_TYPE_REAL, 1, s.columns);
  kp_test_output(&kernel, y, KP_TYPE_REAL, 2, s.rows, s.columns);
  check_ok(kp_test_run(&kernel, isa->backend, 2, &error), &error);
  for (int i = 0; i < s.rows * s.columns; i++)
    assert_int_equal(isnan(y[i]) != 0, i / s.columns == 1 || i % s.columns == 7);
  free(y);
  free_arrays(a);
}

static void test_nan_is_not_hidden(void **state) {
  (void)state;
  kp_test_isa isa[KP_TEST_ISAS];
  const int isas = kp_test_isas(isa);
  for (int i = 0; i < isas; i++) {
    check_nan(&isa[i], (shape){2, 20, 33});
    check_nan(&isa[i], (shape){12, 20, 33});
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_against_loops),
      cmocka_unit_test(test_nan_is_not_hidden),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
