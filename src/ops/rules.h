/* What the operator families declare for the table: their backward rules and
 * ref kernels, by the names that backend/operators.def implies. */
#ifndef KAPPA_OPS_RULES_H
#define KAPPA_OPS_RULES_H

#include "ops/ops.h"

#define GRADIENT(name) void kp_backward_##name(kp_graph *graph, kp_node *node);
#define NO_GRADIENT(name)
#define KP_OPERATOR(ENUM, name, differentiable, inplace_output, inplace_input)                               \
  differentiable(name) kp_status kp_ref_##name(const kp_call *call, kp_error *error);
#include "backend/operators.def"
#undef KP_OPERATOR
#undef GRADIENT
#undef NO_GRADIENT

/* What the two builders of a head that never holds its logits share. */
void kp_check_logit_head(const kp_logit_head *head, const kp_tensor *targets);
/* An activation shaped like `of`; NULL where no gradient flows to that. */
kp_tensor *kp_fresh_gradient(kp_graph *graph, const char *name, const kp_tensor *of);

/* Turns the heads of a row of doubles, or, with `back`, turns them back. */
void kp_rotate_row(const kp_rotary_arguments *arguments, int32_t position, bool back, double *row);

size_t kp_ref_scratch_head_norm_backward(const kp_node *node, int threads);
size_t kp_ref_scratch_linear_cross_entropy(const kp_node *node, int threads);
size_t kp_ref_scratch_attention(const kp_node *node, int threads);
size_t kp_ref_scratch_attention_latent(const kp_node *node, int threads);
size_t kp_ref_scratch_residual_norm(const kp_node *node, int threads);
size_t kp_ref_scratch_midpoint(const kp_node *node, int threads);
size_t kp_ref_scratch_sphere_residual(const kp_node *node, int threads);
size_t kp_ref_scratch_reference(const kp_node *node, int threads);
size_t kp_ref_scratch_expert_combine(const kp_node *node, int threads);

#endif
