/* Bytes that grow.  Zero-initialise; kp_byte_buffer_clear frees them. */
#ifndef KAPPA_DATA_BYTE_BUFFER_H
#define KAPPA_DATA_BYTE_BUFFER_H

#include <stddef.h>

#include "core/error.h"

typedef struct kp_byte_buffer {
  char *data;
  size_t size, capacity;
} kp_byte_buffer;

kp_status kp_byte_buffer_append(kp_byte_buffer *buffer, const void *bytes, size_t size, kp_error *error);
void kp_byte_buffer_clear(kp_byte_buffer *buffer);

#endif
