/* The seam, backward, on rows of float: scalars in double. */
#include "backend/cuda/residual_norm_backward_launch.cuh"

kp_status kp_seam_backward_float(const kp_call *call, const kp_seam &s, kp_error *error) {
  if (kp_seam_is_curved(s)) return kp_seam_backward_by_width<float, 2, true>(call, s, error);
  return kp_seam_backward_by_width<float, 2, false>(call, s, error);
}
