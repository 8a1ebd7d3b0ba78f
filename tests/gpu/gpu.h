/* The GPU that the tests of this folder run on. */
#ifndef KAPPA_TESTS_GPU_H
#define KAPPA_TESTS_GPU_H

#include "backend/cuda/cuda.h"
#include "support/check.h"

/* Fails the running test without one. */
static inline const kp_backend *gpu_open(kp_cuda_precision precision) {
  const kp_backend *backend;
  kp_error error = {0};
  check_ok(kp_backend_cuda_open(0, precision, &backend, &error), &error);
  return backend;
}

#endif
