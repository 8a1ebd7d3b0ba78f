/* Instances of the backward kernels: Lorentz scores. */
#define KP_GEOMETRY_FLOAT
#include "backend/cuda/attention_backward.cuh"

kp_status kp_attention_backward_lorentz(kp_tensor_work &work, cudaStream_t stream, kp_error *error) {
  return kp_backward_of_family<KP_FAMILY_LORENTZ>(work, stream, error);
}
