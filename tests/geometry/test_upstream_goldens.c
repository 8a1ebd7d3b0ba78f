/* The upstream programs against the published code's own numbers: outputs, both gradients and that of c. */
#include "support/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "geometry/row_program.h"
#include "support/golden.h"

static const char *const files[] = {
    "ops_dynamic_perhead", "ops_log_clamp_active",         "ops_perhead",
    "ops_scalar_c0p5",     "ops_scalar_c0p9_outside_ball", "ops_scalar_c1e-6_clamped_to_1e-4",
    "ops_tiny_v",          "ops_scalar_c1p7_clamped_to_1", "ops_v_zero_eps",
};

static double worst_against(const double *found, const golden_array *expected) {
  double scale = 0, worst = 0;
  for (size_t i = 0; i < expected->count; i++) scale = fmax(scale, fabs(expected->data[i]));
  for (size_t i = 0; i < expected->count; i++) {
    double error = fabs(found[i] - expected->data[i]) / (scale > 0 ? scale : 1);
    if (!(error <= worst)) worst = error;
  }
  return worst;
}

/* Runs one operation over all rows and heads of the file and compares. */
static void compare_operation(const golden *file, const char *path, const char *operation,
                              const char *second_name, const char *program_name) {
  const golden_array *first = golden_find(file, "x");
  const golden_array *second = golden_look(file, "%s", second_name);
  const golden_array *out = golden_look(file, "%s/out", operation);
  if (!second || !out) return;
  const golden_array *cotangent = golden_find(file, "gout"), *c = golden_find(file, "c");
  const golden_array *clamped = golden_find(file, "log/artanh_clamped");
  const kp_row_program *program = kp_row_program_find(program_name);
  assert_non_null(program);
  size_t heads = (size_t)golden_find(file, "n_head")->data[0];
  if (heads == 0) heads = 1;
  size_t batch = first->shape[0], tokens = first->shape[1], width = first->shape[2] / heads;
  size_t slices = batch * tokens * heads;
  double *output = calloc(first->count, sizeof(double));
  double *first_bar = calloc(first->count, sizeof(double)),
         *second_bar = calloc(first->count, sizeof(double));
  double *c_bar = calloc(c->count, sizeof(double));
  for (size_t slice = 0; slice < slices; slice++) {
    size_t head = slice % heads, sequence = slice / heads / tokens, at = slice * width;
    size_t which = c->count == 1 ? 0 : c->count == heads ? head : sequence * heads + head;
    const double *inputs[] = {first->data + at, second->data + at};
    double *bars[] = {first_bar + at, second_bar + at};
    double kappa_bar = 0;
    int event = kp_row_program_apply(program, width, inputs, -c->data[which], 0, output + at);
    kp_row_program_apply_backward(program, width, inputs, -c->data[which], 0, cotangent->data + at, bars,
                                  &kappa_bar, NULL);
    c_bar[which] -= kappa_bar;
    if (strcmp(operation, "log") == 0) {
      double square = 0, limited = fmin(fmax(c->data[which], 1e-4), 1);
      for (size_t j = 0; j < width; j++) square += inputs[0][j] * inputs[0][j];
      assert_int_equal(event, clamped->data[slice] != 0 || limited * square >= 1);
    }
  }
  const double errors[] = {worst_against(output, out),
                           worst_against(first_bar, golden_find(file, "%s/g_first", operation)),
                           worst_against(second_bar, golden_find(file, "%s/g_second", operation)),
                           worst_against(c_bar, golden_find(file, "%s/g_c", operation))};
  print_message("%s %s: out %.1e first %.1e second %.1e c %.1e\n", path, operation, errors[0], errors[1],
                errors[2], errors[3]);
  for (int i = 0; i < 4; i++) assert_true(errors[i] <= 1e-9);
  free(output);
  free(first_bar);
  free(second_bar);
  free(c_bar);
}

static void test_published_operations(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
    char path[128];
    snprintf(path, sizeof path, "mixed/%s", files[i]);
    golden *file = golden_open(path);
    int per_head = golden_find(file, "n_head")->data[0] > 0;
    compare_operation(file, path, "add", "y", "upstream_add");
    compare_operation(file, path, "exp", "v", "upstream_exp");
    compare_operation(file, path, "log", "y", per_head ? "upstream_log_per_head" : "upstream_log_scalar");
    golden_close(file);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_published_operations)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
