/* The cuda backend's rows of the operator table: every operator has a kernel kp_cuda_NAME in a .cu file here,
 * and those that need scratch memory a function kp_cuda_scratch_NAME beside it. */
#include "backend/cuda/table.h"

#include "backend/operators.h"

#define KP_OPERATOR(ENUM, name, differentiable, inplace_output, inplace_input)                               \
  kp_status kp_cuda_##name(const kp_call *call, kp_error *error);
#include "backend/operators.def"
#undef KP_OPERATOR

const kp_kernel kp_cuda_kernels[KP_OP_COUNT] = {
#define KP_OPERATOR(ENUM, name, differentiable, inplace_output, inplace_input)                               \
  [KP_OP_##ENUM] = kp_cuda_##name,
#include "backend/operators.def"
#undef KP_OPERATOR
};

size_t kp_cuda_scratch_sum(const kp_node *node, int threads);
size_t kp_cuda_scratch_embedding_backward(const kp_node *node, int threads);
size_t kp_cuda_scratch_linear(const kp_node *node, int threads);
size_t kp_cuda_scratch_linear_backward_weight(const kp_node *node, int threads);
size_t kp_cuda_scratch_gated_activation_backward(const kp_node *node, int threads);
size_t kp_cuda_scratch_attention(const kp_node *node, int threads);
size_t kp_cuda_scratch_attention_backward(const kp_node *node, int threads);
size_t kp_cuda_scratch_attention_cached(const kp_node *node, int threads);
size_t kp_cuda_scratch_attention_latent_cached(const kp_node *node, int threads);
size_t kp_cuda_scratch_cross_entropy(const kp_node *node, int threads);
size_t kp_cuda_scratch_cross_entropy_backward(const kp_node *node, int threads);
size_t kp_cuda_scratch_linear_cross_entropy(const kp_node *node, int threads);
size_t kp_cuda_scratch_linear_cross_entropy_backward(const kp_node *node, int threads);
size_t kp_cuda_scratch_linear_cross_entropy_trained(const kp_node *node, int threads);
size_t kp_cuda_scratch_lorentz_mlr(const kp_node *node, int threads);
size_t kp_cuda_scratch_lorentz_mlr_backward(const kp_node *node, int threads);
size_t kp_cuda_scratch_residual_norm(const kp_node *node, int threads);
size_t kp_cuda_scratch_residual_norm_backward(const kp_node *node, int threads);
size_t kp_cuda_scratch_row_program_backward(const kp_node *node, int threads);
size_t kp_cuda_scratch_midpoint_backward(const kp_node *node, int threads);
size_t kp_cuda_scratch_linear_backward_time(const kp_node *node, int threads);
size_t kp_cuda_scratch_lift_backward(const kp_node *node, int threads);
size_t kp_cuda_scratch_homothety_backward(const kp_node *node, int threads);
size_t kp_cuda_scratch_lorentz_residual_backward(const kp_node *node, int threads);
size_t kp_cuda_scratch_reference(const kp_node *node, int threads);
size_t kp_cuda_scratch_reference_backward(const kp_node *node, int threads);
size_t kp_cuda_scratch_route(const kp_node *node, int threads);
size_t kp_cuda_scratch_balance_loss(const kp_node *node, int threads);
size_t kp_cuda_scratch_balance_loss_backward(const kp_node *node, int threads);
size_t kp_cuda_scratch_grouped_linear_backward_weight(const kp_node *node, int threads);
size_t kp_cuda_scratch_expert_combine_backward(const kp_node *node, int threads);
size_t kp_cuda_scratch_sphere_residual_backward(const kp_node *node, int threads);
size_t kp_cuda_scratch_head_norm(const kp_node *node, int threads);
size_t kp_cuda_scratch_head_norm_backward(const kp_node *node, int threads);
size_t kp_cuda_scratch_scale_columns_backward(const kp_node *node, int threads);
size_t kp_cuda_scratch_mean_rows(const kp_node *node, int threads);
size_t kp_cuda_scratch_mean_rows_backward(const kp_node *node, int threads);

const kp_scratch_size kp_cuda_scratch[KP_OP_COUNT] = {
    [KP_OP_SUM] = kp_cuda_scratch_sum,
    [KP_OP_EMBEDDING_BACKWARD] = kp_cuda_scratch_embedding_backward,
    [KP_OP_LINEAR] = kp_cuda_scratch_linear,
    [KP_OP_LINEAR_BACKWARD_WEIGHT] = kp_cuda_scratch_linear_backward_weight,
    [KP_OP_GATED_ACTIVATION_BACKWARD] = kp_cuda_scratch_gated_activation_backward,
    [KP_OP_ATTENTION] = kp_cuda_scratch_attention,
    [KP_OP_ATTENTION_BACKWARD] = kp_cuda_scratch_attention_backward,
    [KP_OP_ATTENTION_CACHED] = kp_cuda_scratch_attention_cached,
    [KP_OP_ATTENTION_LATENT_CACHED] = kp_cuda_scratch_attention_latent_cached,
    [KP_OP_CROSS_ENTROPY] = kp_cuda_scratch_cross_entropy,
    [KP_OP_CROSS_ENTROPY_BACKWARD] = kp_cuda_scratch_cross_entropy_backward,
    [KP_OP_LINEAR_CROSS_ENTROPY] = kp_cuda_scratch_linear_cross_entropy,
    [KP_OP_LINEAR_CROSS_ENTROPY_BACKWARD] = kp_cuda_scratch_linear_cross_entropy_backward,
    [KP_OP_LINEAR_CROSS_ENTROPY_TRAINED] = kp_cuda_scratch_linear_cross_entropy_trained,
    [KP_OP_LORENTZ_MLR] = kp_cuda_scratch_lorentz_mlr,
    [KP_OP_LORENTZ_MLR_BACKWARD] = kp_cuda_scratch_lorentz_mlr_backward,
    [KP_OP_RESIDUAL_NORM] = kp_cuda_scratch_residual_norm,
    [KP_OP_RESIDUAL_NORM_BACKWARD] = kp_cuda_scratch_residual_norm_backward,
    [KP_OP_ROW_PROGRAM_BACKWARD] = kp_cuda_scratch_row_program_backward,
    [KP_OP_MIDPOINT_BACKWARD] = kp_cuda_scratch_midpoint_backward,
    [KP_OP_LINEAR_BACKWARD_TIME] = kp_cuda_scratch_linear_backward_time,
    [KP_OP_LIFT_BACKWARD] = kp_cuda_scratch_lift_backward,
    [KP_OP_HOMOTHETY_BACKWARD] = kp_cuda_scratch_homothety_backward,
    [KP_OP_LORENTZ_RESIDUAL_BACKWARD] = kp_cuda_scratch_lorentz_residual_backward,
    [KP_OP_REFERENCE] = kp_cuda_scratch_reference,
    [KP_OP_REFERENCE_BACKWARD] = kp_cuda_scratch_reference_backward,
    [KP_OP_ROUTE] = kp_cuda_scratch_route,
    [KP_OP_BALANCE_LOSS] = kp_cuda_scratch_balance_loss,
    [KP_OP_BALANCE_LOSS_BACKWARD] = kp_cuda_scratch_balance_loss_backward,
    [KP_OP_GROUPED_LINEAR_BACKWARD_WEIGHT] = kp_cuda_scratch_grouped_linear_backward_weight,
    [KP_OP_EXPERT_COMBINE_BACKWARD] = kp_cuda_scratch_expert_combine_backward,
    [KP_OP_SPHERE_RESIDUAL_BACKWARD] = kp_cuda_scratch_sphere_residual_backward,
    [KP_OP_HEAD_NORM] = kp_cuda_scratch_head_norm,
    [KP_OP_HEAD_NORM_BACKWARD] = kp_cuda_scratch_head_norm_backward,
    [KP_OP_SCALE_COLUMNS_BACKWARD] = kp_cuda_scratch_scale_columns_backward,
    [KP_OP_MEAN_ROWS] = kp_cuda_scratch_mean_rows,
    [KP_OP_MEAN_ROWS_BACKWARD] = kp_cuda_scratch_mean_rows_backward,
};
