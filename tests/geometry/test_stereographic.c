/* Identities of the gyrovector space, and the residual programs as compositions of chart maps. */
#include "support/check.h"

#include <math.h>
#include <string.h>

#include "geometry/midpoint.h"
#include "geometry/row_program.h"
#include "kappa/geometry.h"

#define WIDTH 4

static const double curvatures[] = {0, 1e-6, -1e-6, 1e-4, -1e-4, 0.1, -0.1, 1, -1, 3.7, -3.7};
#define CURVATURES (sizeof curvatures / sizeof curvatures[0])

typedef struct points {
  double kappa, x[WIDTH], y[WIDTH], u[WIDTH], v[WIDTH];
} points;

static points points_of(double kappa) {
  double radius = 1 / sqrt(fmax(fabs(kappa), 1));
  points s = {kappa, {0.3, -0.2, 0.5, 0.1}, {-0.4, 0.3, 0.2, -0.1}, {0.2, 0.1, -0.3, 0.25}, {1, -2, 0.5, 3}};
  for (int i = 0; i < WIDTH; i++) s.x[i] *= radius, s.y[i] *= radius, s.u[i] *= radius;
  return s;
}

static void negate(const double *x, double *out) {
  for (int i = 0; i < WIDTH; i++) out[i] = -x[i];
}

static double dot(const double *x, const double *y) {
  double sum = 0;
  for (int i = 0; i < WIDTH; i++) sum += x[i] * y[i];
  return sum;
}

static void check_equal(const double *found, const double *expected, const char *what, double kappa) {
  for (int i = 0; i < WIDTH; i++)
    if (!(fabs(found[i] - expected[i]) <= 2e-14 * sqrt(dot(expected, expected)) + 1e-300))
      fail_msg("%s at kappa %g: %.17g is not %.17g", what, kappa, found[i], expected[i]);
}

static void check_number(double found, double expected, const char *what, double kappa) {
  if (!(fabs(found - expected) <= 2e-14 * fabs(expected)))
    fail_msg("%s at kappa %g: %.17g is not %.17g", what, kappa, found, expected);
}

static void test_gyrogroup(void **state) {
  (void)state;
  for (size_t c = 0; c < CURVATURES; c++) {
    points s = points_of(curvatures[c]);
    double minus[WIDTH], sum[WIDTH], other[WIDTH], turned[WIDTH];
    negate(s.x, minus);
    kp_mobius_add(WIDTH, s.kappa, s.x, s.y, sum);
    kp_mobius_add(WIDTH, s.kappa, minus, sum, other);
    check_equal(other, s.y, "(-x) (+) (x (+) y) = y", s.kappa);
    kp_mobius_add(WIDTH, s.kappa, s.y, s.x, other);
    kp_gyrate(WIDTH, s.kappa, s.x, s.y, other, turned);
    check_equal(turned, sum, "gyr[x, y](y (+) x) = x (+) y", s.kappa);
    kp_gyrate(WIDTH, s.kappa, s.x, s.y, s.v, turned);
    check_number(dot(turned, turned), dot(s.v, s.v), "|gyr v| = |v|", s.kappa);
    kp_mobius_scale(WIDTH, s.kappa, 2, s.u, other);
    kp_mobius_add(WIDTH, s.kappa, s.u, s.u, sum);
    check_equal(other, sum, "2 (x) u = u (+) u", s.kappa);
  }
}

static void test_maps(void **state) {
  (void)state;
  for (size_t c = 0; c < CURVATURES; c++) {
    points s = points_of(curvatures[c]);
    double point[WIDTH], tangent[WIDTH], middle[WIDTH], moved[WIDTH], back[WIDTH];
    kp_exp_map(WIDTH, s.kappa, s.x, s.u, point);
    kp_log_map(WIDTH, s.kappa, s.x, point, tangent);
    check_equal(tangent, s.u, "log_x(exp_x(u)) = u", s.kappa);
    check_number(kp_point_distance(WIDTH, s.kappa, s.x, point),
                 kp_conformal_factor(WIDTH, s.kappa, s.x) * sqrt(dot(s.u, s.u)), "d(x, exp_x(u)) = |u|_x",
                 s.kappa);
    double distance = kp_point_distance(WIDTH, s.kappa, s.x, s.y);
    check_number(kp_point_distance_squared(WIDTH, s.kappa, s.x, s.y), distance * distance, "d^2", s.kappa);
    kp_geodesic_point(WIDTH, s.kappa, 0.25, s.x, s.y, middle);
    check_number(kp_point_distance(WIDTH, s.kappa, s.x, middle), distance / 4, "geodesic speed", s.kappa);
    kp_geodesic_point(WIDTH, s.kappa, 1, s.x, s.y, middle);
    check_equal(middle, s.y, "geodesic end", s.kappa);
    kp_parallel_transport(WIDTH, s.kappa, s.x, s.y, s.v, moved);
    check_number(kp_conformal_factor(WIDTH, s.kappa, s.y) * sqrt(dot(moved, moved)),
                 kp_conformal_factor(WIDTH, s.kappa, s.x) * sqrt(dot(s.v, s.v)), "transport is an isometry",
                 s.kappa);
    kp_parallel_transport(WIDTH, s.kappa, s.y, s.x, moved, back);
    check_equal(back, s.v, "transport there and back", s.kappa);
    kp_log_map(WIDTH, s.kappa, s.x, s.y, tangent);
    kp_parallel_transport(WIDTH, s.kappa, s.x, s.y, tangent, moved);
    kp_log_map(WIDTH, s.kappa, s.y, s.x, back);
    negate(back, back);
    check_equal(moved, back, "a geodesic carries its own direction", s.kappa);
  }
}

static void test_origin_and_helpers(void **state) {
  (void)state;
  for (size_t c = 0; c < CURVATURES; c++) {
    points s = points_of(curvatures[c]);
    double point[WIDTH], back[WIDTH], zero[WIDTH] = {0}, both[2 * WIDTH], weights[] = {0.5, 0.5},
                                      middle[WIDTH];
    kp_exp_origin(WIDTH, s.kappa, s.u, point);
    check_number(kp_point_distance(WIDTH, s.kappa, zero, point), 2 * sqrt(dot(s.u, s.u)), "d(0, exp_0 u)",
                 s.kappa);
    kp_log_origin(WIDTH, s.kappa, point, back);
    check_equal(back, s.u, "log_0(exp_0(u)) = u", s.kappa);
    kp_riemannian_gradient(WIDTH, s.kappa, s.x, s.v, back);
    double factor = kp_conformal_factor(WIDTH, s.kappa, s.x);
    check_number(back[0] * factor * factor, s.v[0], "Riemannian gradient", s.kappa);
    memcpy(both, s.x, sizeof s.x);
    memcpy(both + WIDTH, s.y, sizeof s.y);
    kp_midpoint_forward(WIDTH, 2, s.kappa, both, weights, middle);
    kp_geodesic_point(WIDTH, s.kappa, 0.5, s.x, s.y, back);
    check_equal(middle, back, "the gyromidpoint of two points halves their geodesic", s.kappa);
    if (s.kappa >= 0.1) {
      kp_antipode(WIDTH, s.kappa, s.x, back);
      /* cos^2(d/2) vanishes here; from inner products it is known to 1e-16, so d is to 1e-8. */
      double distance = kp_point_distance(WIDTH, s.kappa, s.x, back);
      assert_true(fabs(distance * sqrt(s.kappa) - 3.14159265358979323846) < 1e-7);
    }
    if (s.kappa < 0) {
      for (int i = 0; i < WIDTH; i++) point[i] = 1e6 * s.x[i];
      kp_project_point(WIDTH, s.kappa, 0.01, point, back);
      check_number(sqrt(-s.kappa * dot(back, back)), 0.99, "projection", s.kappa);
      kp_project_point(WIDTH, s.kappa, 0.01, s.x, back);
      check_equal(back, s.x, "projection of a point inside", s.kappa);
    }
  }
}

/* The updates and tangents in log coordinates are the chart's maps between exp_0 and log_0. */
static void test_log_coordinates(void **state) {
  (void)state;
  for (size_t c = 0; c < CURVATURES; c++) {
    points s = points_of(curvatures[c]);
    double x[WIDTH], r[WIDTH], minus[WIDTH], chart[WIDTH], expected[WIDTH], found[WIDTH], zero[WIDTH] = {0};
    const double *three[] = {s.x, s.y, s.u}, *updated[] = {s.x, s.u}, *pair[] = {s.y, s.x};
    kp_exp_origin(WIDTH, s.kappa, s.x, x);
    kp_exp_origin(WIDTH, s.kappa, s.y, r);
    kp_add_exp_map(WIDTH, s.kappa, x, r, s.u, chart);
    kp_log_origin(WIDTH, s.kappa, chart, expected);
    kp_row_program_apply(&kp_row_programs[KP_PROGRAM_UPDATE_E1], WIDTH, three, s.kappa, 0, found);
    check_equal(found, expected, "update_e1", s.kappa);
    kp_parallel_transport(WIDTH, s.kappa, r, x, s.u, chart);
    kp_exp_map(WIDTH, s.kappa, x, chart, chart);
    kp_log_origin(WIDTH, s.kappa, chart, expected);
    kp_row_program_apply(&kp_row_programs[KP_PROGRAM_UPDATE_E2], WIDTH, three, s.kappa, 0, found);
    check_equal(found, expected, "update_e2", s.kappa);
    kp_parallel_transport(WIDTH, s.kappa, zero, x, s.u, chart);
    kp_exp_map(WIDTH, s.kappa, x, chart, chart);
    kp_log_origin(WIDTH, s.kappa, chart, expected);
    kp_row_program_apply(&kp_row_programs[KP_PROGRAM_UPDATE_E3], WIDTH, updated, s.kappa, 0, found);
    check_equal(found, expected, "update_e3", s.kappa);
    kp_log_map(WIDTH, s.kappa, r, x, expected);
    kp_row_program_apply(&kp_row_programs[KP_PROGRAM_TANGENT_LOG], WIDTH, pair, s.kappa, 0, found);
    check_equal(found, expected, "tangent_log", s.kappa);
    negate(r, minus);
    kp_mobius_add(WIDTH, s.kappa, minus, x, chart);
    kp_log_origin(WIDTH, s.kappa, chart, expected);
    kp_row_program_apply(&kp_row_programs[KP_PROGRAM_TANGENT_TRANSPORTED], WIDTH, pair, s.kappa, 0, found);
    check_equal(found, expected, "tangent_transported", s.kappa);
  }
}

/* At kappa = 0 the coefficients are those of the Euclidean twin to the last bit. */
static void test_flat_coefficients(void **state) {
  (void)state;
  const double gram[] = {3, 0.4, -0.7, 2, 0.3, 5};
  double c[3];
  kp_row_programs[KP_PROGRAM_UPDATE_E1].forward(gram, 0, 0, c);
  assert_true(c[0] == 1 && c[1] == 1 && c[2] == 1);
  kp_row_programs[KP_PROGRAM_UPDATE_E2].forward(gram, 0, 0, c);
  assert_true(c[0] == 1 && c[1] == 0 && c[2] == 1);
  kp_row_programs[KP_PROGRAM_UPDATE_E3].forward(gram, 0, 0, c);
  assert_true(c[0] == 1 && c[1] == 1);
  kp_row_programs[KP_PROGRAM_TANGENT_LOG].forward(gram, 0, 0, c);
  assert_true(c[0] == 0 && c[1] == 1);
  kp_row_programs[KP_PROGRAM_TANGENT_TRANSPORTED].forward(gram, 0, 0, c);
  assert_true(c[0] == 0 && c[1] == 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_gyrogroup),          cmocka_unit_test(test_maps),
      cmocka_unit_test(test_origin_and_helpers), cmocka_unit_test(test_log_coordinates),
      cmocka_unit_test(test_flat_coefficients),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
