/* Properties of the step along great circles, through the operator in double: the classical formula, unit
 * length, and what happens where the arc vanishes or is not unique. */
#include <math.h>

#include "geometry/rotary.h"
#include "geometry/sphere.h"
#include "ops/ops.h"
#include "support/check.h"
#include "support/kernel.h"

enum { C = 5 };

static void step(kp_sphere_step kind, const double *h, const double *u, const double *rate, double *out) {
  kp_error error = {0};
  kp_test_kernel kernel;
  const kp_sphere_arguments arguments = {kind, 1};
  kp_test_kernel_begin(&kernel, KP_OP_SPHERE_RESIDUAL, &arguments);
  kp_test_input(&kernel, h, KP_TYPE_REAL, 2, 1, C);
  kp_test_input(&kernel, u, KP_TYPE_REAL, 2, 1, C);
  kp_test_input(&kernel, rate, KP_TYPE_REAL, 1, C);
  kp_test_output(&kernel, out, KP_TYPE_REAL, 2, 1, C);
  check_ok(kp_test_run(&kernel, kp_backend_ref(), 1, &error), &error);
}

static double length(const double *x) {
  double square = 0;
  for (int i = 0; i < C; i++) square += x[i] * x[i];
  return sqrt(square);
}

/* Two unit vectors at the angle t, and a point between them. */
static const double first[C] = {0.6, 0, -0.8, 0, 0}, across[C] = {0, 0.28, 0, 0.96, 0};

static void turned(double t, double *out) {
  for (int i = 0; i < C; i++) out[i] = cos(t) * first[i] + sin(t) * across[i];
}

static void test_slerp_is_the_arc(void **state) {
  (void)state;
  static const double angles[] = {1e-9, 1e-4, 0.09, 0.1, 0.5, 1.04, 1.05, 1.57, 1.58, 3, 3.14, 3.1415926};
  for (size_t a = 0; a < sizeof angles / sizeof *angles; a++)
    for (int tenths = -5; tenths <= 15; tenths += 5) {
      const double share = tenths / 10.0, t = angles[a];
      double u[C], rate[C], got[C], want[C];
      turned(t, u);
      turned(fabs(share) * t, want);
      for (int i = 0; i < C; i++) {
        u[i] *= 3; /* its length does not matter */
        rate[i] = share;
      }
      step(KP_SPHERE_SLERP, first, u, rate, got);
      for (int i = 0; i < C; i++)
        if (!(fabs(got[i] - want[i]) < 1e-12 + 1e-15 / fabs(sin(t))))
          fail_msg("angle %g, share %g: %.17g, not %.17g", t, share, got[i], want[i]);
    }
}

/* Lerp and slerp agree up to the third power of the angle. */
static void test_lerp_is_near(void **state) {
  (void)state;
  for (double t = 0.2; t > 1e-3; t /= 2) {
    const double rate[C] = {0.3, 0.3, 0.3, 0.3, 0.3};
    double u[C], lerp[C], slerp[C];
    turned(t, u);
    step(KP_SPHERE_LERP, first, u, rate, lerp);
    step(KP_SPHERE_SLERP, first, u, rate, slerp);
    for (int i = 0; i < C; i++) assert_true(fabs(lerp[i] - slerp[i]) <= 0.1 * t * t * t);
    assert_true(fabs(lerp[3] - slerp[3]) > 1e-3 * t * t * t);
  }
}

static void test_unit_length(void **state) {
  (void)state;
  const double rate[C] = {0.1, -2, 0.7, 0, 1.3};
  for (int kind = 0; kind < 2; kind++)
    for (double t = 0; t < 3.2; t += 0.1) {
      double u[C], out[C];
      turned(t, u);
      step((kp_sphere_step)kind, first, u, rate, out);
      assert_true(fabs(length(out) - 1) < 1e-14);
    }
}

static void test_degenerate(void **state) {
  (void)state;
  const double rate[C] = {0.5, 0.5, 0.5, 0.5, 0.5}, zero[C] = {0};
  double antipode[C], out[C];
  for (int i = 0; i < C; i++) antipode[i] = -2 * first[i];
  for (int kind = 0; kind < 2; kind++) {
    step((kp_sphere_step)kind, zero, zero, rate, out);
    assert_true(length(out) == 0);
    step((kp_sphere_step)kind, first, zero, rate, out);
    assert_true(fabs(length(out) - 1) < 1e-14);
    step((kp_sphere_step)kind, zero, first, rate, out);
    assert_true(isfinite(length(out)));
    step((kp_sphere_step)kind, first, first, rate, out);
    for (int i = 0; i < C; i++) assert_true(fabs(out[i] - first[i]) < 1e-15);
    step((kp_sphere_step)kind, first, antipode, rate, out); /* no arc is the shortest */
    assert_true(isfinite(length(out)));
  }
}

/* The derivatives of t / sin t along the sphere, against differences, and no step where the formulas meet. */
static void test_log_ratio(void **state) {
  (void)state;
  for (double t = 0.05; t < 3.1; t += 0.05) {
    const double h = 1e-5;
    const kp_sphere_log at = kp_sphere_log_of(sin(t) * sin(t), cos(t));
    const double ahead = kp_sphere_log_of(sin(t + h) * sin(t + h), cos(t + h)).ratio;
    const double behind = kp_sphere_log_of(sin(t - h) * sin(t - h), cos(t - h)).ratio;
    const double slope = at.by_square * 2 * sin(t) * cos(t) - at.by_cosine * sin(t);
    assert_true(fabs(at.ratio * sin(t) - t) < 1e-14);
    assert_true(fabs(slope - (ahead - behind) / (2 * h)) < 1e-7 * (1 + fabs(slope)));
  }
}

/* YaRN keeps fast pairs, slows slow ones by the factor, and never speeds one up. */
static void test_yarn(void **state) {
  (void)state;
  const kp_yarn yarn = {.factor = 8, .original = 512, .beta_fast = 32, .beta_slow = 1};
  const int size = 64;
  double before = 2;
  for (int pair = 0; pair < size / 2; pair++) {
    const double plain = kp_rotary_frequency(10000, size, pair, (kp_yarn){0});
    const double frequency = kp_rotary_frequency(10000, size, pair, yarn);
    const double turns = plain * yarn.original / (2 * 3.14159265358979323846);
    assert_true(frequency <= plain && frequency >= plain / yarn.factor * (1 - 1e-12));
    assert_true(frequency < before);
    if (turns > 2 * yarn.beta_fast) assert_true(frequency == plain);
    if (turns < yarn.beta_slow / 2) assert_true(fabs(frequency - plain / yarn.factor) < 1e-15);
    before = frequency;
  }
  assert_true(kp_rotary_frequency(10000, size, 31, (kp_yarn){.factor = 1, .original = 512}) ==
              pow(10000, -62.0 / size));
}

/* Llama 3.1's ramp: between the two numbers of turns both frequencies are mixed by their share. */
static void test_ramp_by_turns(void **state) {
  (void)state;
  const double two_pi = 2 * 3.14159265358979323846;
  const kp_yarn yarn = {.factor = 8, .original = 8192, .beta_fast = 4, .beta_slow = 1, .by_turns = 1};
  for (int pair = 0; pair < 32; pair++) {
    const double plain = kp_rotary_frequency(500000, 64, pair, (kp_yarn){0});
    const double frequency = kp_rotary_frequency(500000, 64, pair, yarn);
    const double turns = plain * yarn.original / two_pi, smooth = (turns - 1) / 3;
    const double expected = turns > 4   ? plain
                            : turns < 1 ? plain / 8
                                        : (1 - smooth) * plain / 8 + smooth * plain;
    assert_true(fabs(frequency - expected) <= 1e-15 * plain);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_slerp_is_the_arc), cmocka_unit_test(test_lerp_is_near),
      cmocka_unit_test(test_unit_length),      cmocka_unit_test(test_degenerate),
      cmocka_unit_test(test_log_ratio),        cmocka_unit_test(test_yarn),
      cmocka_unit_test(test_ramp_by_turns),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
