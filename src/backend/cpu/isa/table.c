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
    [KP_OP_ATTENTION] = KP_SCRATCH(attention),
    [KP_OP_ATTENTION_BACKWARD] = KP_SCRATCH(attention_backward),
    [KP_OP_ATTENTION_CACHED] = KP_SCRATCH(attention_cached),
    [KP_OP_ATTENTION_LATENT_CACHED] = KP_SCRATCH(attention_latent_cached),
    [KP_OP_CROSS_ENTROPY] = KP_SCRATCH(cross_entropy),
    [KP_OP_LINEAR_CROSS_ENTROPY] = KP_SCRATCH(linear_cross_entropy),
    [KP_OP_LINEAR_CROSS_ENTROPY_BACKWARD] = KP_SCRATCH(linear_cross_entropy_backward),
    [KP_OP_LINEAR_CROSS_ENTROPY_TRAINED] = KP_SCRATCH(linear_cross_entropy_trained),
    [KP_OP_LORENTZ_MLR] = KP_SCRATCH(lorentz_mlr),
    [KP_OP_LORENTZ_MLR_BACKWARD] = KP_SCRATCH(lorentz_mlr_backward),
    [KP_OP_RESIDUAL_NORM] = KP_SCRATCH(residual_norm),
    [KP_OP_RESIDUAL_NORM_BACKWARD] = KP_SCRATCH(residual_norm_backward),
    [KP_OP_ROW_PROGRAM] = KP_SCRATCH(row_program),
    [KP_OP_ROW_PROGRAM_BACKWARD] = KP_SCRATCH(row_program_backward),
    [KP_OP_MIDPOINT] = KP_SCRATCH(midpoint),
    [KP_OP_MIDPOINT_BACKWARD] = KP_SCRATCH(midpoint_backward),
    [KP_OP_REFERENCE] = KP_SCRATCH(reference),
    [KP_OP_REFERENCE_BACKWARD] = KP_SCRATCH(reference_backward),
    [KP_OP_SPHERE_RESIDUAL_BACKWARD] = KP_SCRATCH(sphere_residual_backward),
    [KP_OP_HEAD_NORM] = KP_SCRATCH(head_norm),
    [KP_OP_HEAD_NORM_BACKWARD] = KP_SCRATCH(head_norm_backward),
    [KP_OP_LINEAR_BACKWARD_TIME] = KP_SCRATCH(linear_backward_time),
    [KP_OP_GATED_ACTIVATION_BACKWARD] = KP_SCRATCH(gated_activation_backward),
    [KP_OP_LIFT_BACKWARD] = KP_SCRATCH(lift_backward),
    [KP_OP_HOMOTHETY_BACKWARD] = KP_SCRATCH(homothety_backward),
    [KP_OP_LORENTZ_RESIDUAL_BACKWARD] = KP_SCRATCH(lorentz_residual_backward),
    [KP_OP_ROUTE] = KP_SCRATCH(route),
    [KP_OP_BALANCE_LOSS] = KP_SCRATCH(balance_loss),
    [KP_OP_BALANCE_LOSS_BACKWARD] = KP_SCRATCH(balance_loss_backward),
    [KP_OP_GROUPED_LINEAR] = KP_SCRATCH(grouped_linear),
    [KP_OP_GROUPED_LINEAR_BACKWARD_INPUT] = KP_SCRATCH(grouped_linear_backward_input),
    [KP_OP_GROUPED_LINEAR_BACKWARD_WEIGHT] = KP_SCRATCH(grouped_linear_backward_weight),
    [KP_OP_EXPERT_COMBINE] = KP_SCRATCH(expert_combine),
    [KP_OP_EXPERT_COMBINE_BACKWARD] = KP_SCRATCH(expert_combine_backward),
};

const kp_backend KP_ISA_NAME(kp_cpu_backend) = {.name = "cpu (" TEXT_OF(KP_ISA) ")",
                                                .real_size = sizeof(float),
                                                .wide_size = sizeof(float),
                                                .kernels = kernels,
                                                .scratch = scratch};
