/* One training step after another, on the host or on a device: what stands between the gradients and the
 * trainer.
 *
 * A step: kp_stepper_begin; for each micro-batch its graph and kp_stepper_add_loss; kp_stepper_submit.  A
 * step whose loss or gradient norm is not finite changes no parameter and is counted.  On a device nothing
 * waits until kp_stepper_outcome asks how it went. */
#ifndef KAPPA_OPTIM_STEPPER_H
#define KAPPA_OPTIM_STEPPER_H

#include "optim/driver.h"

typedef struct kp_stepper kp_stepper;

/* Of `parameters`, allocated for training, which must outlive it.  0 threads are all processors. */
kp_status kp_stepper_create(kp_parameters *parameters, const kp_optimizer_options *options, int threads,
                            kp_stepper **stepper, kp_error *error);
void kp_stepper_destroy(kp_stepper *stepper);

/* Bytes that it takes in the backend's memory. */
size_t kp_stepper_scratch_bytes(const kp_parameters *parameters, const kp_optimizer_options *options,
                                const kp_backend *backend, int threads);

/* Whether asking for the outcome waits for a device: then it is better not asked for after every step. */
bool kp_stepper_is_asynchronous(const kp_stepper *stepper);

/* Gradients are zero afterwards.  Learning rates are times `rate_factor`; gradients longer than `clip` are
 * scaled down to it (0: never). */
kp_status kp_stepper_begin(kp_stepper *stepper, double rate_factor, double clip, kp_error *error);
/* Adds weight · loss, one number in the backend's memory. */
kp_status kp_stepper_add_loss(kp_stepper *stepper, const void *loss, double weight, kp_error *error);
kp_status kp_stepper_submit(kp_stepper *stepper, kp_error *error);
/* Of the last step that was submitted. */
kp_status kp_stepper_outcome(kp_stepper *stepper, kp_step_outcome *outcome, kp_error *error);
/* Counts go on from there. */
kp_status kp_stepper_resume(kp_stepper *stepper, const kp_step_outcome *outcome, kp_error *error);

#endif
