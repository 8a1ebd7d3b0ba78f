/* The contract between the operator table and the backends: which operators
 * there are, what their inputs and outputs mean, and their argument structs,
 * shared by shape rules, backward rules, kernels and tests.
 *
 * Letters: B sequences, T tokens of a sequence, N = B·T rows, C channels,
 * H heads, D channels of a head, V vocabulary, G groups of channels with a
 * curvature each (C/G channels), K rows of a curvature table: row n of N uses
 * row n / (N/K) of it, so K = 1 is one curvature for all rows, K = B one a
 * sequence, K = N one a row.  Tensors are row-major and dense.
 * "adds" marks outputs that a kernel adds to; all others it writes whole. */
#ifndef KAPPA_BACKEND_OPERATORS_H
#define KAPPA_BACKEND_OPERATORS_H

#include "core/backend.h"

typedef enum kp_operation {
#define KP_OPERATOR(ENUM, name, differentiable, inplace_output, inplace_input) KP_OP_##ENUM,
#include "backend/operators.def"
#undef KP_OPERATOR
  KP_OP_COUNT,
} kp_operation;

/* ADD: (a, b) -> a + b.  ZERO: () -> 0.  SUM: (x) -> scale · Σ x, one number.
 * SUM_BACKWARD: (g of one number) -> scale · g everywhere.  SCALE: (x) -> scale · x. */
typedef struct kp_scale_arguments {
  double scale;
} kp_scale_arguments;

/* EMBEDDING: (tokens int32 (N), table (V, C) [, positions int32 (N), position table (P, C)])
 *   -> table[token] + position table[position]  (N, C)
 * EMBEDDING_BACKWARD: (tokens, g (N, C) [, positions]) -> adds: g table (V, C) [, g position table (P, C)]
 * A token outside the table is an error that names the row. */

/* LINEAR: (x (N, K), W (M, K) [, b (M)]) -> x Wᵀ + b  (N, M)
 * LINEAR_BACKWARD_INPUT: (gy (N, M), W (M, K)) -> gx (N, K)
 * LINEAR_BACKWARD_WEIGHT: (gy (N, M), x (N, K)) -> adds: gW (M, K) [, gb (M)]; either may be NULL */

/* ACTIVATION: (x) -> f(x).  ACTIVATION_BACKWARD: (x, gy) -> gy f'(x). */
typedef enum kp_activation_kind {
  KP_GELU_ERF,  /* x Φ(x), exact */
  KP_GELU_TANH, /* the tanh approximation of Hendrycks and Gimpel 2016 */
  KP_SILU,      /* x / (1 + exp(-x)) */
} kp_activation_kind;

typedef struct kp_activation_arguments {
  kp_activation_kind kind;
} kp_activation_arguments;

/* GATED_ACTIVATION: (u (N, I), g (N, I)) -> u · f(g), or packed: (ug (N, 2I), u first) -> (N, I)
 * GATED_ACTIVATION_BACKWARD: (u, g, gy) -> (gu, gg); packed: (ug, NULL, gy) -> (gug) */
typedef struct kp_gated_arguments {
  kp_activation_kind kind;
  bool packed;
} kp_gated_arguments;

/* DROPOUT: (x) -> x / (1 - rate) where kept, 0 elsewhere.  The mask is Philox at (run seed, stream, run step,
 * element index / 4), so the backward pass is the same operator on the gradient. */
typedef struct kp_dropout_arguments {
  double rate;
  uint64_t stream;
} kp_dropout_arguments;

/* ROTARY: (x (N, width), positions int32 (N)) -> the first `heads`·D channels of each row rotated, head by
 * head, by the angles position · base^(-2i/D); the rest copied.  `inverse` rotates back: it is the backward
 * pass. */
typedef struct kp_rotary_arguments {
  int heads;
  int head_size;
  double base;
  bool halves; /* pairs are (i, i + D/2) as in LLaMA's exported weights; otherwise (2i, 2i+1) */
  bool inverse;
} kp_rotary_arguments;

/* Attention.  Letters: H query heads over H' key heads (kv_heads), D channels of a query or key (head_size),
 * D' of a value (value_size).  A temperature β and a curvature κ have one number a head, or one for all
 * heads.
 *
 * ATTENTION: (q (N, H·D), k (N, H'·D), v (N, H'·D') [, κ, β, documents int32 (N)])
 *   -> o (N, H·D'), logsumexp (B, H, T) [, o_time (N, H)] [, norms (N, H)]
 * Packed: q is (N, (H + 2H')·D) with q, k, v side by side, k and v are NULL, and D' = D.  A row sees those of
 * its sequence that are not later (if causal) and, where documents are given, have the same number there.
 * Scores, of scale·q and scale·k (for the dot product once; scale 0 means 1); without β it is 1:
 *   dot               β scale <q, k>
 *   distance          -β d, d the distance of exp_0(q) and exp_0(k) at curvature κ (absent: 0)
 *   distance squared  -β d²
 *   Lorentz           β (2c + 2<Q, K>), Q = lift(q), K = lift(k): minus β times the squared Lorentzian
 *                     distance on the hyperboloid -t² + |s|² = -c = 1/κ (absent: c = 1); κ < 0
 * What o is, for the weights P of a row (backend/attention_values.h):
 *   mean      Σ P v
 *   Lorentz   the centroid √c M / |M| of the lifted values, M = Σ P lift(v): its space; its time is o_time
 *   midpoint  log_0 of the gyromidpoint of the points exp_0(v): v and o are tangent vectors at 0
 * norms, for the last two: the norm of the weighted mean in ambient coordinates.
 * ATTENTION_BACKWARD: (q, k, v, κ, β, documents, o, logsumexp, norms, g o, g o_time; one of the last
 * two may be NULL) -> (gq [packed: whole], gk, gv, adds: gκ, adds: gβ)
 * ATTENTION_CACHED: (q (B·T, H·D), keys state (B, H', P, D), values state (B, H', P, D'), start int32 (1)
 *   [, κ, β, k (B·T, H'·D), v (B·T, H'·D')]) -> o (B·T, H·D') [, o_time (B·T, H)]
 * Stores the T new keys and values at positions start … start+T-1 of the caches and attends causally to all
 * positions up to each query's.  Packed as above. */
typedef enum kp_score {
  KP_SCORE_DOT,
  KP_SCORE_DISTANCE,
  KP_SCORE_DISTANCE_SQUARED,
  KP_SCORE_LORENTZ
} kp_score;

typedef enum kp_values { KP_VALUES_MEAN, KP_VALUES_LORENTZ, KP_VALUES_MIDPOINT } kp_values;

typedef struct kp_attention_arguments {
  int64_t batch, length; /* B, T */
  int heads, kv_heads, head_size;
  bool packed, causal;
  kp_score score;
  double scale;   /* 0: 1 */
  int value_size; /* 0: head_size */
  kp_values values;
} kp_attention_arguments;

static inline int kp_attention_value_size(const kp_attention_arguments *arguments) {
  return arguments->value_size == 0 ? arguments->head_size : arguments->value_size;
}

static inline double kp_attention_scale(const kp_attention_arguments *arguments) {
  return arguments->scale == 0 ? 1 : arguments->scale;
}

/* The curvature where none is given. */
static inline double kp_attention_curvature(const kp_attention_arguments *arguments) {
  return arguments->score == KP_SCORE_LORENTZ || arguments->values == KP_VALUES_LORENTZ ? -1 : 0;
}

/* ATTENTION_LATENT_CACHED: attention over keys and values that are kept as one small latent vector a position
 * (DeepSeek-AI 2024, multi-head latent attention; with curvature He et al. 2025, HELM).  r channels of a
 * latent, ρ of a key are shared by all heads, p = D - ρ are each head's own:
 *   (q (B·T, H·D), rows (B·T, r+ρ), state (B, P, r+ρ), start int32 (1), norm weight (r), up weight (H·(p+D'),
 *    r) [, up time weight (H·(p+D')), up bias (H·(p+D')), κ, β]) -> o (B·T, H·D') [, o_time (B·T, H)]
 * Stores the T new rows (latent before its norm | shared part of the key after rotation) at positions start …
 * start+T-1, and for every position up to there expands its latent:
 *   L = latent / √(mean latent² + ε) · weight,   z = up weight · L + up time weight · √(|L|² + c) + up bias,
 * by head z = (own part of the key p | value D'), key = (own part | shared part).  Then as ATTENTION_CACHED.
 * Without a norm weight L is the latent itself; with a time weight κ is one number.  Decoding only. */
typedef struct kp_attention_latent_arguments {
  kp_attention_arguments attention; /* kv_heads = heads, not packed, causal */
  int latent_size, shared_size;     /* r, ρ */
  double epsilon;
} kp_attention_latent_arguments;

/* CROSS_ENTROPY: (logits (N, V), targets int32 (N)) -> loss (1) = mean over targets != ignore, logsumexp (N)
 * CROSS_ENTROPY_BACKWARD: (logits, targets, logsumexp, g loss (1)) -> g logits, in place where possible.
 * All targets ignored: the loss is 0.  A target outside [0, V) other than `ignore` is an error. */
typedef struct kp_cross_entropy_arguments {
  int32_t ignore;
} kp_cross_entropy_arguments;

/* RESIDUAL_NORM: one seam between two sub-layers, fused.  For row t of each sequence of T rows:
 *     x' = update program (x, [r,] u; κ_update)          or x' = x without an update
 *     z  = tangent program (r', x'; κ_tangent)           or z = x' without one
 *     y  = weight · (z - mean)/sqrt(var + ε) + bias      (LayerNorm; or RMSNorm without the mean and bias)
 * Programs are rows of geometry/programs.def and act on each group of C/G channels with its own κ; the flat
 * ones make this the Euclidean residual + norm.  r is the given reference, row t-1 of it with `shift` (row -1
 * is `carry`, or zero); r' is r, or with `own` the previous row of x' itself (row -1 is `own_carry`, or
 * zero). inputs:  0 x (N, C), 1 u (N, C), 2 r (N, C), 3 κ_update (K, G), 4 κ_tangent (K, G), 5 weight (C), 6
 * bias (C), 7 carry (B, C), 8 own carry (B, C); all but x optional outputs: 0 x' (N, C) (NULL without an
 * update), 1 y (N, C) (NULL without a norm), 2 statistics (N, 2): mean and 1/deviation of z, 3 events (1):
 * rows · groups at the boundary RESIDUAL_NORM_BACKWARD: inputs:  0..8 as above, 9 x', 10 g x' (or NULL), 11 g
 * y (or NULL), 12 statistics outputs: 0 gx, 1 gu (NULL where it equals gx: flat_add without
 * stream_reference), 2 gr: gradient of the tensor r (already shifted back), adds: 3 g κ_update, 4 g
 * κ_tangent, 5 g weight, 6 g bias With `stream_reference` r is x itself: gx includes r's part and output 2 is
 * NULL. */
typedef enum kp_norm { KP_NORM_NONE, KP_NORM_LAYER, KP_NORM_RMS } kp_norm;

typedef struct kp_residual_norm_arguments {
  int update;  /* a kp_program, or -1 */
  int tangent; /* a kp_program, or -1 */
  bool own, shift, stream_reference;
  int64_t length; /* T */
  kp_norm norm;
  double epsilon;
} kp_residual_norm_arguments;

/* ROW_PROGRAM: (v_1 … v_m (N, C), κ (K, G)) -> (N, C), or (N, G) for a scalar program; 3 inputs then κ at
 * index 3 ROW_PROGRAM_BACKWARD: (v_1, v_2, v_3, κ, g) -> (g v_1, g v_2, g v_3, adds: g κ); any may be NULL */
typedef struct kp_row_program_arguments {
  int program; /* a kp_program */
  double parameter;
} kp_row_program_arguments;

/* MIDPOINT: (points (N, M, C), weights (N, M), κ (K, G)) -> weighted gyromidpoint of each row's M points (N,
 * C) MIDPOINT_BACKWARD: (points, weights, κ, g) -> (g points, g weights, adds: g κ) */

/* REFERENCE: (stream (N, C) [, κ (K, G), history (B, W, C), seen int32 (1)]) -> the reference point of each
 * row (N, C) previous: row t-1; mean: the mean of rows 0 … t-1; midpoint: the gyromidpoint of rows t-W … t-1,
 * in log coordinates (stream and result are tangent vectors at the origin).  Row 0's reference is zero. In
 * decoding, `history` holds the W rows before row 0 (mean: W = 1, the mean of `seen` rows).
 * REFERENCE_BACKWARD: (stream, κ, g) -> (g stream, adds: g κ) */
typedef enum kp_reference_kind {
  KP_REFERENCE_PREVIOUS,
  KP_REFERENCE_MEAN,
  KP_REFERENCE_MIDPOINT
} kp_reference_kind;

typedef struct kp_reference_arguments {
  kp_reference_kind kind;
  int64_t length; /* T */
  int window;     /* W of the midpoint */
} kp_reference_arguments;

/* CURVATURE: (θ) -> κ, element by element.  CURVATURE_BACKWARD: (θ, g) -> g θ. */
typedef enum kp_curvature_map {
  KP_CURVATURE_IDENTITY, /* κ = θ */
  KP_CURVATURE_NEGATE,   /* κ = -θ: published checkpoints store c = -κ */
  KP_CURVATURE_TANH,     /* κ = 2 tanh θ: either sign, bounded */
  KP_CURVATURE_SOFTPLUS, /* κ = -log(1 + exp θ): hyperbolic */
  KP_CURVATURE_SIGMOID,  /* κ = -1 / (1 + exp(-θ)): hyperbolic, bounded */
} kp_curvature_map;

typedef struct kp_curvature_arguments {
  kp_curvature_map map;
} kp_curvature_arguments;

/* SELECT_ROW: (x (B, T, C)) -> row `row` of each sequence (B, C); a negative row counts from the end.
 * SELECT_ROW_BACKWARD: (g (B, C)) -> (B, T, C), zero elsewhere. */
typedef struct kp_select_arguments {
  int64_t length, row;
} kp_select_arguments;

/* STORE_ROWS: (x (B·T, C), state (B, W, C)) -> no output; the state's rows move up by T and the newest T rows
 * of x are appended: afterwards it holds the last W rows seen.  With `mean` (W = 1, third input seen int32
 * (1)) it holds the mean of all rows seen. */
typedef struct kp_store_arguments {
  int64_t length; /* T */
  bool mean;
} kp_store_arguments;

#endif
