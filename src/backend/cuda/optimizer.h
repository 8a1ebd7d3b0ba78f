/* A training step behind the gradients, on the device. */
#ifndef KAPPA_BACKEND_CUDA_OPTIMIZER_H
#define KAPPA_BACKEND_CUDA_OPTIMIZER_H

/* optim/driver.h has it: the optimizer's files stand above the rest of this folder. */
extern const struct kp_optimizer_driver kp_cuda_optimizer_driver;

#endif
