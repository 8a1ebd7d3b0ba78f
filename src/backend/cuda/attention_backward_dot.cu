/* Instances of the backward kernels: dot products. */
#define KP_GEOMETRY_FLOAT
#include "backend/cuda/attention_backward.cuh"

kp_status kp_attention_backward_dot(kp_tensor_work &work, cudaStream_t stream, kp_error *error) {
  return kp_backward_of_family<KP_FAMILY_DOT>(work, stream, error);
}
