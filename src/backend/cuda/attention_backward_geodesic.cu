/* Instances of the backward kernels: geodesic scores. */
#define KP_GEOMETRY_FLOAT
#include "backend/cuda/attention_backward.cuh"

kp_status kp_attention_backward_geodesic(kp_tensor_work &work, cudaStream_t stream, kp_error *error) {
  return kp_backward_of_family<KP_FAMILY_GEODESIC>(work, stream, error);
}
