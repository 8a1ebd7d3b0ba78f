/* The cuda backend: NVIDIA GPUs from compute capability 8.0 on.
 *
 * One backend is one device and one precision: float32, or bfloat16 with float32 sums, statistics, gradients,
 * master parameters and moments.  A program built without the CUDA toolkit has these functions too; there,
 * opening a device is an error that says so. */
#ifndef KAPPA_BACKEND_CUDA_H
#define KAPPA_BACKEND_CUDA_H

#include "core/backend.h"

typedef enum kp_cuda_precision { KP_CUDA_FLOAT32, KP_CUDA_BFLOAT16 } kp_cuda_precision;

/* Opens device `index`.  Close with kp_backend_cuda_close when nothing of it is used any more. */
kp_status kp_backend_cuda_open(int index, kp_cuda_precision precision, const kp_backend **backend,
                               kp_error *error);
void kp_backend_cuda_close(const kp_backend *backend);

/* The number of devices that this program could open: 0 without a driver or without CUDA in this build. */
int kp_cuda_device_count(void);
bool kp_cuda_built(void);

typedef struct kp_cuda_device_description {
  char name[256];
  int major, minor; /* compute capability */
  int processors;   /* streaming multiprocessors */
  size_t memory_bytes, free_bytes;
  int driver, runtime; /* versions as CUDA numbers them: 13000 is 13.0 */
} kp_cuda_device_description;

kp_status kp_cuda_describe(int index, kp_cuda_device_description *description, kp_error *error);

/* Measured on an open backend: bytes read and written a second by a large copy, and operations a second of an
 * 8192 x 8192 x 8192 product in the backend's precision. */
kp_status kp_cuda_measure_limits(const kp_backend *backend, double *copy_rate, double *product_rate,
                                 kp_error *error);

#endif
