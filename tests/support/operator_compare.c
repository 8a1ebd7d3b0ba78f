#include "support/operator_compare.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/half.h"
#include "support/check.h"

static const double CANCELLATION = 1e-2;

static void round_all(double *values, int64_t count) {
  for (int64_t i = 0; i < count; i++)
    values[i] = (double)kp_float_from_bf16(kp_bf16_from_float((float)values[i]));
}

/* What stands in real tensors: operands that are matrices, states, and what seeds real outputs. */
static void round_to_bf16(bench *b) {
  for (int i = 0; i < b->graph->tensor_count; i++) {
    const kp_tensor *tensor = b->graph->tensors[i];
    if (tensor->role == KP_ROLE_PARAMETER && tensor->type == KP_TYPE_REAL)
      round_all(b->value[tensor->parameter], kp_tensor_count(tensor));
  }
  for (int i = 0; i < b->outputs; i++)
    if (b->seed[i]->type == KP_TYPE_REAL) round_all(b->seed_value[i], kp_tensor_count(b->seed[i]));
  for (int i = 0; i < b->states; i++)
    if (b->state[i]->type == KP_TYPE_REAL) round_all(b->state_value[i], kp_tensor_count(b->state[i]));
}

bench *operator_case_run(const operator_case *c, const kp_backend *on, int threads, bool wrap, bool narrow) {
  kp_error error = {0};
  bench *b = operator_case_build(c, wrap);
  if (narrow) round_to_bf16(b);
  check_ok(bench_start(b, on, threads, &error), &error);
  check_ok(bench_run(b, &error), &error);
  return b;
}

/* The largest difference, relative to the largest number of `want` or to `floor`; takes over the arrays. */
static double difference(double *got, double *want, int64_t count, double floor) {
  const double scale = fmax(bench_largest(want, count), floor);
  double worst = 0;
  for (int64_t i = 0; i < count; i++) {
    const double error = got[i] == want[i] ? 0 : fabs(got[i] - want[i]) / scale;
    if (!(error <= worst)) worst = error;
  }
  free(got);
  free(want);
  return worst;
}

static void compare(const operator_case *c, const char *what, double error, double tolerance, double *worst) {
  if (!(error <= tolerance)) fail_msg("%s: %s differs from ref by %.2e", c->name, what, error);
  *worst = fmax(*worst, error);
}

static double largest_gradient(const bench *b) {
  double largest = 0;
  for (int i = 0; i < b->operands; i++) {
    double *gradient = bench_read_gradient(b, i);
    largest = fmax(largest, bench_largest(gradient, b->parameters->list[i].count));
    free(gradient);
  }
  return largest;
}

void operator_case_compare(const operator_case *c, const bench *got, const bench *want,
                           const double tolerance[2], double worst[2]) {
  const double floor = CANCELLATION * largest_gradient(want);
  for (int i = 0; i < want->outputs; i++)
    compare(c, "the output",
            difference(bench_read_output(got, i), bench_read_output(want, i),
                       kp_tensor_count(want->output[i]), 1e-30),
            tolerance[0], &worst[0]);
  for (int i = 0; i < want->states; i++)
    compare(c, "the state",
            difference(bench_read_state(got, i), bench_read_state(want, i), kp_tensor_count(want->state[i]),
                       1e-30),
            tolerance[0], &worst[0]);
  for (int i = 0; i < want->operands && !c->decoding; i++) {
    char what[64];
    snprintf(what, sizeof what, "the gradient of %s", want->parameters->list[i].name);
    compare(c, what,
            difference(bench_read_gradient(got, i), bench_read_gradient(want, i),
                       want->parameters->list[i].count, fmax(floor, 1e-30)),
            tolerance[1], &worst[1]);
  }
}

void operator_case_run_again(const operator_case *c, bench *b) {
  kp_error error = {0};
  double *before[BENCH_OPERANDS];
  for (int i = 0; i < b->operands; i++) before[i] = bench_read_gradient(b, i);
  check_ok(bench_run(b, &error), &error);
  for (int i = 0; i < b->operands; i++) {
    double *again = bench_read_gradient(b, i);
    const size_t bytes = (size_t)b->parameters->list[i].count * sizeof *again;
    if (memcmp(before[i], again, bytes) != 0)
      fail_msg("%s: the gradient of %s has other bits when it is computed again", c->name,
               b->parameters->list[i].name);
    free(before[i]);
    free(again);
  }
}

/* ---- values that hurt ---- */

/* Scalars of the geometry: their domains are their own. */
static bool is_scalar(const kp_parameter *operand) {
  return strstr(operand->name, "curvature") != NULL || strcmp(operand->name, "temperature") == 0 ||
         strcmp(operand->name, "weights") == 0;
}

static bench *start(const operator_case *c, const kp_backend *backend) {
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

static void check_small(const operator_case *c, const kp_backend *backend, double value) {
  kp_error error = {0};
  bench *b = start(c, backend);
  fill(b, value);
  check_ok(bench_run(b, &error), &error);
  if (bad_outputs(b, true) > 0) fail_msg("%s: outputs of %g are not finite", c->name, value);
  if (!c->decoding && bad_gradients(b) > 0) fail_msg("%s: gradients at %g are not finite", c->name, value);
  bench_destroy(b);
}

static void check_large(const operator_case *c, const kp_backend *backend, double value) {
  kp_error error = {0};
  bench *b = start(c, backend);
  fill(b, value);
  check_ok(bench_run(b, &error), &error);
  if (backend->real_size == sizeof(double) && bad_outputs(b, false) > 0)
    fail_msg("%s: outputs of %g are NaN", c->name, value);
  bench_destroy(b);
}

void operator_case_extremes(const operator_case *c, const kp_backend *backend) {
  check_small(c, backend, 0);
  check_small(c, backend, 1e-30);
  check_large(c, backend, 1e30);
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

void operator_case_nan(const operator_case *c, const kp_backend *backend) {
  kp_error error = {0};
  bench *b = start(c, backend);
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
