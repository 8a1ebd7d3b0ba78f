/* Logits of Lorentz multinomial logistic regression against their meaning: |z| times the signed distance to a
 * hyperplane, found by searching it for the nearest point. */
#include <math.h>

#include "core/random.h"
#include "geometry/hyperplane.h"
#include "support/check.h"

enum { DIMENSION = 2 };

/* A point of the hyperboloid of radius R: time first. */
typedef struct point {
  double t, s[DIMENSION];
} point;

static point lift(double radius, double x, double y) {
  return (point){sqrt(radius * radius + x * x + y * y), {x, y}};
}

static double product(point a, point b) {
  return -a.t * b.t + a.s[0] * b.s[0] + a.s[1] * b.s[1];
}

static double distance(double radius, point a, point b) {
  return radius * acosh(fmax(1, -product(a, b) / (radius * radius)));
}

/* The point of the hyperplane at parameter `along`: the point p at distance `offset` from the origin towards
 * the normal, gone perpendicularly to it. */
static point on_hyperplane(double radius, const double direction[DIMENSION], double offset, double along) {
  const double near = sinh(offset / radius) * radius * cosh(along), side = radius * sinh(along);
  return lift(radius, near * direction[0] - side * direction[1], near * direction[1] + side * direction[0]);
}

/* The least distance of `x` to the hyperplane: golden sections of a convex function. */
static double least_distance(double radius, const double direction[DIMENSION], double offset, point x) {
  const double golden = 0.6180339887498949;
  double low = -12, high = 12;
  for (int i = 0; i < 200; i++) {
    const double a = high - golden * (high - low), b = low + golden * (high - low);
    if (distance(radius, x, on_hyperplane(radius, direction, offset, a)) <
        distance(radius, x, on_hyperplane(radius, direction, offset, b)))
      high = b;
    else
      low = a;
  }
  return distance(radius, x, on_hyperplane(radius, direction, offset, (low + high) / 2));
}

static double logit(double radius, const double z[DIMENSION], double offset, point x) {
  const kp_hyperplane h = kp_hyperplane_of(hypot(z[0], z[1]), offset, radius);
  return h.multiple * asinh(h.by_product * (z[0] * x.s[0] + z[1] * x.s[1]) + h.by_time * x.t);
}

static void test_logits_are_distances(void **state) {
  (void)state;
  static const double radii[] = {0.3, 1, 2.5};
  for (int r = 0; r < 3; r++)
    for (uint64_t seed = 0; seed < 60; seed++) {
      const double radius = radii[r];
      double number[5];
      for (uint64_t i = 0; i < 5; i++) number[i] = kp_random_normal(seed, 0, (uint32_t)r, i);
      const double z[] = {number[0], number[1]}, norm = hypot(z[0], z[1]), offset = radius * number[2];
      const double direction[] = {z[0] / norm, z[1] / norm};
      const point x = lift(radius, radius * number[3], radius * number[4]);
      const double expected = norm * least_distance(radius, direction, offset, x);
      const double found = logit(radius, z, offset, x);
      if (fabs(fabs(found) - expected) > 2e-6 * radius * norm) fail_msg("%g, not %g", found, expected);
      /* Beyond the hyperplane, seen from the origin along z, logits are positive. */
      const point beyond = lift(radius, radius * sinh(number[2] + 0.1) * direction[0],
                                radius * sinh(number[2] + 0.1) * direction[1]);
      const double expected_beyond = 0.1 * radius * norm;
      assert_true(fabs(logit(radius, z, offset, beyond) - expected_beyond) < 1e-9 * (1 + norm));
    }
}

/* With R → ∞ the logit of a point at fixed distance is <z, x> - a |z|. */
static void test_flat_limit(void **state) {
  (void)state;
  const double z[] = {0.8, -0.5}, offset = 0.7, radius = 1e5;
  const point x = lift(radius, 0.4, 1.2);
  const double expected = z[0] * x.s[0] + z[1] * x.s[1] - offset * hypot(z[0], z[1]);
  assert_true(fabs(logit(radius, z, offset, x) - expected) < 1e-5);
}

/* Far points and offsets give finite logits. */
static void test_far_out(void **state) {
  (void)state;
  const double z[] = {1e-30, 0}, large[] = {1e30, 1e30};
  assert_true(isfinite(logit(1, z, 5, lift(1, 1e30, 1))));
  assert_true(isfinite(logit(1, large, 1e30, lift(1, 1e30, -1e30))));
  assert_true(isfinite(logit(1, (double[]){0, 0}, 0, lift(1, 1, 1))));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_logits_are_distances),
      cmocka_unit_test(test_flat_limit),
      cmocka_unit_test(test_far_out),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
