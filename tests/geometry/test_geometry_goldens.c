/* Every chart program against 60-digit reference values: outputs and all gradients, in double. */
#include "support/check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "geometry/row_program.h"
#include "support/golden.h"

#define WIDTH 5

typedef struct golden_case {
  const char *golden_name;
  const char *program;
  const char *inputs[KP_ROW_PROGRAM_MAX_INPUTS];
  double p;
} golden_case;

static const golden_case cases[] = {
    {"add", "add", {"x", "y"}, 0},
    {"exp", "exp", {"x", "u"}, 0},
    {"log", "log", {"x", "y"}, 0},
    {"exp0", "exp0", {"u"}, 0},
    {"log0", "log0", {"x"}, 0},
    {"dist", "distance", {"x", "y"}, 0},
    {"geodesic03", "geodesic", {"x", "y"}, 0.3},
    {"transport", "transport", {"x", "y", "v"}, 0},
    {"gyr", "gyration", {"x", "y", "v"}, 0},
    {"add_exp", "add_exp", {"y", "x", "u"}, 0},
};

typedef struct errors {
  double out, gradient, kappa;
} errors;

static double largest(const golden_array *array) {
  double result = 0;
  for (size_t i = 0; i < array->count; i++) result = fmax(result, fabs(array->data[i]));
  return result;
}

static void keep_worst(double *worst, const double *found, const double *expected, size_t count,
                       double scale) {
  for (size_t i = 0; i < count; i++) {
    double error = fabs(found[i] - expected[i]) / (scale > 0 ? scale : 1);
    if (!(error <= *worst)) *worst = error;
  }
}

static void compare_case(const golden *file, size_t k, const golden_case *entry, errors *worst) {
  const kp_row_program *program = kp_row_program_find(entry->program);
  assert_non_null(program);
  const golden_array *out = golden_find(file, "k%zu/%s/out", k, entry->golden_name);
  const golden_array *gradient_kappa = golden_find(file, "k%zu/%s/g_k", k, entry->golden_name);
  const golden_array *cotangent = golden_find(file, "k%zu/gout", k);
  double kappa = golden_find(file, "k")->data[k];
  for (size_t row = 0; row < cotangent->shape[0]; row++) {
    const double *inputs[KP_ROW_PROGRAM_MAX_INPUTS] = {0};
    double bars[KP_ROW_PROGRAM_MAX_INPUTS][WIDTH] = {{0}};
    double *bar_pointers[KP_ROW_PROGRAM_MAX_INPUTS] = {bars[0], bars[1], bars[2]};
    double output[WIDTH], kappa_bar = 0;
    for (int i = 0; i < program->inputs; i++)
      inputs[i] = golden_find(file, "k%zu/%s", k, entry->inputs[i])->data + row * WIDTH;
    size_t width = program->scalar ? 1 : WIDTH;
    kp_row_program_apply(program, WIDTH, inputs, kappa, entry->p, output);
    keep_worst(&worst->out, output, out->data + row * width, width, largest(out));
    kp_row_program_apply_backward(program, WIDTH, inputs, kappa, entry->p, cotangent->data + row * WIDTH,
                                  bar_pointers, &kappa_bar, NULL);
    keep_worst(&worst->kappa, &kappa_bar, gradient_kappa->data + row, 1, largest(gradient_kappa));
    for (int i = 0; i < program->inputs; i++) {
      const golden_array *expected =
          golden_find(file, "k%zu/%s/g_%s", k, entry->golden_name, entry->inputs[i]);
      keep_worst(&worst->gradient, bars[i], expected->data + row * WIDTH, WIDTH, largest(expected));
    }
  }
}

static void compare_file(const char *path, double tolerance) {
  golden *file = golden_open(path);
  size_t curvatures = golden_find(file, "k")->count;
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    errors worst = {0, 0, 0};
    for (size_t k = 0; k < curvatures; k++) compare_case(file, k, &cases[i], &worst);
    print_message("%s %s: out %.1e gradient %.1e kappa %.1e\n", path, cases[i].golden_name, worst.out,
                  worst.gradient, worst.kappa);
    assert_true(worst.out <= tolerance);
    assert_true(worst.gradient <= tolerance);
    assert_true(worst.kappa <= tolerance);
  }
  golden_close(file);
}

static void test_interior(void **state) {
  (void)state;
  compare_file("stereographic/ops_interior", 1e-12);
}

static void test_boundary(void **state) {
  (void)state;
  compare_file("stereographic/ops_boundary", 1e-9);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_interior),
      cmocka_unit_test(test_boundary),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
