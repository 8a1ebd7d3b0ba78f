/* Instances of the forward kernel: geodesic scores. */
#define KP_GEOMETRY_FLOAT
#include "backend/cuda/attention_forward.cuh"

kp_status kp_attention_forward_geodesic(kp_tensor_work &work, cudaStream_t stream, kp_error *error) {
  return kp_forward_of_family<KP_FAMILY_GEODESIC>(work, stream, error);
}
