/* What a device does itself of a training step: everything behind the gradients.
 *
 * A step on a device is submitted and not waited for.  So the device decides whether it is taken: a step
 * whose loss or gradient norm is not finite leaves parameters and moments as they are and is counted.
 *
 * The order of a step: `prepare`; then for each micro-batch its graph and `add_loss`; then `submit`.  All but
 * `prepare` and `outcome` can be recorded. */
#ifndef KAPPA_OPTIM_DRIVER_H
#define KAPPA_OPTIM_DRIVER_H

#include "optim/optimizer.h"

typedef struct kp_step_outcome {
  double loss, norm; /* of the last step: its mean loss and the norm of all gradients */
  int64_t taken;     /* steps taken so far: the t of Adam's corrections */
  int64_t skipped, skipped_in_a_row;
} kp_step_outcome;

typedef struct kp_optimizer_driver {
  kp_status (*create)(kp_parameters *parameters, const kp_optimizer_options *options, void **driver,
                      kp_error *error);
  void (*destroy)(void *driver);
  /* Bytes of device memory that `create` takes. */
  size_t (*scratch_bytes)(const kp_parameters *parameters, const kp_optimizer_options *options);
  /* The next step's learning rates are times `rate_factor`; gradients of a norm above `clip` are scaled down
   * to it (0: never). */
  kp_status (*prepare)(void *driver, double rate_factor, double clip, kp_error *error);
  /* Adds weight · loss (one float in device memory) to the step's loss. */
  kp_status (*add_loss)(void *driver, const void *loss, double weight, kp_error *error);
  /* The norm, the decision, the step of all parameters, their narrow copies; afterwards all gradients and the
   * step's loss are zero. */
  kp_status (*submit)(void *driver, kp_error *error);
  /* After reading a checkpoint: the counts go on from there. */
  kp_status (*resume)(void *driver, const kp_step_outcome *outcome, kp_error *error);
  /* Waits for all that was submitted. */
  kp_status (*outcome)(void *driver, kp_step_outcome *outcome, kp_error *error);
} kp_optimizer_driver;

#endif
