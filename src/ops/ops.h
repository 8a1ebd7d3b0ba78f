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
/* The same of a point: x.time (…, G) with time_weight (M, G), or (M) for G = 1, adds time · time weightᵀ.
 * Without x.time (and time_weight) it is kp_linear.  The result is a vector; kp_lift makes a point of it. */
kp_tensor *kp_linear_lorentz(kp_graph *graph, kp_point x, kp_tensor *weight, kp_tensor *time_weight,
                             kp_tensor *bias);

kp_tensor *kp_activation(kp_graph *graph, kp_tensor *x, kp_activation_kind kind);
/* u · f(gate); with gate NULL, x holds both halves side by side: (…, 2I) -> (…, I) */
kp_tensor *kp_gated_activation(kp_graph *graph, kp_tensor *x, kp_tensor *gate, kp_activation_kind kind);
/* The same with all that it can: scale (2I) and c (1) may be NULL; `packed` is set here.  The result's time
 * is NULL without `lift`. */
typedef struct kp_gate {
  kp_tensor *x, *gate, *scale, *c;
} kp_gate;

kp_point kp_gated_point(kp_graph *graph, kp_gate gate, kp_gated_arguments arguments);
/* A rate of 0 adds nothing.  `stream` tells dropouts of one graph apart. */
kp_tensor *kp_dropout(kp_graph *graph, kp_tensor *x, double rate, uint64_t stream);
/* x (…, width), positions (…) int32 */
kp_tensor *kp_rotary(kp_graph *graph, kp_tensor *x, kp_tensor *positions, kp_rotary_arguments arguments);

/* What attention reads: k and v are NULL when packed, the others where they are absent. */
typedef struct kp_attention_operands {
  kp_tensor *q, *k, *v;
  kp_tensor *curvature, *temperature; /* (H) or (1) */
  kp_tensor *documents;               /* int32, as many as rows; not over a cache */
} kp_attention_operands;

/* (…, H·D') and, for Lorentz values, its time (…, H). */
kp_point kp_attend(kp_graph *graph, kp_attention_operands operands, kp_attention_arguments arguments);
/* keys (B, kv_heads, P, D) and values (B, kv_heads, P, D') are states. */
kp_point kp_attend_cached(kp_graph *graph, kp_attention_operands operands, kp_tensor *keys, kp_tensor *values,
                          kp_tensor *start, kp_attention_arguments arguments);
/* The latent's way to keys and values; absent tensors are NULL. */
typedef struct kp_latent_operands {
  kp_tensor *rows, *state, *start;        /* (…, r+ρ), (B, P, r+ρ), (1) int32 */
  kp_tensor *norm_weight;                 /* (r) */
  kp_tensor *weight, *time_weight, *bias; /* (H·(p+D'), r), (H·(p+D')), (H·(p+D')) */
} kp_latent_operands;
/* operands: q, curvature, temperature. */
kp_point kp_attend_latent_cached(kp_graph *graph, kp_attention_operands operands, kp_latent_operands latent,
                                 kp_attention_latent_arguments arguments);

/* ---- experts (backend/operators.h has the meaning of each) ---- */

/* Which experts each token goes to, and the order of the sorted rows. */
typedef struct kp_routing {
  kp_tensor *indices, *weights, *scores, *counts, *order, *offsets, *slot;
} kp_routing;

/* logits (…, E), bias (E) or NULL, documents (…) int32 or NULL */
kp_routing kp_route_tokens(kp_graph *graph, kp_tensor *logits, kp_tensor *bias, kp_tensor *documents,
                           kp_route_arguments arguments);
/* The balance loss of a routing, one number. */
kp_tensor *kp_balance_loss(kp_graph *graph, const kp_routing *routing, kp_tensor *documents,
                           kp_balance_arguments arguments);
/* x (…, C) -> (R, C), sorted by expert; the time goes with it. */
kp_point kp_gather_rows(kp_graph *graph, kp_point x, const kp_routing *routing);

/* One linear map an expert; all but the weight may be NULL. */
typedef struct kp_grouped_weights {
  kp_tensor *weight, *bias, *time;       /* (E, M, K), (E, M), (E, M) */
  kp_tensor *input_scale, *output_scale; /* (E) */
} kp_grouped_weights;

/* x (R, K) sorted, with its time (R) when there is a time weight -> (R, M) */
kp_tensor *kp_grouped_linear(kp_graph *graph, kp_point x, kp_tensor *offsets, kp_grouped_weights weights);
/* space (R, C), c (E) -> time (R, 1) */
kp_tensor *kp_expert_lift(kp_graph *graph, kp_tensor *space, kp_tensor *offsets, kp_tensor *c);
/* √(c / reference) (E), or its inverse; reference (1) or NULL: 1 */
kp_tensor *kp_expert_scale(kp_graph *graph, kp_tensor *c, kp_tensor *reference, bool inverse);
/* rows (R, C) of the experts' results and `count` (…, C) of shared ones -> one point a token, shaped (N, C)
 */
kp_point kp_expert_combine(kp_graph *graph, kp_tensor *rows, const kp_routing *routing, kp_tensor *c,
                           kp_tensor *const *shared, int count, kp_combine_arguments arguments);

/* Keys and values of latent attention: z (…, H(p+Dv)) and rope (…, ρ) or NULL. */
typedef struct kp_latent {
  kp_tensor *keys, *values;
} kp_latent;
kp_latent kp_latent_keys(kp_graph *graph, kp_tensor *z, kp_tensor *rope, kp_latent_keys_arguments arguments);

/* x (…, C) -> (…, left) and (…, C - left) */
typedef struct kp_columns {
  kp_tensor *left, *right;
} kp_columns;
kp_columns kp_split_columns(kp_graph *graph, kp_tensor *x, int64_t left);

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

/* The same for training: also makes the gradients, for a loss whose gradient will be `seed` (1).  The graph
 * must then be differentiated from the loss, or from a sum that it is part of, with that very tensor. */
kp_tensor *kp_linear_cross_entropy_trained(kp_graph *graph, kp_logit_head head, kp_tensor *targets,
                                           kp_tensor *seed, kp_linear_cross_entropy_arguments arguments);

/* Logits (…, V) of the points x by their distances to hyperplanes: normals (V, C), offsets (V), c (1) or NULL
 * (1); see LORENTZ_MLR. */
kp_tensor *kp_lorentz_mlr(kp_graph *graph, kp_point x, kp_tensor *normals, kp_tensor *offsets, kp_tensor *c);

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
/* space (…, C), c (1) or (groups) or NULL -> time (…, groups) */
kp_tensor *kp_lift(kp_graph *graph, kp_tensor *space, int64_t groups, kp_tensor *c);

/* The point on the hyperboloid of `to` from that of `from`; either may be NULL for 1. */
kp_point kp_homothety(kp_graph *graph, kp_point x, kp_tensor *from, kp_tensor *to);

/* The Lorentz seam; absent tensors are NULL (see backend/operators.h). */
typedef struct kp_lorentz_seam {
  kp_point stream, branch; /* a time that is NULL is derived */
  kp_tensor *branch_weight, *scale, *norm_weight, *c;
} kp_lorentz_seam;

typedef struct kp_lorentz_seam_result {
  kp_point stream;     /* x'; the stream itself without a branch */
  kp_point normalised; /* y; NULLs without a norm */
} kp_lorentz_seam_result;

kp_lorentz_seam_result kp_lorentz_residual(kp_graph *graph, kp_lorentz_seam seam,
                                           kp_lorentz_residual_arguments arguments);
/* stream (B, T, C) -> (B, T, C); history and seen are NULL in training, documents where rows hold one. */
kp_tensor *kp_reference(kp_graph *graph, kp_tensor *stream, kp_tensor *curvature, kp_tensor *history,
                        kp_tensor *seen, kp_tensor *documents, kp_reference_arguments arguments);
kp_tensor *kp_curvature(kp_graph *graph, kp_tensor *theta, kp_curvature_map map);

/* x (B, T, C) -> (B, C) */
kp_tensor *kp_select_row(kp_graph *graph, kp_tensor *x, int64_t row);
/* x (B, T, C), documents int32 (B, T) or NULL -> the mean of each sequence's rows, those of padding (a
 * negative document) left out (B, C) */
kp_tensor *kp_mean_rows(kp_graph *graph, kp_tensor *x, kp_tensor *documents);
void kp_store_rows(kp_graph *graph, kp_tensor *x, kp_tensor *state, kp_tensor *seen, bool mean);

/* h, u (…, C) and rates (C) -> the step on the unit sphere from h towards u (…, C) */
kp_tensor *kp_sphere_residual(kp_graph *graph, kp_tensor *h, kp_tensor *u, kp_tensor *rate,
                              kp_sphere_arguments arguments);
/* x (…, width), gain (G·head_size) or NULL, positions (…) or NULL: the heads are turned first -> (…, width)
 */
kp_tensor *kp_head_norm(kp_graph *graph, kp_tensor *x, kp_tensor *gain, kp_tensor *positions,
                        kp_head_norm_arguments arguments);
/* x (…, C), columns (C) -> x · factor · columns */
kp_tensor *kp_scale_columns(kp_graph *graph, kp_tensor *x, kp_tensor *columns, double factor);

#endif
