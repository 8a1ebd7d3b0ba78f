/* Scalars for TensorBoard: an event file that grows by one record a value.
 *
 * The file is a TFRecord file of Event messages (tensorflow/core/util/event.proto):
 *
 *   8 bytes  length of the message, little endian
 *   4 bytes  masked CRC-32C of those 8
 *   n bytes  Event, protobuf
 *   4 bytes  masked CRC-32C of the n
 *
 * Each record is appended with one write.  A record that a crash tore is cut
 * off when the file is opened again. */
#ifndef KAPPA_CORE_TENSORBOARD_H
#define KAPPA_CORE_TENSORBOARD_H

#include "core/error.h"

#include <stdint.h>

typedef struct kp_tensorboard kp_tensorboard;

/* Opens the event file of a folder that exists: it is created, or continued
 * when it is there.  `first_step` is the first step that will be written; a
 * continued file gets a session-start event with it, which tells TensorBoard
 * to forget what a previous attempt wrote from that step on.  The caller ends
 * with kp_tensorboard_close. */
kp_status kp_tensorboard_open(const char *folder, int64_t first_step, kp_tensorboard **board,
                              kp_error *error);

/* Appends one value, with the present time.  step >= 0; not-a-number and
 * infinity are shown as such. */
kp_status kp_tensorboard_scalar(kp_tensorboard *board, const char *tag, float value, int64_t step,
                                kp_error *error);

/* Frees; every value is in the file already.  NULL is allowed. */
void kp_tensorboard_close(kp_tensorboard *board);

#endif
