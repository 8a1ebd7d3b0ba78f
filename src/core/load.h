/* What a device does itself of the load of experts (train/expert_load.h): nothing waits for counts. */
#ifndef KAPPA_CORE_LOAD_H
#define KAPPA_CORE_LOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "core/device.h"

/* All memory is the device's; work is submitted and not waited for. */
typedef struct kp_load_driver {
  /* sums[i] += counts[i] for all i below `count`. */
  kp_status (*add)(kp_device *device, double *sums, const int32_t *counts, int64_t count, kp_error *error);
  /* Moves `bias` by the sums as kp_balance_update of models/balance.h does, to the same bits; `by_sign`: by
   * the sign of what is missing. */
  kp_status (*balance)(kp_device *device, float *bias, const double *sums, int64_t experts, double speed,
                       bool by_sign, kp_error *error);
} kp_load_driver;

#endif
