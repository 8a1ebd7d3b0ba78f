/* A training step behind the gradients, on the device (optim/driver.h). */
#ifndef KAPPA_BACKEND_CUDA_OPTIMIZER_H
#define KAPPA_BACKEND_CUDA_OPTIMIZER_H

#include "optim/driver.h"

#ifdef __cplusplus
extern "C" {
#endif

extern const kp_optimizer_driver kp_cuda_optimizer_driver;

#ifdef __cplusplus
}
#endif

#endif
