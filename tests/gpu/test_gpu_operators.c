/* Every cuda kernel, in float32 and in bfloat16, against ref; needs a GPU.
 *
 *   test_gpu_operators [I/N] [--ordinary] [OPERATOR …]
 *
 * Only operators whose names begin so; of their cases only every N-th, from the I-th on; with --ordinary not
 * those with values that hurt, which take the same paths through memory.
 *
 * Each case of the table runs with operands that are parameters and with operands that are activations, and
 * gradients in place; results must be the same bits when they are computed again; and the values that hurt
 * must not. */
#include <stdio.h>
#include <string.h>

#include "backend/cuda/cuda.h"
#include "support/check.h"
#include "support/operator_compare.h"

/* Of outputs and of gradients.  In bfloat16 the curved seams, curved attention and hyperplanes read their own
 * results back with 8 bits: the gradients of curvatures and temperatures, sums that cancel, keep one digit.
 */
static const double FLOAT32[2] = {1e-5, 2e-5};
static const double BFLOAT16[2] = {1e-2, 2e-2}, BFLOAT16_CURVED[2] = {1e-2, 0.1};

static const kp_backend *backend;
static bool narrow;
static double worst[2];
static char **names;
static int name_count;
static int share = 1, shares = 1, seen; /* of the cases this process runs one in `shares` */
static bool ordinary;

static bool named(const operator_case *c) {
  const char *name = kp_operator_table[c->operation].name;
  for (int i = 0; i < name_count; i++)
    if (strncmp(name, names[i], strlen(names[i])) == 0) return true;
  return name_count == 0;
}

static bool wanted(const operator_case *c) {
  return named(c) && seen++ % shares == share - 1;
}

static bool wanted_differentiable(const operator_case *c) {
  return !c->decoding && wanted(c);
}

static const double *tolerances(const operator_case *c) {
  switch (c->operation) {
  case KP_OP_RESIDUAL_NORM:
  case KP_OP_LORENTZ_MLR: return narrow ? BFLOAT16_CURVED : FLOAT32;
  case KP_OP_ATTENTION: {
    const bool curved = c->score != KP_SCORE_DOT || c->values != KP_VALUES_MEAN;
    return !narrow ? FLOAT32 : curved ? BFLOAT16_CURVED : BFLOAT16;
  }
  default: return narrow ? BFLOAT16 : FLOAT32;
  }
}

static void test_case(void **state) {
  const operator_case *c = *state;
  bench *want = operator_case_run(c, kp_backend_ref(), 1, false, narrow);
  for (int wrap = 0; wrap < 2; wrap++) {
    bench *got = operator_case_run(c, backend, 1, wrap, narrow);
    operator_case_compare(c, got, want, tolerances(c), worst);
    operator_case_run_again(c, got);
    bench_destroy(got);
  }
  bench_destroy(want);
}

static void test_extremes(void **state) {
  operator_case_extremes(*state, backend);
}

static void test_nan(void **state) {
  operator_case_nan(*state, backend);
}

/* Whether the argument is I/N, a share of the cases. */
static bool read_share(const char *argument) {
  int i, n, length = 0;
  if (sscanf(argument, "%d/%d%n", &i, &n, &length) != 2 || argument[length] != '\0') return false;
  share = i, shares = n;
  return true;
}

int main(int count, char **arguments) {
  int failures = 0;
  int skipped = count > 1 && read_share(arguments[1]) ? 2 : 1;
  if (share < 1 || share > shares) {
    printf("test_gpu_operators: there is no share %d of %d\n", share, shares);
    return 1;
  }
  ordinary = count > skipped && strcmp(arguments[skipped], "--ordinary") == 0;
  skipped += ordinary;
  names = arguments + skipped;
  name_count = count - skipped;
  for (int precision = KP_CUDA_FLOAT32; precision <= KP_CUDA_BFLOAT16; precision++) {
    kp_error error = {0};
    if (kp_backend_cuda_open(0, (kp_cuda_precision)precision, &backend, &error) != KP_OK) {
      printf("%s\n0 passed, 1 failed\n", error.message);
      return 1;
    }
    narrow = precision == KP_CUDA_BFLOAT16;
    worst[0] = worst[1] = 0;
    failures += operator_cases_run(backend->name, test_case, wanted);
    if (!ordinary) failures += operator_cases_run("extremes", test_extremes, wanted);
    if (!ordinary) failures += operator_cases_run("not a number", test_nan, wanted_differentiable);
    print_message("%s: worst error of an output %.1e, of a gradient %.1e\n", backend->name, worst[0],
                  worst[1]);
    kp_backend_cuda_close(backend);
  }
  return failures;
}
