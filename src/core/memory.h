/* Memory of a backend, which may be a device's, and numbers in it.
 *
 * Numbers are doubles (8 bytes), floats (4) or bfloat16 (2); matrices may have padded rows. */
#ifndef KAPPA_CORE_MEMORY_H
#define KAPPA_CORE_MEMORY_H

#include "core/backend.h"

/* A large zeroed buffer; `what` and the size go into the error message.  A size of 0 gives a valid pointer.
 */
kp_status kp_memory_create(const kp_backend *backend, size_t bytes, const char *what, void **memory,
                           kp_error *error);
/* `backend` may be NULL when `memory` is. */
void kp_memory_destroy(const kp_backend *backend, void *memory);

/* Memory of the host that is read into again and again; a device's copies reach it without a detour. */
kp_status kp_host_memory_create(const kp_backend *backend, size_t bytes, const char *what, void **memory,
                                kp_error *error);
void kp_host_memory_destroy(const kp_backend *backend, void *memory);

/* From and to the host's memory. */
kp_status kp_memory_write(const kp_backend *backend, void *to, const void *host, size_t bytes,
                          kp_error *error);
kp_status kp_memory_read(const kp_backend *backend, void *host, const void *from, size_t bytes,
                         kp_error *error);
kp_status kp_memory_fill(const kp_backend *backend, void *memory, int byte, size_t bytes, kp_error *error);

/* A matrix in a backend's memory: `rows` rows of `columns` numbers of `size` bytes, `pitch` numbers from one
 * row to the next. */
typedef struct kp_matrix {
  void *memory;
  int64_t rows, columns, pitch;
  size_t size;
} kp_matrix;

/* Converting copies of rows · columns numbers, dense on the host.  Writing puts zeros into the padding.  What
 * cannot be read from a device that has failed is NaN. */
void kp_matrix_read(const kp_backend *backend, kp_matrix matrix, double *host);
void kp_matrix_write(const kp_backend *backend, kp_matrix matrix, const double *host);

/* Number `i` of packed numbers of `size` bytes on the host. */
double kp_number_at(const void *numbers, size_t size, int64_t i);
void kp_number_set(void *numbers, size_t size, int64_t i, double value);
/* All of them. */
void kp_numbers_widen(const void *numbers, size_t size, int64_t count, double *host);

#endif
