/* The gyromidpoint against reference numbers (which carry a shift of 1e-10) and against finite differences.
 */
#include "support/check.h"

#include <math.h>
#include <stdlib.h>

#include "geometry/midpoint.h"
#include "support/golden.h"

#define POINTS 6
#define WIDTH  5

static void keep_worst(double *worst, const double *found, const double *expected, size_t count) {
  double scale = 1e-300;
  for (size_t i = 0; i < count; i++) scale = fmax(scale, fabs(expected[i]));
  for (size_t i = 0; i < count; i++) {
    double error = fabs(found[i] - expected[i]) / scale;
    if (!(error <= *worst)) *worst = error;
  }
}

static void test_reference_numbers(void **state) {
  (void)state;
  golden *file = golden_open("stereographic/midpoint");
  double worst[4] = {0};
  for (int k = 0; k < 5; k++) {
    const golden_array *x = golden_find(file, "k%d/x", k), *weights = golden_find(file, "k%d/weights", k);
    const golden_array *cotangent = golden_find(file, "k%d/gout", k);
    double kappa = golden_find(file, "k%d/k", k)->data[0], kappa_bar = 0;
    double output[4 * WIDTH], points_bar[4 * POINTS * WIDTH] = {0}, weights_bar[4 * POINTS] = {0};
    double scratch[2 * WIDTH];
    for (size_t row = 0; row < 4; row++) {
      const double *points = x->data + row * POINTS * WIDTH, *w = weights->data + row * POINTS;
      kp_midpoint_forward(WIDTH, POINTS, kappa, points, w, output + row * WIDTH);
      kp_midpoint_backward(WIDTH, POINTS, kappa, points, w, cotangent->data + row * WIDTH, scratch,
                           points_bar + row * POINTS * WIDTH, weights_bar + row * POINTS, &kappa_bar);
    }
    keep_worst(&worst[0], output, golden_find(file, "k%d/out", k)->data, 4 * WIDTH);
    keep_worst(&worst[1], points_bar, golden_find(file, "k%d/g_x", k)->data, 4 * POINTS * WIDTH);
    keep_worst(&worst[2], weights_bar, golden_find(file, "k%d/g_weights", k)->data, 4 * POINTS);
    keep_worst(&worst[3], &kappa_bar, golden_find(file, "k%d/g_k", k)->data, 1);
  }
  print_message("midpoint: out %.1e points %.1e weights %.1e kappa %.1e\n", worst[0], worst[1], worst[2],
                worst[3]);
  for (int i = 0; i < 4; i++) assert_true(worst[i] <= 2e-9);
  golden_close(file);
}

static double loss(double kappa, const double *points, const double *weights) {
  double output[2];
  kp_midpoint_forward(2, 3, kappa, points, weights, output);
  return output[0] - 2 * output[1];
}

static void test_finite_differences(void **state) {
  (void)state;
  const double curvatures[] = {0, 1e-6, -1e-6, 1e-4, -1e-4, 0.1, -0.1, 1, -1, 3.7, -3.7};
  const double cotangent[] = {1, -2}, step = 1e-5;
  for (size_t c = 0; c < sizeof curvatures / sizeof curvatures[0]; c++) {
    double points[] = {0.2, 0.1, -0.3, 0.25, 0.05, -0.4}, weights[] = {0.5, 0.2, 0.3}, kappa = curvatures[c];
    double points_bar[6] = {0}, weights_bar[3] = {0}, kappa_bar = 0, scratch[4];
    kp_midpoint_backward(2, 3, kappa, points, weights, cotangent, scratch, points_bar, weights_bar,
                         &kappa_bar);
    for (int i = 0; i < 9; i++) {
      double *value = i < 6 ? &points[i] : &weights[i - 6], kept = *value;
      *value = kept + step;
      double up = loss(kappa, points, weights);
      *value = kept - step;
      double down = loss(kappa, points, weights);
      *value = kept;
      double found = i < 6 ? points_bar[i] : weights_bar[i - 6];
      assert_true(fabs(found - (up - down) / (2 * step)) < 1e-8);
    }
    double slope = (loss(kappa + step, points, weights) - loss(kappa - step, points, weights)) / (2 * step);
    assert_true(fabs(kappa_bar - slope) < 1e-8);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_reference_numbers),
      cmocka_unit_test(test_finite_differences),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
