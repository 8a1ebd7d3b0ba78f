/* The seam, forward, on rows of float: scalars in double. */
#include "backend/cuda/residual_norm_forward.cuh"

kp_status kp_seam_forward_float(const kp_call *call, const kp_seam &s, kp_error *error) {
  if (kp_seam_is_curved(s)) return kp_seam_forward_by_width<float, 4, true>(call, s, error);
  return kp_seam_forward_by_width<float, 4, false>(call, s, error);
}
