#include "support/kernel.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/check.h"
#include "core/random.h"

void kp_test_kernel_begin(kp_test_kernel *kernel, kp_operation operation, const void *arguments) {
  *kernel = (kp_test_kernel){.node = {.operation = operation, .arguments = arguments, .scope = "test"}};
}

static void describe(kp_tensor *tensor, kp_type type, int dimensions, va_list sizes) {
  *tensor = (kp_tensor){.type = type, .dimensions = dimensions, .name = "test"};
  for (int i = 0; i < dimensions; i++) tensor->shape[i] = va_arg(sizes, int);
}

void kp_test_input(kp_test_kernel *kernel, const void *memory, kp_type type, int dimensions, ...) {
  const int i = kernel->node.inputs++;
  va_list sizes;
  va_start(sizes, dimensions);
  describe(&kernel->tensor[i], type, dimensions, sizes);
  va_end(sizes);
  kernel->node.input[i] = memory == NULL ? NULL : &kernel->tensor[i];
  kernel->call.input[i] = (void *)(uintptr_t)memory;
}

void kp_test_output(kp_test_kernel *kernel, void *memory, kp_type type, int dimensions, ...) {
  const int i = kernel->node.outputs++;
  va_list sizes;
  va_start(sizes, dimensions);
  describe(&kernel->tensor[KP_MAX_INPUTS + i], type, dimensions, sizes);
  va_end(sizes);
  kernel->node.output[i] = memory == NULL ? NULL : &kernel->tensor[KP_MAX_INPUTS + i];
  kernel->call.output[i] = memory;
}

kp_status kp_test_run(kp_test_kernel *kernel, const kp_backend *backend, int threads, kp_error *error) {
  const kp_scratch_size size = backend->scratch[kernel->node.operation];
  const size_t bytes = size == NULL ? 0 : size(&kernel->node, threads);
  void *scratch = NULL;
  if (bytes > 0) {
    scratch = malloc(bytes);
    assert_non_null(scratch);
    memset(scratch, 0xff, bytes);
  }
  kernel->run.threads = threads;
  kernel->call.node = &kernel->node;
  kernel->call.run = &kernel->run;
  kernel->call.scratch = scratch;
  const kp_status status = backend->kernels[kernel->node.operation](&kernel->call, error);
  free(scratch);
  return status;
}

float *kp_test_uniform(int64_t count, double scale, uint64_t seed) {
  float *x = malloc((size_t)count * sizeof *x);
  assert_non_null(x);
  kp_random_fill_uniform(seed, 0, 0, -scale, scale, x, (size_t)count);
  return x;
}

float *kp_test_unwritten(int64_t count) {
  float *x = malloc((size_t)count * sizeof *x);
  assert_non_null(x);
  memset(x, 0xff, (size_t)count * sizeof *x);
  return x;
}

void kp_test_close(const char *what, const char *isa, const float *actual, const double *expected,
                   int64_t count, double tolerance, double unit) {
  for (int64_t i = 0; i < count; i++) {
    const double value = (double)actual[i], difference = fabs(value - expected[i]);
    if (isnan(expected[i]) ? isnan(value) : difference <= tolerance * (fabs(expected[i]) + unit)) continue;
    fail_msg("%s on %s: element %lld of %lld is %.9g, not %.9g", what, isa, (long long)i, (long long)count,
             value, expected[i]);
  }
}
