#include "data/byte_buffer.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static kp_status grow(kp_byte_buffer *buffer, size_t size, kp_error *error) {
  enum { LEAST = 4096 };
  size_t capacity = buffer->capacity + buffer->capacity / 2;
  if (capacity < LEAST) capacity = LEAST;
  if (size > SIZE_MAX / 2 - buffer->size)
    return kp_fail(error, KP_ERR_MEMORY, "no memory for %zu more bytes", size);
  if (capacity < buffer->size + size) capacity = buffer->size + size;
  char *grown = realloc(buffer->data, capacity);
  if (grown == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %zu bytes of text", capacity);
  buffer->data = grown;
  buffer->capacity = capacity;
  return KP_OK;
}

kp_status kp_byte_buffer_append(kp_byte_buffer *buffer, const void *bytes, size_t size, kp_error *error) {
  if (size == 0) return KP_OK;
  if (size > buffer->capacity - buffer->size) KP_TRY(grow(buffer, size, error));
  memcpy(buffer->data + buffer->size, bytes, size);
  buffer->size += size;
  return KP_OK;
}

void kp_byte_buffer_clear(kp_byte_buffer *buffer) {
  free(buffer->data);
  *buffer = (kp_byte_buffer){0};
}
