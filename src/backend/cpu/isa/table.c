/* The backend of one instruction set: the operator table's rows, each with its kernel. */
#include "backend/cpu/isa/isa.h"

#define TEXT(name)     #name
#define TEXT_OF(macro) TEXT(macro)

static const kp_kernel kernels[KP_OP_COUNT] = {
#define KP_OPERATOR(ENUM, name, differentiable, inplace_output, inplace_input)                               \
  [KP_OP_##ENUM] = KP_KERNEL(name),
#include "backend/operators.def"
#undef KP_OPERATOR
};

static const kp_scratch_size scratch[KP_OP_COUNT] = {
    [KP_OP_LINEAR_BACKWARD_WEIGHT] = KP_SCRATCH(linear_backward_weight),
    [KP_OP_ROTARY] = KP_SCRATCH(rotary),
    [KP_OP_CROSS_ENTROPY] = KP_SCRATCH(cross_entropy),
};

const kp_backend KP_ISA_NAME(kp_cpu_backend) = {
    .name = "cpu (" TEXT_OF(KP_ISA) ")", .real_size = sizeof(float), .kernels = kernels, .scratch = scratch};
