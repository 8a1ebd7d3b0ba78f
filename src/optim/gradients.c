/* Both passes cut the flat buffer into equal parts, whatever parameters lie in them. */
#include "optim/gradients.h"

#include <math.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "core/assert.h"
#include "core/memory.h"
#include "optim/element.h"

/* A norm is summed over this many parts and then over the parts in order. */
enum { NORM_PARTS = 256, PART_UNIT = 16 };

/* Where part `part` of `parts` of the flat buffers starts; it ends where the next one starts. */
static int64_t part_start(const kp_parameters *parameters, int part, int parts) {
  const int64_t units = (parameters->learned + PART_UNIT - 1) / PART_UNIT;
  const int64_t start = units * part / parts * PART_UNIT;
  return start < parameters->learned ? start : parameters->learned;
}

static double square_sum_double(const double *x, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; i++) sum += x[i] * x[i];
  return sum;
}

double kp_gradient_norm(const kp_parameters *parameters, int threads) {
  kp_assert(parameters->gradients != NULL, "the norm of gradients that were not allocated");
  const bool wide = kp_is_wide(parameters);
  const kp_cpu_functions *functions = wide ? NULL : kp_cpu_functions_of(parameters->backend);
  const void *gradients = parameters->gradients;
  double partial[NORM_PARTS], sum = 0;
#pragma omp parallel for schedule(static) num_threads(kp_thread_count(threads))
  for (int part = 0; part < NORM_PARTS; part++) {
    const int64_t first = part_start(parameters, part, NORM_PARTS);
    const int64_t count = part_start(parameters, part + 1, NORM_PARTS) - first;
    partial[part] = wide ? square_sum_double((const double *)gradients + first, count)
                         : functions->square_sum((const float *)gradients + first, count);
  }
  for (int part = 0; part < NORM_PARTS; part++) sum += partial[part];
  return sqrt(sum);
}

void kp_gradient_zero(kp_parameters *parameters, int threads) {
  const size_t size = parameters->backend->wide_size;
  if (parameters->backend->device != NULL) {
    kp_memory_fill(parameters->backend, parameters->gradients, 0, (size_t)parameters->learned * size, NULL);
    return;
  }
  threads = kp_thread_count(threads);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; part++) {
    const int64_t first = part_start(parameters, part, threads);
    const int64_t last = part_start(parameters, part + 1, threads);
    memset((char *)parameters->gradients + (size_t)first * size, 0, (size_t)(last - first) * size);
  }
}
