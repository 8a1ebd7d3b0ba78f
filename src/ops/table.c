/* The operator table and the reference backend, generated from backend/operators.def. */
#include <assert.h>

#include "ops/rules.h"

static_assert((int)KP_OP_ADD == (int)KP_OPERATION_ADD && (int)KP_OP_ZERO == (int)KP_OPERATION_ZERO,
              "differentiation itself emits the first two operators");

#define GRADIENT(name)    kp_backward_##name
#define NO_GRADIENT(name) NULL
const kp_operator kp_operator_table[KP_OP_COUNT] = {
#define KP_OPERATOR(ENUM, name, differentiable, inplace_output, inplace_input)                               \
  [KP_OP_##ENUM] = {#name, differentiable(name), inplace_output, inplace_input},
#include "backend/operators.def"
#undef KP_OPERATOR
};

static const kp_kernel ref_kernels[KP_OP_COUNT] = {
#define KP_OPERATOR(ENUM, name, differentiable, inplace_output, inplace_input) [KP_OP_##ENUM] = kp_ref_##name,
#include "backend/operators.def"
#undef KP_OPERATOR
};

static const kp_scratch_size ref_scratch[KP_OP_COUNT] = {
    [KP_OP_ATTENTION] = kp_ref_scratch_attention,
    [KP_OP_ATTENTION_BACKWARD] = kp_ref_scratch_attention,
    [KP_OP_ATTENTION_CACHED] = kp_ref_scratch_attention,
    [KP_OP_LINEAR_CROSS_ENTROPY] = kp_ref_scratch_linear_cross_entropy,
    [KP_OP_LINEAR_CROSS_ENTROPY_BACKWARD] = kp_ref_scratch_linear_cross_entropy,
    [KP_OP_LINEAR_CROSS_ENTROPY_TRAINED] = kp_ref_scratch_linear_cross_entropy,
    [KP_OP_ATTENTION_LATENT_CACHED] = kp_ref_scratch_attention_latent,
    [KP_OP_RESIDUAL_NORM] = kp_ref_scratch_residual_norm,
    [KP_OP_RESIDUAL_NORM_BACKWARD] = kp_ref_scratch_residual_norm,
    [KP_OP_MIDPOINT] = kp_ref_scratch_midpoint,
    [KP_OP_MIDPOINT_BACKWARD] = kp_ref_scratch_midpoint,
    [KP_OP_REFERENCE] = kp_ref_scratch_reference,
    [KP_OP_REFERENCE_BACKWARD] = kp_ref_scratch_reference,
    [KP_OP_EXPERT_COMBINE] = kp_ref_scratch_expert_combine,
    [KP_OP_EXPERT_COMBINE_BACKWARD] = kp_ref_scratch_expert_combine,
    [KP_OP_HEAD_NORM_BACKWARD] = kp_ref_scratch_head_norm_backward,
    [KP_OP_SPHERE_RESIDUAL] = kp_ref_scratch_sphere_residual,
    [KP_OP_SPHERE_RESIDUAL_BACKWARD] = kp_ref_scratch_sphere_residual,
};

static const kp_backend ref_backend = {.name = "ref",
                                       .real_size = sizeof(double),
                                       .wide_size = sizeof(double),
                                       .kernels = ref_kernels,
                                       .scratch = ref_scratch};

const kp_backend *kp_backend_ref(void) {
  return &ref_backend;
}
