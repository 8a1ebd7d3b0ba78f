/* Every backward rule and ref kernel against finite differences in double precision.
 *
 * The derivative of a random functional of the outputs by each element of each operand (at most ELEMENTS of
 * them) is compared with the five-point central difference
 *   (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12 h,
 * whose error is of order h⁴.  Errors are relative to the operand's largest gradient. */
#include <math.h>
#include <stdlib.h>

#include "support/check.h"
#include "support/operator_cases.h"

enum { ELEMENTS = 16 };

static const double TOLERANCE = 2e-8, ROUNDING = 1e-13;

static double worst_error;

static double objective_at(bench *b, double *element, double value) {
  kp_error error = {0};
  *element = value;
  check_ok(bench_forward(b, &error), &error);
  return bench_objective(b);
}

static double difference(bench *b, double *element, double h) {
  const double at = *element;
  const double near = objective_at(b, element, at + h) - objective_at(b, element, at - h);
  const double far = objective_at(b, element, at + 2 * h) - objective_at(b, element, at - 2 * h);
  *element = at;
  return (8 * near - far) / (12 * h);
}

/* The worst error over an operand's elements, relative to its largest gradient or to `floor`. */
static double operand_error(bench *b, int operand, const double *gradient, double floor) {
  const int64_t count = b->parameters->list[operand].count, step = 1 + (count - 1) / ELEMENTS;
  const double scale = fmax(bench_largest(gradient, count), floor);
  const double h = 7e-4 * fmax(bench_largest(b->value[operand], count), 0.1);
  double worst = 0;
  for (int64_t i = 0; i < count; i += step) {
    const double error = fabs(gradient[i] - difference(b, bench_element(b, operand, i), h)) / scale;
    if (!(error <= worst)) worst = error;
  }
  return worst;
}

static void read_gradients(const bench *b, double *gradient[BENCH_OPERANDS]) {
  for (int i = 0; i < b->operands; i++) gradient[i] = bench_read_gradient(b, i);
}

static bench *run_case(const operator_case *c, bool wrap) {
  kp_error error = {0};
  bench *b = operator_case_build(c, wrap);
  check_ok(bench_start(b, kp_backend_ref(), 1, &error), &error);
  check_ok(bench_run(b, &error), &error);
  return b;
}

static void test_differences(void **state) {
  const operator_case *c = *state;
  bench *b = run_case(c, false);
  double *gradient[BENCH_OPERANDS], largest = 0;
  read_gradients(b, gradient);
  for (int i = 0; i < b->operands; i++)
    largest = fmax(largest, bench_largest(gradient[i], b->parameters->list[i].count));
  for (int i = 0; i < b->operands; i++) {
    if (!b->parameters->list[i].trainable) continue;
    const double found = operand_error(b, i, gradient[i], fmax(1e-3 * largest, 1e-6));
    worst_error = fmax(worst_error, found);
    if (!(found <= TOLERANCE))
      fail_msg("%s: gradient of %s is off by %.2e", c->name, b->parameters->list[i].name, found);
  }
  for (int i = 0; i < b->operands; i++) free(gradient[i]);
  bench_destroy(b);
}

/* Operands that are activations, not parameters: other accumulators, and memory that is reused in place. What
 * an operand that is used twice gets is then added in another order. */
static void test_activations(void **state) {
  const operator_case *c = *state;
  bench *plain = run_case(c, false), *wrapped = run_case(c, true);
  for (int i = 0; i < plain->operands; i++) {
    double *want = bench_read_gradient(plain, i), *got = bench_read_gradient(wrapped, i);
    const int64_t count = plain->parameters->list[i].count;
    const double allowed = ROUNDING * bench_largest(want, count);
    for (int64_t j = 0; j < count; j++)
      if (!(fabs(want[j] - got[j]) <= allowed))
        fail_msg("%s: gradient of %s is %.17g, not %.17g, when it is an activation", c->name,
                 plain->parameters->list[i].name, got[j], want[j]);
    free(want);
    free(got);
  }
  bench_destroy(plain);
  bench_destroy(wrapped);
}

static bool differentiable(const operator_case *c) {
  return !c->decoding;
}

int main(void) {
  const int failures = operator_cases_run("gradients of operators", test_differences, differentiable);
  print_message("worst error of a gradient: %.1e\n", worst_error);
  return failures + operator_cases_run("gradients of activations", test_activations, differentiable);
}
