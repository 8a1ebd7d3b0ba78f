/* The cuda backend's rows of the operator table. */
#include "backend/cuda/table.h"

#include "backend/operators.h"

#define KP_OPERATOR(ENUM, name, differentiable, inplace_output, inplace_input)                               \
  kp_status kp_cuda_##name(const kp_call *call, kp_error *error) __attribute__((weak));                      \
  size_t kp_cuda_scratch_##name(const kp_node *node, int threads) __attribute__((weak));
#include "backend/operators.def"
#undef KP_OPERATOR

const kp_kernel kp_cuda_kernels[KP_OP_COUNT] = {
#define KP_OPERATOR(ENUM, name, differentiable, inplace_output, inplace_input)                               \
  [KP_OP_##ENUM] = kp_cuda_##name,
#include "backend/operators.def"
#undef KP_OPERATOR
};

/* Not every kernel needs scratch memory: where no function is linked the entry is NULL. */
const kp_scratch_size kp_cuda_scratch[KP_OP_COUNT] = {
#define KP_OPERATOR(ENUM, name, differentiable, inplace_output, inplace_input)                               \
  [KP_OP_##ENUM] = kp_cuda_scratch_##name,
#include "backend/operators.def"
#undef KP_OPERATOR
};
