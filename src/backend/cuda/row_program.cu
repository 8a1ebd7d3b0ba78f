/* ROW_PROGRAM and ROW_PROGRAM_BACKWARD, and their kernels on rows of float: scalars in double. */
#include "backend/cuda/row_program.cuh"

extern "C" kp_status kp_cuda_row_program(const kp_call *call, kp_error *error) {
  return kp_is_half(call) ? kp_row_forward_half(call, error) : kp_row_forward<float, 2>(call, error);
}

/* The gradient of κ of each row and group. */
extern "C" size_t kp_cuda_scratch_row_program_backward(const kp_node *node, int threads) {
  (void)threads;
  const kp_tensor *curvature = node->input[3];
  const int64_t groups = curvature == NULL ? 1 : kp_tensor_columns(curvature);
  return (size_t)(kp_tensor_rows(node->input[0]) * groups) * sizeof(double);
}

extern "C" kp_status kp_cuda_row_program_backward(const kp_call *call, kp_error *error) {
  return kp_is_half(call) ? kp_row_backward_half(call, error) : kp_row_backward<float, 2>(call, error);
}
