#include "core/memory.h"

#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "core/half.h"

kp_status kp_memory_create(const kp_backend *backend, size_t bytes, const char *what, void **memory,
                           kp_error *error) {
  if (backend->device == NULL) return kp_buffer_create(bytes, what, memory, error);
  return backend->device->allocate(backend->device, bytes, what, memory, error);
}

void kp_memory_destroy(const kp_backend *backend, void *memory) {
  if (memory == NULL) return;
  if (backend->device == NULL)
    kp_buffer_destroy(memory);
  else
    backend->device->release(backend->device, memory);
}

kp_status kp_host_memory_create(const kp_backend *backend, size_t bytes, const char *what, void **memory,
                                kp_error *error) {
  if (backend->device == NULL) return kp_buffer_create(bytes, what, memory, error);
  return backend->device->host_allocate(backend->device, bytes, what, memory, error);
}

void kp_host_memory_destroy(const kp_backend *backend, void *memory) {
  if (memory == NULL) return;
  if (backend->device == NULL)
    kp_buffer_destroy(memory);
  else
    backend->device->host_release(backend->device, memory);
}

kp_status kp_memory_write(const kp_backend *backend, void *to, const void *host, size_t bytes,
                          kp_error *error) {
  if (backend->device != NULL) return backend->device->write(backend->device, to, host, bytes, error);
  if (bytes > 0) memcpy(to, host, bytes);
  return KP_OK;
}

kp_status kp_memory_read(const kp_backend *backend, void *host, const void *from, size_t bytes,
                         kp_error *error) {
  if (backend->device != NULL) return backend->device->read(backend->device, host, from, bytes, error);
  if (bytes > 0) memcpy(host, from, bytes);
  return KP_OK;
}

kp_status kp_memory_fill(const kp_backend *backend, void *memory, int byte, size_t bytes, kp_error *error) {
  if (backend->device != NULL) return backend->device->fill(backend->device, memory, byte, bytes, error);
  memset(memory, byte, bytes);
  return KP_OK;
}

double kp_number_at(const void *numbers, size_t size, int64_t i) {
  if (size == sizeof(double)) return ((const double *)numbers)[i];
  if (size == sizeof(float)) return (double)((const float *)numbers)[i];
  return (double)kp_float_from_bf16(((const uint16_t *)numbers)[i]);
}

void kp_number_set(void *numbers, size_t size, int64_t i, double value) {
  if (size == sizeof(double))
    ((double *)numbers)[i] = value;
  else if (size == sizeof(float))
    ((float *)numbers)[i] = (float)value;
  else
    ((uint16_t *)numbers)[i] = kp_bf16_from_float((float)value);
}

/* A loop for each width, so that each can be vectors. */
void kp_numbers_widen(const void *numbers, size_t size, int64_t count, double *host) {
  if (size == sizeof(double)) {
    memcpy(host, numbers, (size_t)count * sizeof(double));
  } else if (size == sizeof(float)) {
    for (int64_t i = 0; i < count; i++) host[i] = (double)((const float *)numbers)[i];
  } else {
    for (int64_t i = 0; i < count; i++) host[i] = (double)kp_float_from_bf16(((const uint16_t *)numbers)[i]);
  }
}

static size_t matrix_bytes(kp_matrix m) {
  return (size_t)(m.rows * m.pitch) * m.size;
}

/* A copy of a device's matrix on the host; the host's own matrix is used where it is. */
static void *on_host(const kp_backend *backend, kp_matrix m) {
  if (backend->device == NULL) return m.memory;
  void *copy = malloc(matrix_bytes(m) + 1);
  kp_assert(copy != NULL, "out of memory for a copy of device memory (%zu bytes)", matrix_bytes(m));
  return copy;
}

void kp_matrix_read(const kp_backend *backend, kp_matrix m, double *host) {
  void *copy = on_host(backend, m);
  if (copy != m.memory && kp_memory_read(backend, copy, m.memory, matrix_bytes(m), NULL) != KP_OK)
    memset(copy, 0xff, matrix_bytes(m)); /* all bits set is a NaN in every width */
  for (int64_t row = 0; row < m.rows; row++)
    kp_numbers_widen((const char *)copy + (size_t)(row * m.pitch) * m.size, m.size, m.columns,
                     host + row * m.columns);
  if (copy != m.memory) free(copy);
}

void kp_matrix_write(const kp_backend *backend, kp_matrix m, const double *host) {
  void *copy = on_host(backend, m);
  for (int64_t row = 0; row < m.rows; row++)
    for (int64_t c = 0; c < m.pitch; c++)
      kp_number_set(copy, m.size, row * m.pitch + c, c < m.columns ? host[row * m.columns + c] : 0);
  if (copy == m.memory) return;
  kp_memory_write(backend, m.memory, copy, matrix_bytes(m), NULL);
  free(copy);
}
