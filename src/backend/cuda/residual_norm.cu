/* RESIDUAL_NORM and RESIDUAL_NORM_BACKWARD: which kernel takes a call. */
#include "backend/cuda/seam_warp_curved.cuh"

extern "C" size_t kp_cuda_scratch_residual_norm(const kp_node *node, int threads) {
  (void)node, (void)threads;
  return KP_SEAM_MOST_BLOCKS * sizeof(int); /* events of each block */
}

extern "C" kp_status kp_cuda_residual_norm(const kp_call *call, kp_error *error) {
  const kp_seam s = kp_seam_of(call);
  if (call->output[1] != NULL && kp_seam_is_plain(call, s)) return kp_seam_plain_forward(call, s, error);
  if (!kp_seam_is_curved(s))
    KP_TRY(kp_cuda_check(cudaMemsetAsync(call->output[3], 0, sizeof(float), kp_cuda_of(call)->stream),
                         "residual_norm", error));
  if (kp_seam_fits_warps_forward(call, s)) return kp_seam_warps_forward(call, s, error);
  return kp_is_half(call) ? kp_seam_forward_half(call, s, error) : kp_seam_forward_float(call, s, error);
}

extern "C" size_t kp_cuda_scratch_residual_norm_backward(const kp_node *node, int threads) {
  (void)threads;
  kp_call shapes = {};
  shapes.node = node;
  const kp_seam s = kp_seam_of(&shapes);
  return kp_seam_columns_size(s) * sizeof(float) +
         (size_t)s.rows * (size_t)(s.update_kappa.groups + s.tangent_kappa.groups) * sizeof(double);
}

extern "C" kp_status kp_cuda_residual_norm_backward(const kp_call *call, kp_error *error) {
  const kp_seam s = kp_seam_of(call);
  if (call->input[11] != NULL && kp_seam_is_plain(call, s)) return kp_seam_plain_backward(call, s, error);
  if (kp_seam_fits_warps_backward(call, s)) return kp_seam_warps_backward(call, s, error);
  return kp_is_half(call) ? kp_seam_backward_half(call, s, error) : kp_seam_backward_float(call, s, error);
}
