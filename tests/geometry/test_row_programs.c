/* Every row program of the table: gradients against finite differences over curvatures and widths, continuity
 * through kappa = 0, and finite results for hostile values. */
#include "support/check.h"

#include <math.h>
#include <string.h>

#include "geometry/row_program.h"

#define WIDEST 64

static const double curvatures[] = {0, 1e-6, -1e-6, 1e-4, -1e-4, 0.1, -0.1, 1, -1, 3.7, -3.7};
static const size_t widths[] = {1, 2, 5, WIDEST};
#define CURVATURES (sizeof curvatures / sizeof curvatures[0])

static uint64_t random_state = 7;

/* Uniform in (-1, 1). */
static double random_number(void) {
  random_state = random_state * 6364136223846793005u + 1442695040888963407u;
  return (double)(int64_t)random_state / 9223372036854775808.0;
}

static double radius_of(double kappa) {
  return 1 / sqrt(fmax(fabs(kappa), 1));
}

static double parameter_of(const kp_row_program *program) {
  return program->id == KP_PROGRAM_GEODESIC          ? 0.37
         : program->id == KP_PROGRAM_SCALAR_MULTIPLY ? -1.6
         : program->id == KP_PROGRAM_PROJECT         ? 0.7
                                                     : 0;
}

typedef struct row {
  const kp_row_program *program;
  size_t width;
  double kappa, p;
  double inputs[KP_ROW_PROGRAM_MAX_INPUTS][WIDEST];
  double cotangent[WIDEST];
} row;

static row random_row(const kp_row_program *program, size_t width, double kappa) {
  row r = {.program = program, .width = width, .kappa = kappa, .p = parameter_of(program)};
  for (int i = 0; i < program->inputs; i++) {
    double square = 0, length = radius_of(kappa) * (0.35 + 0.1 * i);
    for (size_t j = 0; j < width; j++) r.inputs[i][j] = random_number();
    for (size_t j = 0; j < width; j++) square += r.inputs[i][j] * r.inputs[i][j];
    for (size_t j = 0; j < width; j++) r.inputs[i][j] *= length / sqrt(square);
  }
  for (size_t j = 0; j < width; j++) r.cotangent[j] = random_number();
  return r;
}

static double loss(const row *r) {
  const double *inputs[] = {r->inputs[0], r->inputs[1], r->inputs[2]};
  double output[WIDEST], sum = 0;
  kp_row_program_apply(r->program, r->width, inputs, r->kappa, r->p, output);
  for (size_t j = 0; j < (r->program->scalar ? 1 : r->width); j++) sum += output[j] * r->cotangent[j];
  return sum;
}

/* Fourth-order central difference of the loss with respect to *value, which points into *r. */
static double slope_of(const row *r, double *value, double step) {
  double kept = *value, sides[4];
  const double places[4] = {-2, -1, 1, 2};
  for (int i = 0; i < 4; i++) {
    *value = kept + places[i] * step;
    sides[i] = loss(r);
  }
  *value = kept;
  return (sides[0] - 8 * sides[1] + 8 * sides[2] - sides[3]) / (12 * step);
}

typedef struct bars {
  double inputs[KP_ROW_PROGRAM_MAX_INPUTS][WIDEST];
  double kappa, p;
} bars;

static bars backward(const row *r) {
  const double *inputs[] = {r->inputs[0], r->inputs[1], r->inputs[2]};
  bars result;
  memset(&result, 0, sizeof result);
  double *pointers[] = {result.inputs[0], result.inputs[1], result.inputs[2]};
  kp_row_program_apply_backward(r->program, r->width, inputs, r->kappa, r->p, r->cotangent, pointers,
                                &result.kappa, &result.p);
  return result;
}

static void check_close(const row *r, const char *what, double found, double expected, double scale) {
  if (!(fabs(found - expected) <= 1e-8 * fmax(1, scale)))
    fail_msg("%s, width %zu, kappa %g: gradient of %s is %.12g, finite difference %.12g", r->program->name,
             r->width, r->kappa, what, found, expected);
}

/* The published code's clamp of c ends at 1e-4 and at 1, where its one-sided gradient is part of it. */
static int has_two_sided_curvature(const row *r) {
  int upstream = strncmp(r->program->name, "upstream", 8) == 0;
  return !(upstream && (r->kappa == -1e-4 || r->kappa == -1));
}

static void check_gradients(row *r) {
  bars found = backward(r);
  double step = 1e-3 * radius_of(r->kappa);
  for (int i = 0; i < r->program->inputs; i++)
    for (size_t j = 0; j < r->width; j++)
      check_close(r, "an input", found.inputs[i][j], slope_of(r, &r->inputs[i][j], step),
                  fabs(found.inputs[i][j]));
  check_close(r, "p", found.p, slope_of(r, &r->p, 1e-3), fabs(found.p));
  int upstream_floor = strncmp(r->program->name, "upstream", 8) == 0 && r->kappa > -0.05;
  double kappa_step = upstream_floor ? 1e-6 : 1e-3 * fmax(1, fabs(r->kappa));
  if (has_two_sided_curvature(r))
    check_close(r, "kappa", found.kappa, slope_of(r, &r->kappa, kappa_step), fabs(found.kappa));
}

static void test_gradients(void **state) {
  (void)state;
  for (int program = 0; program < KP_PROGRAM_COUNT; program++) {
    assert_int_equal(kp_row_programs[program].id, program);
    for (size_t c = 0; c < CURVATURES; c++) {
      for (size_t w = 0; w < 4; w++) {
        row r = random_row(&kp_row_programs[program], widths[w], curvatures[c]);
        check_gradients(&r);
      }
    }
  }
}

/* Value and all derivatives pass through kappa = 0 without a jump. */
static void test_flat_limit(void **state) {
  (void)state;
  for (int program = 0; program < KP_PROGRAM_COUNT; program++) {
    row r = random_row(&kp_row_programs[program], 5, 0);
    double flat_loss = loss(&r);
    bars flat = backward(&r);
    for (int sign = -1; sign <= 1; sign += 2) {
      for (double size = 1e-8; size > 1e-320; size *= 1e-6) {
        r.kappa = sign * size;
        bars bent = backward(&r);
        assert_true(fabs(loss(&r) - flat_loss) < 1e-7);
        assert_true(fabs(bent.kappa - flat.kappa) < 1e-7);
        for (int j = 0; j < 5; j++) assert_true(fabs(bent.inputs[0][j] - flat.inputs[0][j]) < 1e-7);
      }
    }
  }
}

static void fill_hostile(double *vector, size_t width, int kind, double kappa, const double *first) {
  double boundary = kappa < 0 ? 1 / sqrt(-kappa) : 1e3;
  const double lengths[] = {0, 1e-300, 1e-30, 0.5, boundary, boundary * (1 - 1e-16), 2 * boundary, 40, 1e30};
  int count = (int)(sizeof lengths / sizeof lengths[0]);
  for (size_t j = 0; j < width; j++) {
    if (kind == count)
      vector[j] = first[j];
    else if (kind == count + 1)
      vector[j] = -first[j];
    else
      vector[j] = lengths[kind] / sqrt((double)width) * (j % 2 ? 1 : -1);
  }
}
#define HOSTILE_KINDS 11

static void check_hostile(const kp_row_program *program, double kappa, int a, int b, int c) {
  row r = {.program = program, .width = 4, .kappa = kappa, .p = parameter_of(program)};
  fill_hostile(r.inputs[0], 4, a, kappa, r.inputs[0]);
  fill_hostile(r.inputs[1], 4, b, kappa, r.inputs[0]);
  fill_hostile(r.inputs[2], 4, c, kappa, r.inputs[0]);
  for (int j = 0; j < 4; j++) r.cotangent[j] = j + 1;
  double value = loss(&r);
  bars found = backward(&r);
  int finite = isfinite(value) && isfinite(found.kappa) && isfinite(found.p);
  for (int i = 0; i < program->inputs; i++)
    for (int j = 0; j < 4; j++) finite = finite && isfinite(found.inputs[i][j]);
  if (!finite)
    fail_msg("%s, kappa %g, hostile kinds %d %d %d: value %g, kappa's gradient %g, inputs' %g %g %g",
             program->name, kappa, a, b, c, value, found.kappa, found.inputs[0][0], found.inputs[1][0],
             found.inputs[2][0]);
}

static void test_hostile_values(void **state) {
  (void)state;
  for (int program = 0; program < KP_PROGRAM_COUNT; program++) {
    int inputs = kp_row_programs[program].inputs;
    for (size_t k = 0; k < CURVATURES; k++)
      for (int a = 0; a < HOSTILE_KINDS - 2; a++)
        for (int b = 0; b < (inputs > 1 ? HOSTILE_KINDS : 1); b++)
          for (int c = 0; c < (inputs > 2 ? HOSTILE_KINDS : 1); c++)
            check_hostile(&kp_row_programs[program], curvatures[k], a, b, c);
  }
}

static void test_find(void **state) {
  (void)state;
  assert_ptr_equal(kp_row_program_find("update_e3"), &kp_row_programs[KP_PROGRAM_UPDATE_E3]);
  assert_null(kp_row_program_find("subtract"));
}

/* A clamp that acts is reported. */
static void test_events(void **state) {
  (void)state;
  const double inside[] = {0.5}, boundary[] = {1}, far[] = {1e4}, deep[] = {400};
  double coefficients[3];
  assert_int_equal(kp_row_programs[KP_PROGRAM_LOG0].forward(inside, -1, 0, coefficients), 0);
  assert_int_equal(kp_row_programs[KP_PROGRAM_LOG0].forward(boundary, -1, 0, coefficients), 1);
  assert_int_equal(kp_row_programs[KP_PROGRAM_EXP0].forward(far, 1, 0, coefficients), 1);
  assert_int_equal(kp_row_programs[KP_PROGRAM_EXP0].forward(deep, -1, 0, coefficients), 1);
  const double stream[] = {400, 1, 1}, lost[] = {4e4, 1, 1};
  assert_int_equal(kp_row_programs[KP_PROGRAM_UPDATE_E3].forward(stream, -1, 0, coefficients), 0);
  assert_int_equal(kp_row_programs[KP_PROGRAM_UPDATE_E3].forward(lost, -1, 0, coefficients), 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_gradients),      cmocka_unit_test(test_flat_limit),
      cmocka_unit_test(test_hostile_values), cmocka_unit_test(test_find),
      cmocka_unit_test(test_events),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
