#ifndef KAPPA_BACKEND_CUDA_TABLE_H
#define KAPPA_BACKEND_CUDA_TABLE_H

#include "core/backend.h"

/* By operation. */
extern const kp_kernel kp_cuda_kernels[];
extern const kp_scratch_size kp_cuda_scratch[];

/* kp_backend.several (chain.cu). */
kp_status kp_cuda_several(const kp_call *calls, int count, int *done, kp_error *error);

extern const struct kp_picking_driver kp_cuda_picking_driver;

#endif
