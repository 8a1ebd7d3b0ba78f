/* Every cpu kernel, of every instruction set that runs here, on one and on three threads, against ref.
 *
 * Results must not depend on the number of threads by more than their error, and must be the same bits when
 * they are computed again. */
#include "backend/cpu/cpu.h"
#include "support/check.h"
#include "support/operator_compare.h"

/* Of outputs and of gradients, for flat operators and for those of curved space. */
static const double FLAT[2] = {1e-6, 2e-6}, CURVED[2] = {1e-5, 2e-5};
static const char *const isas[] = {"avx512", "avx2", "sse", "plain"};
enum { ISAS = sizeof isas / sizeof *isas };

/* The instruction set that the running tests are for, and the worst errors. */
static const kp_backend *backend;
static double worst[2];

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

/* Vocabularies of thousands are for the GPU's kernels: these bounds are of float sums over some hundred
 * numbers, and where nothing is vectorised each sum has one chain of roundings. */
static bool wanted(const operator_case *c) {
  const bool head =
      c->operation == KP_OP_LINEAR_CROSS_ENTROPY || c->operation == KP_OP_LINEAR_CROSS_ENTROPY_TRAINED;
  return !head || c->inner < 1000;
}

/* With several threads also with operands and gradients that are activations, and overwritten in place. */
static void test_case(void **state) {
  const operator_case *c = *state;
  bench *want = operator_case_run(c, kp_backend_ref(), 1, false, false);
  for (int threads = 1; threads <= 3; threads += 2) {
    bench *got = operator_case_run(c, backend, threads, threads > 1, false);
    operator_case_compare(c, got, want, tolerances(c), worst);
    operator_case_run_again(c, got);
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
    worst[0] = worst[1] = 0;
    failures += operator_cases_run(isas[i], test_case, wanted);
    print_message("%s: worst error of an output %.1e, of a gradient %.1e\n", isas[i], worst[0], worst[1]);
  }
  return failures;
}
