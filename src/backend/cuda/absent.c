/* The cuda backend of a build without the CUDA toolkit: there is none. */
#include <string.h>

#include "backend/cuda/cuda.h"

bool kp_cuda_built(void) {
  return false;
}

int kp_cuda_device_count(void) {
  return 0;
}

static kp_status absent(kp_error *error) {
  return kp_fail(error, KP_ERR_UNSUPPORTED,
                 "this program was built without CUDA: install the CUDA toolkit (12.4 or later) and build it "
                 "again, or use --device cpu");
}

kp_status kp_backend_cuda_open(int index, kp_cuda_precision precision, const kp_backend **backend,
                               kp_error *error) {
  (void)index;
  (void)precision;
  *backend = NULL;
  return absent(error);
}

void kp_backend_cuda_close(const kp_backend *backend) {
  (void)backend;
}

kp_status kp_cuda_measure_limits(const kp_backend *backend, double *copy_rate, double *product_rate,
                                 kp_error *error) {
  (void)backend;
  *copy_rate = *product_rate = 0;
  return absent(error);
}

kp_status kp_cuda_describe(int index, kp_cuda_device_description *description, kp_error *error) {
  (void)index;
  memset(description, 0, sizeof *description);
  return absent(error);
}
