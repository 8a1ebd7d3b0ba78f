/* Every operator on values that hurt: zeros, the smallest and the largest, and not-a-numbers.
 *
 * What holds: nothing crashes; zeros and 1e-30 give finite outputs and gradients in ref and cpu; 1e30 gives
 * no NaN in the outputs of ref (in float it may overflow); a NaN in an element that an output depends on
 * reaches an output or is an error.  Curvatures, temperatures and weights of a mean keep their values: only
 * vectors are replaced. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/check.h"
#include "support/isa.h"
#include "support/operator_cases.h"

static const kp_backend *backend;

/* Scalars of the geometry: their domains are their own. */
static bool is_scalar(const kp_parameter *operand) {
  return strstr(operand->name, "curvature") != NULL || strcmp(operand->name, "temperature") == 0 ||
         strcmp(operand->name, "weights") == 0;
}

static bench *start(const operator_case *c) {
  kp_error error = {0};
  bench *b = operator_case_build(c, false);
  check_ok(bench_start(b, backend, 1, &error), &error);
  return b;
}

static void write_value(bench *b, int operand, const double *values) {
  kp_parameters_write(b->parameters, b->parameters->values, operand, values);
}

static void fill(bench *b, double value) {
  for (int i = 0; i < b->operands; i++) {
    const kp_parameter *operand = &b->parameters->list[i];
    if (is_scalar(operand)) continue;
    for (int64_t j = 0; j < operand->count; j++) b->value[i][j] = j % 3 == 2 ? -value : value;
    write_value(b, i, b->value[i]);
  }
}

static int count_bad(double *values, int64_t count, bool infinities_too) {
  int bad = 0;
  for (int64_t i = 0; i < count; i++) bad += infinities_too ? !isfinite(values[i]) : isnan(values[i]);
  free(values);
  return bad;
}

static int bad_outputs(const bench *b, bool infinities_too) {
  int bad = 0;
  for (int i = 0; i < b->outputs; i++)
    bad += count_bad(bench_read_output(b, i), kp_tensor_count(b->output[i]), infinities_too);
  for (int i = 0; i < b->states; i++)
    bad += count_bad(bench_read_state(b, i), kp_tensor_count(b->state[i]), infinities_too);
  return bad;
}

static int bad_gradients(const bench *b) {
  int bad = 0;
  for (int i = 0; i < b->operands; i++)
    bad += count_bad(bench_read_gradient(b, i), b->parameters->list[i].count, true);
  return bad;
}

static void check_small(const operator_case *c, double value) {
  kp_error error = {0};
  bench *b = start(c);
  fill(b, value);
  check_ok(bench_run(b, &error), &error);
  if (bad_outputs(b, true) > 0) fail_msg("%s: outputs of %g are not finite", c->name, value);
  if (!c->decoding && bad_gradients(b) > 0) fail_msg("%s: gradients at %g are not finite", c->name, value);
  bench_destroy(b);
}

static void check_large(const operator_case *c, double value) {
  kp_error error = {0};
  bench *b = start(c);
  fill(b, value);
  check_ok(bench_run(b, &error), &error);
  if (backend->real_size == sizeof(double) && bad_outputs(b, false) > 0)
    fail_msg("%s: outputs of %g are NaN", c->name, value);
  bench_destroy(b);
}

static void test_extremes(void **state) {
  const operator_case *c = *state;
  check_small(c, 0);
  check_small(c, 1e-30);
  check_large(c, 1e30);
}

/* The element of the largest gradient, or -1 where nothing depends on the operand. */
static int64_t element_that_counts(const bench *b, int operand) {
  double *gradient = bench_read_gradient(b, operand);
  int64_t found = -1;
  double largest = 0;
  for (int64_t i = 0; i < b->parameters->list[operand].count; i++)
    if (fabs(gradient[i]) > largest) largest = fabs(gradient[found = i]);
  free(gradient);
  return found;
}

static void test_nan(void **state) {
  const operator_case *c = *state;
  kp_error error = {0};
  bench *b = start(c);
  check_ok(bench_run(b, &error), &error);
  for (int i = 0; i < b->operands; i++) {
    const int64_t element = element_that_counts(b, i);
    if (element < 0) continue;
    const double before = b->value[i][element];
    b->value[i][element] = (double)NAN;
    write_value(b, i, b->value[i]);
    if (bench_forward(b, &error) == KP_OK && bad_outputs(b, false) == 0)
      fail_msg("%s: a NaN in %s leaves no trace", c->name, b->parameters->list[i].name);
    b->value[i][element] = before;
    write_value(b, i, b->value[i]);
  }
  bench_destroy(b);
}

static bool differentiable(const operator_case *c) {
  return !c->decoding;
}

int main(void) {
  kp_test_isa isas[KP_TEST_ISAS];
  const int count = kp_test_isas(isas);
  int failures = 0;
  for (int i = -1; i < count; i++) {
    backend = i < 0 ? kp_backend_ref() : isas[i].backend;
    print_message("%s\n", backend->name);
    failures += operator_cases_run("extremes", test_extremes, NULL);
    failures += operator_cases_run("not a number", test_nan, differentiable);
  }
  return failures;
}
