/* The passes over the elements cost a hundredth of the iteration, so one text serves doubles and floats.
 *
 * Scratch memory: [ x | the iteration's ]. */
#include "optim/muon.h"

#include <math.h>

#include "optim/element.h"
#include "optim/orthogonalize.h"

int64_t kp_muon_scratch(int64_t rows, int64_t columns) {
  return rows * columns + kp_orthogonalize_scratch(rows, columns);
}

static void momentum(const kp_parameters *parameters, const kp_muon_options *o, double gradient_scale,
                     int64_t first, int64_t count, void *x) {
  const bool wide = kp_is_wide(parameters);
  for (int64_t i = 0; i < count; i++) {
    const double g = gradient_scale * kp_element(parameters->gradients, wide, first + i);
    const double m = o->momentum * kp_element(parameters->moment1, wide, first + i) + (1 - o->momentum) * g;
    kp_element_set(parameters->moment1, wide, first + i, m);
    kp_element_set(x, wide, i, o->nesterov ? (1 - o->momentum) * g + o->momentum * m : m);
  }
}

void kp_muon_apply(const kp_parameters *parameters, const kp_muon_options *options, double rate_factor,
                   double gradient_scale, int64_t first, int64_t rows, int64_t columns, void *scratch) {
  const bool wide = kp_is_wide(parameters);
  const int64_t count = rows * columns;
  const double rate = options->learning_rate * rate_factor, keep = 1 - rate * options->weight_decay;
  const double step = rate * sqrt(fmax(1, (double)rows / (double)columns));
  momentum(parameters, options, gradient_scale, first, count, scratch);
  kp_orthogonalize(scratch, wide, rows, columns, options->steps, kp_element_at(scratch, wide, count));
  for (int64_t i = 0; i < count; i++)
    kp_element_set(parameters->values, wide, first + i,
                   keep * kp_element(parameters->values, wide, first + i) -
                       step * kp_element(scratch, wide, i));
}
