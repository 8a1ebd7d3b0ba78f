/* A device with memory of its own: what the core needs of it.
 *
 * Work on a device is a queue: kernels and copies happen in the order in which they were submitted, and a
 * submitting call may return before they are done.  `read` and `wait` wait for all that was submitted.
 *
 * Work that is submitted again and again the same way can be recorded: everything submitted between
 * record_begin and record_end is kept and not run; `replay` then submits all of it at once.  Memory that
 * recorded work refers to must stay where it is. */
#ifndef KAPPA_CORE_DEVICE_H
#define KAPPA_CORE_DEVICE_H

#include <stddef.h>

#include "core/error.h"

typedef struct kp_device kp_device;
typedef struct kp_device_recording kp_device_recording;

struct kp_device {
  /* Zeroed memory, aligned to 256 bytes.  `what` and the size go into the error message. */
  kp_status (*allocate)(kp_device *device, size_t bytes, const char *what, void **memory, kp_error *error);
  void (*release)(kp_device *device, void *memory);
  /* From and to the host's memory.  After `write` the host's memory may be changed. */
  kp_status (*write)(kp_device *device, void *to, const void *host, size_t bytes, kp_error *error);
  kp_status (*read)(kp_device *device, void *host, const void *from, size_t bytes, kp_error *error);
  /* Memory of the host that copies of the device reach without a detour: page-locked. */
  kp_status (*host_allocate)(kp_device *device, size_t bytes, const char *what, void **memory,
                             kp_error *error);
  void (*host_release)(kp_device *device, void *memory);
  kp_status (*fill)(kp_device *device, void *memory, int byte, size_t bytes, kp_error *error);
  /* float32 to bfloat16, `count` elements from one place of the device's memory to another. */
  kp_status (*narrow)(kp_device *device, void *bf16, const void *f32, size_t count, kp_error *error);
  /* Waits, and reports what went wrong in work that was submitted before. */
  kp_status (*wait)(kp_device *device, kp_error *error);
  size_t (*free_bytes)(kp_device *device);
  /* The device's own time between the two, in the order of the queue; stopping waits. */
  kp_status (*timer_start)(kp_device *device, kp_error *error);
  kp_status (*timer_stop)(kp_device *device, double *seconds, kp_error *error);
  /* The counters of a run's random numbers, for the work that is submitted from here on. */
  kp_status (*set_step)(kp_device *device, unsigned long long seed, unsigned long long step, kp_error *error);
  kp_status (*record_begin)(kp_device *device, kp_error *error);
  /* After a failure of what was to be recorded, `recording` may be NULL: it is thrown away. */
  kp_status (*record_end)(kp_device *device, kp_device_recording **recording, kp_error *error);
  kp_status (*replay)(kp_device *device, kp_device_recording *recording, kp_error *error);
  void (*forget)(kp_device *device, kp_device_recording *recording);
};

#endif
