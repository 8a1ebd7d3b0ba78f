/* Rotary position embedding (Su et al. 2021, equation 34). */
#include <string.h>

#include "backend/cpu/isa/isa.h"
#include "backend/cpu/isa/rotation.h"

size_t KP_SCRATCH(rotary)(const kp_node *node, int threads) {
  (void)threads;
  return kp_rotation_bytes(node->arguments, kp_tensor_rows(node->input[0]));
}

static int64_t stride_of(const kp_rotary_arguments *arguments) {
  return arguments->stride == 0 ? arguments->head_size : arguments->stride;
}

/* Channels of the row that no head rotates. */
static void copy_rest(const kp_rotary_arguments *arguments, const float *x, float *y, int64_t width) {
  const int64_t stride = stride_of(arguments), used = arguments->heads * stride;
  const int64_t before = arguments->offset, after = before + arguments->head_size;
  if (stride > arguments->head_size)
    for (int64_t at = 0; at < used; at += stride) {
      memcpy(y + at, x + at, (size_t)before * sizeof *y);
      memcpy(y + at + after, x + at + after, (size_t)(stride - after) * sizeof *y);
    }
  memcpy(y + used, x + used, (size_t)(width - used) * sizeof *y);
}

kp_status KP_KERNEL(rotary)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_rotary_arguments *arguments = call->node->arguments;
  const int64_t rows = kp_tensor_rows(call->node->input[0]), width = kp_tensor_columns(call->node->input[0]);
  const int64_t stride = stride_of(arguments);
  const kp_rotation rotation = kp_rotation_of(call, arguments, call->input[1], rows, call->scratch);
#pragma omp parallel for schedule(static) num_threads(kp_threads_for(call, rows *width))
  for (int64_t n = 0; n < rows; n++) {
    const float *x = (const float *)call->input[0] + n * width;
    float *y = (float *)call->output[0] + n * width;
    for (int64_t h = 0; h < arguments->heads; h++) {
      const int64_t at = h * stride + arguments->offset;
      kp_rotate_head(&rotation, n, arguments->transposed, x + at, y + at);
    }
    if (y != x) copy_rest(arguments, x, y, width);
  }
  return KP_OK;
}
