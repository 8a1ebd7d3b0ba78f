/* Every cpu kernel, of every instruction set that runs here, on one and on three threads, against ref.
 *
 * Both start from the same float numbers.  Errors are relative to the largest element of the output, or of
 * the operand's gradient (but at least a hundredth of the largest of all gradients: float cannot know more
 * about a sum that cancels).  Results must not depend on the number of threads by more than that, and must
 * be the same bits when they are computed again. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "support/check.h"
#include "support/operator_cases.h"

/* Of outputs and of gradients, for flat operators and for those of curved space. */
static const double FLAT[2] = {1e-6, 2e-6}, CURVED[2] = {1e-5, 2e-5};
static const double CANCELLATION = 1e-2;
static const char *const isas[] = {"avx512", "avx2", "sse", "plain"};
enum { ISAS = sizeof isas / sizeof *isas };

/* The instruction set that the running tests are for, and the worst errors. */
static const kp_backend *backend;
static double worst_output, worst_gradient;

static bench *run_case(const operator_case *c, const kp_backend *on, int threads, bool wrap) {
  kp_error error = {0};
  bench *b = operator_case_build(c, wrap);
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

static const double *tolerances(const operator_case *c) {
  switch (c->operation) {
  case KP_OP_ATTENTION:
  case KP_OP_ATTENTION_CACHED: return c->score == KP_SCORE_DOT && !c->values && !c->option ? FLAT : CURVED;
  case KP_OP_ATTENTION_LATENT_CACHED:
  case KP_OP_RESIDUAL_NORM:
  case KP_OP_SPHERE_RESIDUAL:
  case KP_OP_ROW_PROGRAM:
  case KP_OP_MIDPOINT:
  case KP_OP_LORENTZ_MLR:
  case KP_OP_LORENTZ_RESIDUAL:
  case KP_OP_REFERENCE: return CURVED;
  default: return FLAT;
  }
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

static void compare_all(const operator_case *c, const bench *got, const bench *want) {
  const double floor = CANCELLATION * largest_gradient(want);
  for (int i = 0; i < want->outputs; i++)
    compare(c, "the output",
            difference(bench_read_output(got, i), bench_read_output(want, i),
                       kp_tensor_count(want->output[i]), 1e-30),
            tolerances(c)[0], &worst_output);
  for (int i = 0; i < want->states; i++)
    compare(c, "the state",
            difference(bench_read_state(got, i), bench_read_state(want, i), kp_tensor_count(want->state[i]),
                       1e-30),
            tolerances(c)[0], &worst_output);
  for (int i = 0; i < want->operands && !c->decoding; i++) {
    char what[64];
    snprintf(what, sizeof what, "the gradient of %s", want->parameters->list[i].name);
    compare(c, what,
            difference(bench_read_gradient(got, i), bench_read_gradient(want, i),
                       want->parameters->list[i].count, fmax(floor, 1e-30)),
            tolerances(c)[1], &worst_gradient);
  }
}

/* The same bits twice. */
static void run_again(const operator_case *c, bench *b) {
  const size_t bytes = (size_t)b->parameters->total * b->parameters->backend->real_size;
  kp_error error = {0};
  void *before = malloc(bytes);
  assert_non_null(before);
  memcpy(before, b->parameters->gradients, bytes);
  check_ok(bench_run(b, &error), &error);
  if (memcmp(before, b->parameters->gradients, bytes) != 0)
    fail_msg("%s: gradients have other bits when they are computed again", c->name);
  free(before);
}

/* With several threads also with operands and gradients that are activations, and overwritten in place. */
static void test_case(void **state) {
  const operator_case *c = *state;
  bench *want = run_case(c, kp_backend_ref(), 1, false);
  for (int threads = 1; threads <= 3; threads += 2) {
    bench *got = run_case(c, backend, threads, threads > 1);
    compare_all(c, got, want);
    run_again(c, got);
    bench_destroy(got);
  }
  bench_destroy(want);
}

int main(void) {
  int failures = 0;
  for (int i = 0; i < ISAS; i++) {
    kp_error error = {0};
    backend = kp_backend_cpu_named(isas[i], &error);
    if (backend == NULL) {
      print_message("%s\n", error.message);
      continue;
    }
    worst_output = worst_gradient = 0;
    failures += operator_cases_run(isas[i], test_case, NULL);
    print_message("%s: worst error of an output %.1e, of a gradient %.1e\n", isas[i], worst_output,
                  worst_gradient);
  }
  return failures;
}
