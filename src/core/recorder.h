/* Work that is submitted to a device the same way each time: submitted as it is at first (kernels measure and
 * choose then), recorded the second time, and from then on replayed, which spares the host the launches.  On
 * the host's own memory it is simply done each time. */
#ifndef KAPPA_CORE_RECORDER_H
#define KAPPA_CORE_RECORDER_H

#include "core/backend.h"

typedef kp_status kp_recorded_work(void *context, kp_error *error);

typedef struct kp_recorder {
  int runs;
  kp_device_recording *recording;
} kp_recorder;

kp_status kp_recorder_run(kp_recorder *recorder, const kp_backend *backend, kp_recorded_work *work,
                          void *context, kp_error *error);
/* Forgets the recording: what it refers to has moved. */
void kp_recorder_clear(kp_recorder *recorder, const kp_backend *backend);

#endif
