/* The load of experts on the device. */
#ifndef KAPPA_BACKEND_CUDA_EXPERT_LOAD_H
#define KAPPA_BACKEND_CUDA_EXPERT_LOAD_H

struct kp_load_driver;

extern const struct kp_load_driver kp_cuda_load_driver;

#endif
