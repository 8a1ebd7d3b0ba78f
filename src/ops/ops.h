/* Graph building: one function an operator.
 *
 * Each checks its operands' shapes (a mismatch is an assertion: models check
 * configurations before they build), appends the node and returns the output.
 * Shapes use the letters of backend/operators.h. */
#ifndef KAPPA_OPS_OPS_H
#define KAPPA_OPS_OPS_H

#include "backend/operators.h"
#include "geometry/row_program.h"

/* Names and backward rules by kp_operation: what kp_graph_create wants. */
extern const kp_operator kp_operator_table[KP_OP_COUNT];

/* The reference backend: every operator in double precision, in plain loops. */
const kp_backend *kp_backend_ref(void);

/* A row of numbers as a vector (`time` NULL), or as points of the hyperboloid: the space coordinates (…, C)
 * and apart from them the time of each row (…, 1), or of each row and head (…, H). */
typedef struct kp_point {
  kp_tensor *space, *time;
} kp_point;

kp_tensor *kp_add(kp_graph *graph, kp_tensor *a, kp_tensor *b);
kp_tensor *kp_scale(kp_graph *graph, kp_tensor *x, double scale);
/* scale · Σ x, one number */
kp_tensor *kp_sum(kp_graph *graph, kp_tensor *x, double scale);

/* tokens (…) int32, table (V, C) -> (…, C); positions and position_table may be NULL together. */
kp_tensor *kp_embedding(kp_graph *graph, kp_tensor *tokens, kp_tensor *table, kp_tensor *positions,
                        kp_tensor *position_table);

/* x (…, K), weight (M, K), bias (M) or NULL -> (…, M) */
kp_tensor *kp_linear(kp_graph *graph, kp_tensor *x, kp_tensor *weight, kp_tensor *bias);

kp_tensor *kp_activation(kp_graph *graph, kp_tensor *x, kp_activation_kind kind);
/* u · f(gate); with gate NULL, x holds both halves side by side: (…, 2I) -> (…, I) */
kp_tensor *kp_gated_activation(kp_graph *graph, kp_tensor *x, kp_tensor *gate, kp_activation_kind kind);
/* A rate of 0 adds nothing.  `stream` tells dropouts of one graph apart. */
kp_tensor *kp_dropout(kp_graph *graph, kp_tensor *x, double rate, uint64_t stream);
kp_tensor *kp_rotary(kp_graph *graph, kp_tensor *x, kp_tensor *positions, kp_rotary_arguments arguments);

/* k and v are NULL when packed; curvature and temperature (H) are NULL for the dot score. */
kp_tensor *kp_attention(kp_graph *graph, kp_tensor *q, kp_tensor *k, kp_tensor *v, kp_tensor *curvature,
                        kp_tensor *temperature, kp_attention_arguments arguments);
kp_tensor *kp_attention_cached(kp_graph *graph, kp_tensor *qkv, kp_tensor *keys, kp_tensor *values,
                               kp_tensor *start, kp_tensor *curvature, kp_tensor *temperature,
                               kp_attention_arguments arguments);

/* logits (…, V), targets (…) int32 -> the mean loss, one number */
kp_tensor *kp_cross_entropy(kp_graph *graph, kp_tensor *logits, kp_tensor *targets, int32_t ignore);

/* A head whose logits are never held whole.  x (…, C) and its time (…, 1), weight (V, C) and time_weight (V);
 * scale (V) is one factor an entry.  time with time_weight, and scale, may be NULL. */
typedef struct kp_logit_head {
  kp_point x;
  kp_tensor *weight, *time_weight, *scale;
} kp_logit_head;

/* targets (…) int32 -> the mean loss, one number: kp_cross_entropy of the head's logits */
kp_tensor *kp_linear_cross_entropy(kp_graph *graph, kp_logit_head head, kp_tensor *targets,
                                   kp_linear_cross_entropy_arguments arguments);

/* The seam between two sub-layers; absent tensors are NULL (see backend/operators.h). */
typedef struct kp_seam {
  kp_tensor *stream, *branch, *reference;
  kp_tensor *update_curvature, *tangent_curvature; /* (K, G) */
  kp_tensor *weight, *bias;
  kp_tensor *carry, *own_carry;
} kp_seam;

typedef struct kp_seam_result {
  kp_tensor *stream;     /* x' */
  kp_tensor *normalised; /* y, or NULL without a norm */
  kp_tensor *statistics;
  kp_tensor *events; /* rows · groups at the boundary, one number */
} kp_seam_result;

kp_seam_result kp_residual_norm(kp_graph *graph, kp_seam seam, kp_residual_norm_arguments arguments);
/* LayerNorm or RMSNorm alone: a seam without update and tangent. */
kp_tensor *kp_normalise(kp_graph *graph, kp_tensor *x, kp_tensor *weight, kp_tensor *bias, kp_norm norm,
                        double epsilon);

/* inputs v_1 … v_m (N, C) and curvature (K, G) -> (N, C), or (N, G) for a scalar program */
kp_tensor *kp_curved_map(kp_graph *graph, int program, double parameter, kp_tensor *const v[3],
                         kp_tensor *curvature);
/* points (N, M, C), weights (N, M), curvature (K, G) -> (N, C) */
kp_tensor *kp_midpoint(kp_graph *graph, kp_tensor *points, kp_tensor *weights, kp_tensor *curvature);
/* stream (B, T, C) -> (B, T, C); history and seen are NULL in training. */
kp_tensor *kp_reference(kp_graph *graph, kp_tensor *stream, kp_tensor *curvature, kp_tensor *history,
                        kp_tensor *seen, kp_reference_arguments arguments);
kp_tensor *kp_curvature(kp_graph *graph, kp_tensor *theta, kp_curvature_map map);

/* x (B, T, C) -> (B, C) */
kp_tensor *kp_select_row(kp_graph *graph, kp_tensor *x, int64_t row);
void kp_store_rows(kp_graph *graph, kp_tensor *x, kp_tensor *state, kp_tensor *seen, bool mean);

#endif
