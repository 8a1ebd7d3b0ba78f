#include "optim/stepper.h"

#include <math.h>
#include <stdlib.h>

#include "core/assert.h"
#include "core/memory.h"
#include "core/recorder.h"

struct kp_stepper {
  kp_parameters *parameters;
  int threads;
  kp_optimizer *optimizer; /* of the host */
  double rate_factor, clip;
  kp_step_outcome outcome;
  const kp_optimizer_driver *driver; /* of a device; NULL on the host */
  void *device;
  kp_recorder recorder;
};

kp_status kp_stepper_create(kp_parameters *parameters, const kp_optimizer_options *options, int threads,
                            kp_stepper **result, kp_error *error) {
  kp_stepper *s = calloc(1, sizeof *s);
  kp_assert(s != NULL, "out of memory");
  s->parameters = parameters;
  s->threads = threads;
  s->driver = parameters->backend->optimizer;
  kp_optimizer_name_moments(parameters, options);
  const kp_status status = s->driver != NULL
                               ? s->driver->create(parameters, options, &s->device, error)
                               : kp_optimizer_create(parameters, options, threads, &s->optimizer, error);
  *result = s;
  if (status == KP_OK) return KP_OK;
  kp_stepper_destroy(s);
  *result = NULL;
  return status;
}

void kp_stepper_destroy(kp_stepper *s) {
  if (s == NULL) return;
  kp_recorder_clear(&s->recorder, s->parameters->backend);
  if (s->driver != NULL && s->device != NULL) s->driver->destroy(s->device);
  kp_optimizer_destroy(s->optimizer);
  free(s);
}

size_t kp_stepper_scratch_bytes(const kp_parameters *parameters, const kp_optimizer_options *options,
                                const kp_backend *backend, int threads) {
  return backend->optimizer != NULL ? backend->optimizer->scratch_bytes(parameters, options)
                                    : kp_optimizer_scratch_bytes(parameters, options, backend, threads);
}

bool kp_stepper_is_asynchronous(const kp_stepper *s) {
  return s->driver != NULL;
}

kp_status kp_stepper_begin(kp_stepper *s, double rate_factor, double clip, kp_error *error) {
  if (s->driver != NULL) return s->driver->prepare(s->device, rate_factor, clip, error);
  s->rate_factor = rate_factor;
  s->clip = clip;
  s->outcome.loss = 0;
  kp_gradient_zero(s->parameters, s->threads);
  return KP_OK;
}

kp_status kp_stepper_add_loss(kp_stepper *s, const void *loss, double weight, kp_error *error) {
  if (s->driver != NULL) return s->driver->add_loss(s->device, loss, weight, error);
  s->outcome.loss += weight * kp_number_at(loss, s->parameters->backend->wide_size, 0);
  return KP_OK;
}

static kp_status submit_to_device(void *context, kp_error *error) {
  kp_stepper *s = context;
  return s->driver->submit(s->device, error);
}

kp_status kp_stepper_submit(kp_stepper *s, kp_error *error) {
  kp_step_outcome *o = &s->outcome;
  if (s->driver != NULL)
    return kp_recorder_run(&s->recorder, s->parameters->backend, submit_to_device, s, error);
  o->norm = kp_gradient_norm(s->parameters, s->threads);
  if (!isfinite(o->loss) || !isfinite(o->norm)) {
    o->skipped++;
    o->skipped_in_a_row++;
    return KP_OK;
  }
  o->skipped_in_a_row = 0;
  kp_optimizer_step(s->optimizer, ++o->taken, s->rate_factor, kp_clip_factor(s->clip, o->norm));
  return KP_OK;
}

kp_status kp_stepper_outcome(kp_stepper *s, kp_step_outcome *outcome, kp_error *error) {
  if (s->driver != NULL) {
    KP_TRY(s->driver->outcome(s->device, outcome, error));
    return s->parameters->backend->device->wait(s->parameters->backend->device, error);
  }
  *outcome = s->outcome;
  return KP_OK;
}

kp_status kp_stepper_resume(kp_stepper *s, const kp_step_outcome *outcome, kp_error *error) {
  if (s->driver != NULL) return s->driver->resume(s->device, outcome, error);
  s->outcome = *outcome;
  return KP_OK;
}
