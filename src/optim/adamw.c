/* All passes cut the flat buffers into equal parts and walk through the
 * parameters of a part, so that many small parameters cost no more than one
 * large one. */
#include "optim/adamw.h"

#include <math.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "core/assert.h"

/* A norm is summed over this many parts and then over the parts in order. */
enum { NORM_PARTS = 256, PART_UNIT = 16 };

/* Where part `part` of `parts` of the flat buffers starts; it ends where the next one starts. */
static int64_t part_start(const kp_parameters *parameters, int part, int parts) {
  const int64_t units = (parameters->total + PART_UNIT - 1) / PART_UNIT;
  const int64_t start = units * part / parts * PART_UNIT;
  return start < parameters->total ? start : parameters->total;
}

static bool is_double(const kp_parameters *parameters) {
  return parameters->backend->real_size == sizeof(double);
}

/* One group's step, in double. */
typedef struct kp_adamw_step_of_group {
  double gradient_scale, keep, beta1, beta2, step, root_correction, epsilon;
} kp_adamw_step_of_group;

static kp_adamw_step_of_group step_of_group(const kp_adamw_options *options, kp_group group, int64_t t,
                                            double gradient_scale) {
  const double multiplier = group == KP_GROUP_CURVATURE ? options->curvature_rate_multiplier : 1.0;
  const double rate = options->learning_rate * multiplier;
  const double decay = group <= KP_GROUP_TABLE ? options->weight_decay : 0.0;
  return (kp_adamw_step_of_group){
      .gradient_scale = gradient_scale,
      .keep = 1.0 - rate * decay,
      .beta1 = options->beta1,
      .beta2 = options->beta2,
      .step = rate / (1.0 - pow(options->beta1, (double)t)),
      .root_correction = sqrt(1.0 - pow(options->beta2, (double)t)),
      .epsilon = options->epsilon,
  };
}

static kp_adamw_factors factors_of(const kp_adamw_step_of_group *step) {
  return (kp_adamw_factors){
      .gradient_scale = (float)step->gradient_scale,
      .keep = (float)step->keep,
      .new_mean = (float)(1.0 - step->beta1),
      .new_square = (float)(1.0 - step->beta2),
      .old_square = (float)step->beta2,
      .step = (float)step->step,
      .inverse_root_correction = (float)(1.0 / step->root_correction),
      .epsilon = (float)step->epsilon,
  };
}

static void step_double(const kp_parameters *parameters, const kp_adamw_step_of_group *step, int64_t first,
                        int64_t last) {
  double *value = parameters->values, *mean = parameters->moment1, *square = parameters->moment2;
  const double *gradient = parameters->gradients;
  for (int64_t i = first; i < last; i++) {
    const double g = step->gradient_scale * gradient[i];
    value[i] *= step->keep;
    mean[i] += (1.0 - step->beta1) * (g - mean[i]);
    square[i] = step->beta2 * square[i] + (1.0 - step->beta2) * g * g;
    value[i] -= step->step * mean[i] / (sqrt(square[i]) / step->root_correction + step->epsilon);
  }
}

static void step_float(const kp_parameters *parameters, const kp_cpu_functions *functions,
                       const kp_adamw_step_of_group *step, int64_t first, int64_t last) {
  const kp_adamw_factors factors = factors_of(step);
  functions->adamw((float *)parameters->values + first, (const float *)parameters->gradients + first,
                   (float *)parameters->moment1 + first, (float *)parameters->moment2 + first, last - first,
                   &factors);
}

/* The step on what of each parameter lies in [first, last) of the flat buffers. */
static void step_part(const kp_parameters *parameters, const kp_adamw_step_of_group *groups, int64_t first,
                      int64_t last) {
  const kp_cpu_functions *functions = is_double(parameters) ? NULL : kp_cpu_functions_of(parameters->backend);
  for (int p = 0; p < parameters->count; p++) {
    const kp_parameter *parameter = &parameters->list[p];
    const int64_t end = parameter->offset + parameter->count;
    const int64_t from = parameter->offset > first ? parameter->offset : first, to = end < last ? end : last;
    if (!parameter->trainable || !parameter->used || from >= to) continue;
    if (functions == NULL)
      step_double(parameters, &groups[parameter->group], from, to);
    else
      step_float(parameters, functions, &groups[parameter->group], from, to);
  }
}

void kp_adamw_step(kp_parameters *parameters, const kp_adamw_options *options, int64_t t,
                   double gradient_scale, int threads) {
  kp_assert(t >= 1, "AdamW's first step is 1, not %lld", (long long)t);
  kp_assert(parameters->moment2 != NULL, "AdamW on parameters that were not allocated for training");
  kp_adamw_step_of_group groups[KP_GROUP_COUNT];
  threads = kp_thread_count(threads);
  for (int g = 0; g < KP_GROUP_COUNT; g++) groups[g] = step_of_group(options, (kp_group)g, t, gradient_scale);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; part++)
    step_part(parameters, groups, part_start(parameters, part, threads),
              part_start(parameters, part + 1, threads));
}

static double square_sum_double(const double *x, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; i++) sum += x[i] * x[i];
  return sum;
}

double kp_gradient_norm(const kp_parameters *parameters, int threads) {
  kp_assert(parameters->gradients != NULL, "the norm of gradients that were not allocated");
  const bool wide = is_double(parameters);
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
  const size_t size = parameters->backend->real_size;
  threads = kp_thread_count(threads);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; part++) {
    const int64_t first = part_start(parameters, part, threads);
    const int64_t last = part_start(parameters, part + 1, threads);
    memset((char *)parameters->gradients + (size_t)first * size, 0, (size_t)(last - first) * size);
  }
}
