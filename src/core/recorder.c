#include "core/recorder.h"

static kp_status record(kp_recorder *recorder, kp_device *device, kp_recorded_work *work, void *context,
                        kp_error *error) {
  KP_TRY(device->record_begin(device, error));
  const kp_status status = work(context, error);
  if (status == KP_OK) return device->record_end(device, &recorder->recording, error);
  device->record_end(device, NULL, NULL);
  return status;
}

kp_status kp_recorder_run(kp_recorder *recorder, const kp_backend *backend, kp_recorded_work *work,
                          void *context, kp_error *error) {
  if (backend->device == NULL || recorder->runs++ == 0) return work(context, error);
  if (recorder->recording == NULL) KP_TRY(record(recorder, backend->device, work, context, error));
  return backend->device->replay(backend->device, recorder->recording, error);
}

void kp_recorder_clear(kp_recorder *recorder, const kp_backend *backend) {
  if (recorder->recording != NULL) backend->device->forget(backend->device, recorder->recording);
  *recorder = (kp_recorder){0};
}
