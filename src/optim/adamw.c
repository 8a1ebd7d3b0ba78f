/* The step in double as it is written; the fast backend has the pass over floats. */
#include "optim/adamw.h"

#include <math.h>

#include "backend/cpu/cpu.h"
#include "optim/element.h"

kp_adamw_step kp_adamw_step_of(const kp_adamw_options *options, kp_group group, int64_t t, double rate_factor,
                               double gradient_scale) {
  const double multiplier = group == KP_GROUP_CURVATURE ? options->curvature_rate_multiplier : 1.0;
  const double rate = options->learning_rate * rate_factor * multiplier;
  const double decay = group <= KP_GROUP_TABLE ? options->weight_decay : 0.0;
  return (kp_adamw_step){
      .gradient_scale = gradient_scale,
      .keep = 1.0 - rate * decay,
      .beta1 = options->beta1,
      .beta2 = options->beta2,
      .rate = rate,
      .mean_correction = 1.0 - pow(options->beta1, (double)t),
      .root_correction = sqrt(1.0 - pow(options->beta2, (double)t)),
      .epsilon = options->epsilon,
  };
}

static kp_adamw_factors factors_of(const kp_adamw_step *step) {
  return (kp_adamw_factors){
      .gradient_scale = (float)step->gradient_scale,
      .keep = (float)step->keep,
      .new_mean = (float)(1.0 - step->beta1),
      .new_square = (float)(1.0 - step->beta2),
      .old_square = (float)step->beta2,
      .step = (float)(step->rate / step->mean_correction),
      .inverse_root_correction = (float)(1.0 / step->root_correction),
      .epsilon = (float)step->epsilon,
  };
}

static void apply_double(const kp_parameters *parameters, const kp_adamw_step *step, int64_t first,
                         int64_t count) {
  double *value = parameters->values, *mean = parameters->moment1, *square = parameters->moment2;
  const double *gradient = parameters->gradients;
  for (int64_t i = first; i < first + count; i++) {
    const double g = step->gradient_scale * gradient[i];
    value[i] *= step->keep;
    mean[i] += (1.0 - step->beta1) * (g - mean[i]);
    square[i] = step->beta2 * square[i] + (1.0 - step->beta2) * g * g;
    value[i] -= step->rate / step->mean_correction * mean[i] /
                (sqrt(square[i]) / step->root_correction + step->epsilon);
  }
}

void kp_adamw_apply(const kp_parameters *parameters, const kp_adamw_step *step, int64_t first,
                    int64_t count) {
  if (kp_is_wide(parameters)) {
    apply_double(parameters, step, first, count);
    return;
  }
  const kp_adamw_factors factors = factors_of(step);
  kp_cpu_functions_of(parameters->backend)
      ->adamw((float *)parameters->values + first, (const float *)parameters->gradients + first,
              (float *)parameters->moment1 + first, (float *)parameters->moment2 + first, count, &factors);
}
