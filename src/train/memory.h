/* The memory of a training process: what it will take, and what it takes now.
 *
 * Nearly all of it is planned: four flat buffers for the parameters (values,
 * gradients, two moments), the optimizer's scratch memory and the arena of activations.  The rest (the
 * program and its libraries, the stacks of threads, the buffers into which OpenBLAS packs matrices) depends
 * on the machine and on the sizes of the model, and is measured instead of guessed, see kp_process_bytes. */
#ifndef KAPPA_TRAIN_MEMORY_H
#define KAPPA_TRAIN_MEMORY_H

#include <stddef.h>

#include "models/model.h"

/* Bytes that a training step needs.  `total` is the announced resident memory of the process, or
 * with a device what is taken of the device's memory.  Token files
 * are mapped, not read: what is touched of them comes on top, and the system can take it back. */
typedef struct kp_memory_plan {
  size_t parameters, gradients, moments, optimizer, activations, process, total;
} kp_memory_plan;

/* The plan for a table of parameters on `backend` with so many bytes of arenas and of the optimizer's
 * scratch. */
kp_memory_plan kp_memory_plan_of(const kp_parameters *parameters, const kp_backend *backend,
                                 size_t arena_bytes, size_t optimizer_bytes, size_t process_bytes);

/* The resident memory of this process before the large buffers are made: starts the threads, lets the fast
 * backend multiply matrices of the largest sizes in `network`, and reads what is resident then. */
kp_status kp_process_bytes(const kp_network *network, const kp_backend *backend, int threads, size_t *bytes,
                           kp_error *error);

/* The resident memory of this process now, and its peak so far. */
size_t kp_resident_bytes(void);
size_t kp_peak_resident_bytes(void);

#endif
