/* Attention for compute capability 9.0 in bfloat16: kernels that attention.cu asks before its own. */
#ifndef KAPPA_BACKEND_CUDA_ATTENTION_HOPPER_H
#define KAPPA_BACKEND_CUDA_ATTENTION_HOPPER_H

#include "backend/cuda/kernel.cuh"

/* Whether the call can be done here: the device, the width, heads of at most 128 channels in sequences
 * of a tile or more (or of just 64 or 128 channels), plain means of any score or Lorentz centroids of the
 * Lorentz score. */
extern "C" bool kp_hopper_attention_fits(const kp_call *call);
extern "C" bool kp_hopper_attention_backward_fits(const kp_call *call);

extern "C" size_t kp_hopper_attention_scratch(const kp_node *node);
extern "C" size_t kp_hopper_attention_backward_scratch(const kp_node *node);

extern "C" kp_status kp_hopper_attention(const kp_call *call, kp_error *error);
extern "C" kp_status kp_hopper_attention_backward(const kp_call *call, kp_error *error);

#endif
