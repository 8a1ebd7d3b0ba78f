/* Every option set of every family on a GPU beside ref: logits, loss and all gradients, in float32 and, more
 * loosely, in bfloat16, where a small model's numbers pass through many roundings. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/gpu.h"
#include "support/model_cases.h"

/* Errors are relative to the largest element of logits, and of all gradients together. */
static const double FLOAT32 = 1e-4, BFLOAT16 = 0.2;

static const kp_backend *backend;
static double tolerance;

/* A norm of the difference of two equal rows divides zero by √ε: what arrives there as a gradient is
 * magnified a thousandfold, and in bfloat16 nothing of it is left to compare.  Equal rows are neighbours with
 * the same token and without an embedded position. */
static bool is_singular(const kp_model_options *o) {
  return (o->token_difference || o->residual == KP_RESIDUAL_STEREOGRAPHIC) &&
         o->positions == KP_POSITIONS_ROTARY;
}

static double *read_tensor(const model_run *run, const kp_tensor *tensor) {
  double *values = malloc((size_t)kp_tensor_count(tensor) * sizeof *values);
  assert_non_null(values);
  kp_executor_read(run->executor, tensor, values);
  return values;
}

static double largest_of(const double *values, int64_t count) {
  double largest = 0;
  for (int64_t i = 0; i < count; i++) largest = fmax(largest, fabs(values[i]));
  return largest;
}

static void compare(const char *model, const char *what, double *got, double *want, int64_t count,
                    double scale) {
  for (int64_t i = 0; i < count; i++) {
    const double error = fabs(got[i] - want[i]) / scale;
    if (!(error <= tolerance))
      fail_msg("%s: %s[%lld] is %g, not %g (%.1e of %g)", model, what, (long long)i, got[i], want[i], error,
               scale);
  }
  free(got);
  free(want);
}

static double *gradient_of(const model_run *run, int index) {
  double *values = malloc((size_t)run->parameters->list[index].count * sizeof *values + 1);
  assert_non_null(values);
  kp_parameters_read(run->parameters, run->parameters->gradients, index, values);
  return values;
}

static void test_model(void **state) {
  const model_case *c = *state;
  model_run want = model_run_create(&c->options, kp_backend_ref(), KP_BUILD_TRAIN);
  model_run got = model_run_create(&c->options, backend, KP_BUILD_TRAIN);
  const kp_tensor *loss = want.network->objective;
  double scale = 0;
  const double known = tolerance;
  if (is_singular(&c->options) && tolerance > FLOAT32) skip();
  if (is_singular(&c->options)) tolerance *= 100;
  model_run_all(&want);
  model_run_all(&got);
  double *exact = read_tensor(&want, loss);
  compare(c->name, "loss", read_tensor(&got, got.network->objective), exact, 1, 1);
  for (int p = 0; p < want.parameters->count; p++) {
    double *gradient = gradient_of(&want, p);
    scale = fmax(scale, largest_of(gradient, want.parameters->list[p].count));
    free(gradient);
  }
  for (int p = 0; p < want.parameters->count; p++)
    compare(c->name, want.parameters->list[p].name, gradient_of(&got, p), gradient_of(&want, p),
            want.parameters->list[p].count, scale);
  tolerance = known;
  model_run_destroy(&want);
  model_run_destroy(&got);
}

int main(void) {
  int failures = 0;
  for (int precision = KP_CUDA_FLOAT32; precision <= KP_CUDA_BFLOAT16; precision++) {
    backend = gpu_open((kp_cuda_precision)precision);
    tolerance = precision == KP_CUDA_FLOAT32 ? FLOAT32 : BFLOAT16;
    failures += model_cases_run(backend->name, test_model);
    kp_backend_cuda_close(backend);
  }
  return failures;
}
