/* The seam, backward, on rows of bfloat16: scalars in float. */
#define KP_GEOMETRY_FLOAT
#include "backend/cuda/residual_norm_backward_launch.cuh"

kp_status kp_seam_backward_half(const kp_call *call, const kp_seam &s, kp_error *error) {
  if (kp_seam_is_curved(s)) return kp_seam_backward_by_width<kp_half, 4, true>(call, s, error);
  return kp_seam_backward_by_width<kp_half, 4, false>(call, s, error);
}
