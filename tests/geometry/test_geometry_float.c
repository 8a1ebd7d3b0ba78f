/* The same programs compiled in float, as device code has them, with plain float inner products: reference
 * numbers, the log-coordinate programs, and hostile values. */
#define KP_GEOMETRY_FLOAT 1
#include "support/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "geometry/programs.h"
#include "support/golden.h"

typedef struct float_program {
  const char *name;
  int inputs, difference, scalar;
  int (*forward)(const float *gram, float kappa, float p, float *coefficients);
  void (*backward)(const float *gram, float kappa, float p, const float *coefficients_bar, float *gram_bar,
                   float *kappa_bar, float *p_bar);
} float_program;

static const float_program programs[] = {
#define KP_ROW_PROGRAM(id, name, inputs, difference, scalar, forward, backward, reference)                   \
  {name, inputs, difference, scalar, forward, backward},
#include "geometry/programs.def"
};
#define PROGRAMS (sizeof programs / sizeof programs[0])

#define WIDEST 5

static const float_program *find(const char *name) {
  for (size_t i = 0; i < PROGRAMS; i++)
    if (strcmp(programs[i].name, name) == 0) return &programs[i];
  fail_msg("no program %s", name);
  return NULL;
}

/* One row of `width` floats per input, and the results of forward and backward for it. */
typedef struct float_row {
  const float_program *program;
  int width;
  float kappa, p;
  float inputs[3][WIDEST], cotangent[WIDEST];
  float output[WIDEST], bars[3][WIDEST], kappa_bar;
  int event;
} float_row;

static void run_row(float_row *row) {
  const float_program *program = row->program;
  float basis[3][WIDEST], gram[6], gram_bar[6], coefficients[3] = {0}, coefficients_bar[3] = {0}, p_bar;
  int m = program->inputs, entry = 0;
  memcpy(basis, row->inputs, sizeof basis);
  if (program->difference)
    for (int i = 0; i < row->width; i++) basis[m - 1][i] -= row->inputs[0][i];
  for (int a = 0; a < m; a++) {
    for (int b = a; b < m; b++, entry++) {
      gram[entry] = 0;
      for (int i = 0; i < row->width; i++) gram[entry] += basis[a][i] * basis[b][i];
    }
  }
  row->event = program->forward(gram, row->kappa, row->p, coefficients);
  if (program->scalar) {
    row->output[0] = coefficients[0];
    coefficients_bar[0] = row->cotangent[0];
    coefficients[0] = 0;
  } else {
    for (int i = 0; i < row->width; i++) {
      row->output[i] = 0;
      for (int a = 0; a < m; a++) row->output[i] += coefficients[a] * basis[a][i];
      for (int a = 0; a < m; a++) coefficients_bar[a] += row->cotangent[i] * basis[a][i];
    }
  }
  program->backward(gram, row->kappa, row->p, coefficients_bar, gram_bar, &row->kappa_bar, &p_bar);
  for (int i = 0; i < row->width; i++) {
    for (int a = 0; a < m; a++) row->bars[a][i] = coefficients[a] * row->cotangent[i];
    entry = 0;
    for (int a = 0; a < m; a++) {
      for (int b = a; b < m; b++, entry++) {
        row->bars[a][i] += gram_bar[entry] * basis[b][i];
        row->bars[b][i] += gram_bar[entry] * basis[a][i];
      }
    }
    if (program->difference) row->bars[0][i] -= row->bars[m - 1][i];
  }
}

typedef struct golden_case {
  const char *golden_name, *program, *inputs[3];
  float p;
} golden_case;

static const golden_case cases[] = {
    {"add", "add", {"x", "y"}, 0},
    {"exp", "exp", {"x", "u"}, 0},
    {"log", "log", {"x", "y"}, 0},
    {"exp0", "exp0", {"u"}, 0},
    {"log0", "log0", {"x"}, 0},
    {"dist", "distance", {"x", "y"}, 0},
    {"geodesic03", "geodesic", {"x", "y"}, 0.3f},
    {"transport", "transport", {"x", "y", "v"}, 0},
    {"gyr", "gyration", {"x", "y", "v"}, 0},
    {"add_exp", "add_exp", {"y", "x", "u"}, 0},
};

static void keep_worst(double *worst, const float *found, const double *expected, size_t count,
                       const double *whole, size_t whole_count) {
  double scale = 0;
  for (size_t i = 0; i < whole_count; i++) scale = fmax(scale, fabs(whole[i]));
  for (size_t i = 0; i < count; i++) {
    double error = fabs((double)found[i] - expected[i]) / (scale > 0 ? scale : 1);
    if (!(error <= *worst)) *worst = error;
  }
}

static void compare_case(const golden *file, size_t k, const golden_case *entry, double worst[3]) {
  const golden_array *out = golden_find(file, "k%zu/%s/out", k, entry->golden_name);
  const golden_array *by_kappa = golden_find(file, "k%zu/%s/g_k", k, entry->golden_name);
  const golden_array *cotangent = golden_find(file, "k%zu/gout", k);
  float_row row = {.program = find(entry->program), .width = WIDEST, .p = entry->p};
  row.kappa = (float)golden_find(file, "k")->data[k];
  for (size_t at = 0; at < cotangent->shape[0]; at++) {
    for (int j = 0; j < WIDEST; j++) {
      row.cotangent[j] = (float)cotangent->data[at * WIDEST + (size_t)j];
      for (int i = 0; i < row.program->inputs; i++)
        row.inputs[i][j] =
            (float)golden_find(file, "k%zu/%s", k, entry->inputs[i])->data[at * WIDEST + (size_t)j];
    }
    run_row(&row);
    size_t width = row.program->scalar ? 1 : WIDEST;
    keep_worst(&worst[0], row.output, out->data + at * width, width, out->data, out->count);
    keep_worst(&worst[2], &row.kappa_bar, by_kappa->data + at, 1, by_kappa->data, by_kappa->count);
    for (int i = 0; i < row.program->inputs; i++) {
      const golden_array *bar = golden_find(file, "k%zu/%s/g_%s", k, entry->golden_name, entry->inputs[i]);
      keep_worst(&worst[1], row.bars[i], bar->data + at * WIDEST, WIDEST, bar->data, bar->count);
    }
  }
}

static void compare_file(const char *path, double out, double gradient, double kappa) {
  golden *file = golden_open(path);
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    double worst[3] = {0};
    for (size_t k = 0; k < golden_find(file, "k")->count; k++) compare_case(file, k, &cases[i], worst);
    print_message("float %s %s: out %.1e gradient %.1e kappa %.1e\n", path, cases[i].golden_name, worst[0],
                  worst[1], worst[2]);
    assert_true(worst[0] <= out && worst[1] <= gradient && worst[2] <= kappa);
  }
  golden_close(file);
}

static void test_interior(void **state) {
  (void)state;
  compare_file("stereographic/ops_interior", 2e-6, 1e-5, 2e-5);
}

static void test_boundary(void **state) {
  (void)state;
  compare_file("stereographic/ops_boundary", 2e-3, 2e-2, 2e-2);
}

typedef struct residual_case {
  const char *program;
  double kappa, inputs[3][3], cotangent[3], out[3], gradients[3][3], by_kappa;
} residual_case;

#include "geometry/residual_reference.h"

/* Up to 5 radii out; the reference has the inputs before their rounding to float. */
static void test_residual_programs(void **state) {
  (void)state;
  double worst[2] = {0};
  for (size_t c = 0; c < sizeof residual_cases / sizeof residual_cases[0]; c++) {
    const residual_case *entry = &residual_cases[c];
    float_row row = {.program = find(entry->program), .width = 3, .kappa = (float)entry->kappa};
    double square = 0, gap = 0;
    for (int j = 0; j < 3; j++) {
      row.cotangent[j] = (float)entry->cotangent[j];
      for (int i = 0; i < 3; i++) row.inputs[i][j] = (float)entry->inputs[i][j];
      square += entry->inputs[0][j] * entry->inputs[0][j];
      gap = fmax(gap, fabs(entry->inputs[0][j] - entry->inputs[1][j]));
    }
    int near = row.program->difference && gap < 1e-3 * sqrt(square);
    if (near || square * fabs(entry->kappa) > 26) continue;
    run_row(&row);
    keep_worst(&worst[0], row.output, entry->out, 3, entry->out, 3);
    keep_worst(&worst[1], row.bars[0], entry->gradients[0], 3, entry->gradients[0], 9);
  }
  print_message("float residual programs: out %.1e gradient %.1e\n", worst[0], worst[1]);
  assert_true(worst[0] <= 2e-6 && worst[1] <= 1e-5);
}

/* Zeros, tiny and large values, coincident and opposite vectors, the boundary and beyond it: finite, or (for
 * points far outside of the ball, whose squares leave the range of float) a reported event. */
static void check_hostile(const float_program *program, float kappa, int a, int b, int c) {
  float boundary = kappa < 0 ? 1 / sqrtf(-kappa) : 1e3f;
  const float lengths[] = {0, 1e-30f, 1e-10f, 0.5f, boundary, 2 * boundary, 40, 1e6f, 1, -1};
  const int kinds[3] = {a, b, c};
  float_row row = {.program = program, .width = 3, .kappa = kappa, .p = 0.3f, .cotangent = {1, -2, 3}};
  for (int i = 0; i < program->inputs; i++) {
    for (int j = 0; j < 3; j++) {
      float length = lengths[kinds[i]];
      row.inputs[i][j] =
          kinds[i] >= 8 && i > 0 ? length * row.inputs[0][j] : length * (j == 1 ? -0.6f : 0.56569f);
    }
  }
  run_row(&row);
  int finite = isfinite(row.kappa_bar);
  for (int j = 0; j < (program->scalar ? 1 : 3); j++) finite = finite && isfinite(row.output[j]);
  for (int i = 0; i < program->inputs; i++)
    for (int j = 0; j < 3; j++) finite = finite && isfinite(row.bars[i][j]);
  if (!finite && !row.event)
    fail_msg("%s, kappa %g, hostile kinds %d %d %d", program->name, (double)kappa, a, b, c);
}

static void test_hostile_values(void **state) {
  (void)state;
  const float curvatures[] = {0, 1e-6f, -1e-6f, 0.1f, -0.1f, 1, -1, 3.7f, -3.7f};
  for (size_t program = 0; program < PROGRAMS; program++) {
    int m = programs[program].inputs;
    for (size_t k = 0; k < sizeof curvatures / sizeof curvatures[0]; k++)
      for (int a = 0; a < 8; a++)
        for (int b = 0; b < (m > 1 ? 10 : 1); b++)
          for (int c = 0; c < (m > 2 ? 10 : 1); c++)
            check_hostile(&programs[program], curvatures[k], a, b, c);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_interior),
      cmocka_unit_test(test_boundary),
      cmocka_unit_test(test_residual_programs),
      cmocka_unit_test(test_hostile_values),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
