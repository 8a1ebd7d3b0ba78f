/* Row programs on rows of bfloat16: scalars in float. */
#define KP_GEOMETRY_FLOAT
#include "backend/cuda/row_program.cuh"

kp_status kp_row_forward_half(const kp_call *call, kp_error *error) {
  return kp_row_forward<kp_half, 4>(call, error);
}

kp_status kp_row_backward_half(const kp_call *call, kp_error *error) {
  return kp_row_backward<kp_half, 2>(call, error);
}
