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

/* LINEAR: (x (N, K), W (M, K) [, b (M) [, time (N, G), time weight (M, G)]]) -> x Wᵀ + b + time · time
 * weightᵀ (N, M); b may be NULL.  With the last two x is a point of the hyperboloid, or G of them side by
 * side.
 * LINEAR_BACKWARD_INPUT: (gy (N, M), W (M, K) [, direct (N, K)]) -> gx (N, K) = direct + gy W; direct, what
 * has arrived at x before, may be NULL LINEAR_BACKWARD_WEIGHT: (gy (N, M), x (N, K)) -> adds: gW (M, K) [, gb
 * (M)]; either may be NULL LINEAR_BACKWARD_TIME: (gy (N, M), time, time weight) -> (g time (N, G), adds: g
 * time weight (M, G), adds: gb (M)); any may be NULL */

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
 *   With inputs 2 scale (2I) and 3 c (1), either or both NULL, and output 1 time (N, 1):
 *     y = (scale_u u) · f(gate_scale scale_g g),  time = √(|y|² + c)  (c = 1 when NULL)
 * GATED_ACTIVATION_BACKWARD: (u, g, gy) -> (gu, gg); packed: (ug, NULL, gy) -> (gug, NULL)
 *   With inputs 3 scale, 4 c, 5 time, 6 g time and outputs 2, 3, which it adds to: g scale (2I), g c (1). */
typedef struct kp_gated_arguments {
  kp_activation_kind kind;
  bool packed;
  bool lift;         /* the second output */
  double gate_scale; /* read with a scale tensor only */
} kp_gated_arguments;

/* DROPOUT: (x) -> x / (1 - rate) where kept, 0 elsewhere.  The mask is Philox at (run seed, stream, run step,
 * element index / 4), so the backward pass is the same operator on the gradient. */
typedef struct kp_dropout_arguments {
  double rate;
  uint64_t stream;
} kp_dropout_arguments;

/* ROTARY: (x (N, width), positions int32 (N)) -> the D channels from offset + h·stride on of each row
 * rotated, for each of `heads` heads h, by the angles position · frequency; the rest copied.  Pair i has the
 * frequency base^(-2i/D), or what YaRN makes of it (geometry/rotary.h) where `factor` is above 1. ROTARY with
 * `transposed` is the backward pass: the rotation back. `upstream` is what nGPT's published code computes
 * instead of a rotation: with E[t, 2f] = sin(t w_f) and E[t, 2f+1] = cos(t w_f), pair i becomes (-x_{2i+1}
 * E[t, D/2 + i], x_{2i} E[t, i]).  Its transpose is not its inverse. */
typedef struct kp_rotary_arguments {
  int heads;
  int head_size; /* D */
  double base;
  bool halves; /* pairs are (i, i + D/2) as in LLaMA's exported weights; otherwise (2i, 2i+1) */
  bool transposed;
  bool upstream;
  int offset, stride;          /* stride 0: D, heads side by side */
  double factor, original;     /* YaRN: the context grows by `factor` from `original` tokens */
  double beta_fast, beta_slow; /* YaRN: turns in `original` tokens of fast and slow pairs */
  bool by_turns;               /* the ramp between them is Llama 3.1's */
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

/* LINEAR_CROSS_ENTROPY: (x (N, C), W (V, C), targets int32 (N) [, time (N), time weight (V), scale (V)])
 *   -> loss (1) and logsumexp (N) of the logits  factor · scale ⊙ (x Wᵀ + time · time weight),
 * of which only a chunk exists at a time.  2NVC operations, where the logits would take 4NV bytes.
 * LINEAR_CROSS_ENTROPY_BACKWARD: (x, W, targets, time, time weight, scale, logsumexp, g loss)
 *   -> (gx, g time, adds: gW, adds: g time weight, adds: g scale); any may be NULL.  It makes each chunk of
 * the logits again: 6NVC operations where linear and cross_entropy need 4NVC.
 * LINEAR_CROSS_ENTROPY_TRAINED: (x, W, targets, time, time weight, scale, g loss (1)) -> (loss, logsumexp,
 * gx, g time, adds: gW, adds: g time weight, adds: g scale), both at once for a `g loss` that is known
 * before; all but the first two may be NULL.  A chunk of whole rows needs its logits once: 6NVC operations in
 * all. */
typedef struct kp_linear_cross_entropy_arguments {
  int32_t ignore;
  double factor;                        /* 0: 1 */
  int64_t chunk_rows, chunk_vocabulary; /* of a chunk; 0: chosen by the kernel */
} kp_linear_cross_entropy_arguments;

/* LORENTZ_MLR: (products x_s zᵀ (N, V), time x_t (N), z (V, C), a (V) [, c (1)]) -> logits (N, V) of
 * multinomial logistic regression on the hyperboloid of radius R = √c (c NULL: 1): the signed distance of x
 * to the hyperplane of entry v, times |z_v| (Bdeir, Schwethelm, Landwehr 2024, theorem 2): R |z|
 * asinh((cosh(a/R) <z, x_s> / |z| - sinh(a/R) x_t) / R). LORENTZ_MLR_BACKWARD: (products, time, z, a, c, g)
 * -> (g products, g time, adds: gz through |z| alone, adds: ga, adds: gc); all but the first may be NULL.  No
 * arguments. */

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

/* Points of the hyperboloid -t² + |s|² = -c, c > 0, curvature -1/c.  Their time t stands apart from their
 * space coordinates s.  c is a tensor of one number (or of G), 1 where it is NULL.
 *
 * LIFT: (space (N, C), c (1) or (G)) -> time (N, G) = √(|s_g|² + c) of each group of C/G channels
 * LIFT_BACKWARD: (space, c, time, g time, direct (N, C) or NULL) -> (g space = direct + g time · s/t, adds: g
 * c)
 *
 * HOMOTHETY: (space (N, C), time (N, G), from (1), to (1)) -> f space, f time with f = √(to / from): moves
 * points from one hyperboloid to another along the rays from the origin of coordinates. HOMOTHETY_BACKWARD:
 * (space, time, from, to, g space, g time) -> (g space, g time, adds: g from, adds: g to); any gradient may
 * be NULL.
 *
 * LORENTZ_RESIDUAL: the seam between two sub-layers of a Lorentz network, fused (Bdeir, Schwethelm, Landwehr
 * 2024; He et al. 2025):
 *
 *     a  = x + w u                                      space and time
 *     x' = s √c a_space / √max(|a_time² - |a_space|²|, floor),   lifted to c
 *     y  = weight · x' / √(mean x'² + ε),                        lifted to c
 *
 *   inputs   0 x (N, C)   1 its time (N, 1)   2 u (N, C)   3 its time (N, 1)   4 w (1) or (N, 1)
 *            5 s (1)   6 weight (C)   7 c (1)
 *   outputs  0 x' (N, C)   1 its time (N, 1)   2 y (N, C)   3 its time (N, 1)
 *            4 statistics (N, KP_LORENTZ_STATISTICS)
 *
 * A time that is NULL is the lift of its space part, w NULL is 1, s NULL the argument `scale`, weight NULL
 * all ones.  Without u there is no residual: y is the norm of x itself, x's time is not read, and outputs 0
 * and 1 are NULL.  Outputs 2 and 3 are NULL without `norm`.
 *
 * LORENTZ_RESIDUAL_BACKWARD:
 *
 *   inputs   0 … 7 as above   8 statistics   9 g x'   10 g its time   11 g y   12 g its time
 *   outputs  0 g x   1 g its time   2 g u   3 g its time;   adds: 4 g w   5 g s   6 g weight   7 g c
 *
 * Any of inputs 9 … 12 may be NULL; without u, 9 is what else arrives at x and 10 is NULL.  All outputs but 0
 * may be NULL. */

/* Of a row of LORENTZ_RESIDUAL: √c / N(a), 1 / (a_time² - |a_space|²) or 0 where a floor stands for it, 1 /
 * root mean square of x', and the times of x and u. */
enum {
  KP_LORENTZ_FACTOR,
  KP_LORENTZ_INVERSE_SQUARE,
  KP_LORENTZ_INVERSE_DEVIATION,
  KP_LORENTZ_STREAM_TIME,
  KP_LORENTZ_BRANCH_TIME,
  KP_LORENTZ_STATISTICS
};

/* Squared Lorentz norms are at least this: a sum that is light-like or zero gives finite numbers. */
#define KP_LORENTZ_LEAST_SQUARE 1e-30

typedef struct kp_lorentz_residual_arguments {
  bool norm;
  double epsilon; /* ε of the norm */
  double floor;   /* of the squared Lorentz norm; 0: none but KP_LORENTZ_LEAST_SQUARE */
  double scale;   /* s where it is no tensor */
} kp_lorentz_residual_arguments;

/* REFERENCE: (stream (N, C) [, κ (K, G), history (B, W, C), seen int32 (1), documents int32 (N)]) -> the
 * reference point of each row (N, C) previous: row t-1; mean: the mean of rows 0 … t-1; midpoint: the
 * gyromidpoint of rows t-W … t-1, in log coordinates (stream and result are tangent vectors at the origin).
 * Row 0's reference is zero. In decoding, `history` holds the W rows before row 0 (mean: W = 1, the mean of
 * `seen` rows).  With documents, which exclude a history, the first row of each run of equal numbers is a row
 * 0. REFERENCE_BACKWARD: (stream, κ, g, documents) -> (g stream, adds: g κ) */
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

/* Experts: E of them, each token goes to k; R = N·k rows sorted by expert, expert e's at offsets[e] …
 * offsets[e+1]-1.
 *
 * ROUTE: (logits l (N, E) [, bias (E), documents int32 (N)])
 *   -> 0 indices int32 (N, k), 1 weights (N, k), 2 scores p (N, E), 3 counts int32 (E), 4 order int32 (R),
 *      5 offsets int32 (E+1), 6 slot int32 (N, k)
 *
 * p = softmax(l) or sigmoid(l).  The k experts with the largest p + bias are chosen, in descending order,
 * the lower number first where they tie; with groups, only from the `limited_groups` groups of E/groups
 * experts whose two largest p + bias have the largest sum.  A weight is scale · p, or with `renormalise` of
 * that over the chosen ones' sum.  The bias takes part in the choice alone and has no gradient (DeepSeek-V3,
 * arXiv 2412.19437, section 2.1.2).  Row r of the sorted ones is token order[r]; slot is where a choice
 * stands.  counts are the choices of the tokens that are no padding: whose document, where documents are
 * given, is not negative.  A p that is not a number is chosen first, so that it shows.
 *
 * ROUTE_BACKWARD: (scores, indices, weights, g weights or NULL, g scores or NULL) -> (g l)
 *
 * BALANCE_LOSS: (scores (N, E), indices int32 (N, k) [, documents int32 (N)]) -> loss (1), a mean over
 * sequences of
 *
 *     alpha · Σ_e f_e P_e,  f_e = E / (choices · T) · (choices of expert e),  P_e = mean_t p_e / Σ_e' p_e'
 *
 * over the tokens, padding left out, of a sequence of `length` rows (0: all N rows are one); arXiv
 * 2412.19437, equations 17 to 20.  No gradient flows through f.
 *
 * BALANCE_LOSS_BACKWARD: (scores, indices, documents or NULL, g loss) -> (g scores)
 *
 * GATHER_ROWS: (x (N, C), time (N) or NULL, order, slot) -> x of row r's token (R, C), its time (R) or NULL
 *
 * GATHER_ROWS_BACKWARD: (g rows or NULL, g time or NULL, slot) -> (g x (N, C), g time (N)), each a sum over
 * the token's rows
 *
 * GROUPED_LINEAR: (x (R, K), offsets, W (E, M, K) [, b (E, M), time (R), time weight (E, M), input scale a
 * (E), output scale o (E)]) -> y (R, M): row r of expert e is o · (a · (W x + time · time weight) + b).
 * Scales are positive.
 *
 * GROUPED_LINEAR_BACKWARD_INPUT: (gy, offsets, W, time weight, a, o) -> gx (R, K), g time (R) or NULL
 *
 * GROUPED_LINEAR_BACKWARD_WEIGHT: (gy, offsets, x, time, b, a, o, y or NULL without scales)
 *   -> adds: gW, gb, g time weight, ga, go; any may be NULL
 *
 * EXPERT_LIFT: (space (R, C), offsets, c (E)) -> time (R) = √(|s|² + c)
 *
 * EXPERT_LIFT_BACKWARD: (space, offsets, time, g time, direct (R, C) or NULL) -> g space = direct + g time ·
 * s/t or NULL, adds: g c (E) or NULL
 *
 * EXPERT_SCALE: (c (E) [, reference c (1)]) -> √(c / reference), or with `inverse` √(reference / c) (E)
 *
 * EXPERT_SCALE_BACKWARD: (c, reference, scale, g) -> adds: g c, g reference
 *
 * EXPERT_COMBINE: (y (R, C), slot, weights (N, k), c (1) or NULL: 1 [, shared z (N, C), up to four])
 *   -> space (N, C), time (N) (NULL where flat)
 *
 *     flat:     Σ z + Σ_j w_j y_j
 *     centroid: m = Σ z + Σ_j w_j y_j of the points lifted to curvature -1/c, then √c m/|m|_L (Law et al.
 * 2019) fold:     from the origin, in ascending order of experts: a = point + w_j y_j, then S √c a_s/N(a)
 *               lifted, N(a) = √max(|<a,a>_L|, floor); the order of the published HELM-MiCE code
 *
 * EXPERT_COMBINE_BACKWARD: (y, slot, weights, c, g space or NULL, g time or NULL [, shared])
 *   -> g y, g weights or NULL, adds: g c or NULL [, g shared] */
typedef enum kp_gate_score { KP_GATE_SOFTMAX, KP_GATE_SIGMOID } kp_gate_score;

typedef struct kp_route_arguments {
  int experts, choices; /* E, k */
  kp_gate_score score;
  bool renormalise;
  double scale;
  int groups, limited_groups; /* 0 or 1: no groups */
} kp_route_arguments;

typedef struct kp_balance_arguments {
  double alpha;
  int choices;    /* k; the published HELM-MiCE code has 2 */
  int64_t length; /* T, or 0 */
} kp_balance_arguments;

typedef struct kp_expert_scale_arguments {
  bool inverse;
} kp_expert_scale_arguments;

typedef enum kp_combine_kind { KP_COMBINE_FLAT, KP_COMBINE_CENTROID, KP_COMBINE_FOLD } kp_combine_kind;

enum { KP_MAX_SHARED = 4 };

typedef struct kp_combine_arguments {
  kp_combine_kind kind;
  double scale, floor; /* S and the floor of the fold */
} kp_combine_arguments;

/* LATENT_KEYS: (z (N, H·(p+Dv)), rope (N, ρ) or NULL) -> keys (N, H·(p+ρ)), values (N, H·Dv): head h of z is
 * [p of the key | Dv of the value], and the rotated ρ channels of the key are the same for all heads.
 *
 * LATENT_KEYS_BACKWARD: (g keys or NULL, g values or NULL) -> g z, g rope or NULL */
typedef struct kp_latent_keys_arguments {
  int heads, plain_size, rope_size, value_size; /* H, p, ρ, Dv */
} kp_latent_keys_arguments;

/* SPLIT_COLUMNS: (x (N, C)) -> the first `left` columns (N, left), the others (N, C-left)
 *
 * SPLIT_COLUMNS_BACKWARD: (g left or NULL, g right or NULL) -> g x */
typedef struct kp_split_arguments {
  int64_t left;
} kp_split_arguments;

/* CURVATURE: (θ) -> κ, element by element.  CURVATURE_BACKWARD: (θ, g) -> g θ. */
typedef enum kp_curvature_map {
  KP_CURVATURE_IDENTITY,    /* κ = θ */
  KP_CURVATURE_NEGATE,      /* κ = -θ: published checkpoints store c = -κ */
  KP_CURVATURE_TANH,        /* κ = 2 tanh θ: either sign, bounded */
  KP_CURVATURE_SOFTPLUS,    /* κ = -log(1 + exp θ): hyperbolic */
  KP_CURVATURE_SIGMOID,     /* κ = -1 / (1 + exp(-θ)): hyperbolic, bounded */
  KP_CURVATURE_EXPONENTIAL, /* κ = -exp θ: hyperbolic */
  KP_MAP_EXP,               /* exp θ: a learned scale, or c = -1/κ */
  KP_MAP_RECIPROCAL,        /* 1/θ: between a temperature and its inverse */
} kp_curvature_map;

typedef struct kp_curvature_arguments {
  kp_curvature_map map;
} kp_curvature_arguments;

/* SELECT_ROW: (x (B, T, C)) -> row `row` of each sequence (B, C); a negative row counts from the end.
 * SELECT_ROW_BACKWARD: (g (B, C)) -> (B, T, C), zero elsewhere. */
typedef struct kp_select_arguments {
  int64_t length, row;
} kp_select_arguments;

/* MEAN_ROWS: (x (B, T, C) [, documents int32 (B, T)]) -> the mean of each sequence's rows (B, C); with
 * documents, of those whose document is not negative, and zero where there is none. MEAN_ROWS_BACKWARD: (g
 * (B, C) [, documents]) -> (B, T, C). */
typedef struct kp_mean_rows_arguments {
  int64_t length; /* T */
} kp_mean_rows_arguments;

/* STORE_ROWS: (x (B·T, C), state (B, W, C)) -> no output; the state's rows move up by T and the newest T rows
 * of x are appended: afterwards it holds the last W rows seen.  With `mean` (W = 1, third input seen int32
 * (1)) it holds the mean of all rows seen. */
typedef struct kp_store_arguments {
  int64_t length; /* T */
  bool mean;
} kp_store_arguments;

/* SPHERE_RESIDUAL: (h (N, C), u (N, C), α (C)) -> h' (N, C), unit rows.  With A = h/|h|, B = u/|u| and the
 * rates λ = |α · factor|, one a channel (Loshchilov et al. 2024, "nGPT", equations 10 and 11):
 *   lerp:  h' = r/|r|, r = A + λ (B - A)
 *   slerp: h' = exp_A(p), p the part of λ log_A(B) that is tangent at A: for equal λ the point at λ of the
 * arc SPHERE_RESIDUAL_BACKWARD: (h, u, α, g) -> (g h, g u, adds: g α) A zero row has no direction: it counts
 * as zero and gets no gradient. */
typedef enum kp_sphere_step { KP_SPHERE_LERP, KP_SPHERE_SLERP } kp_sphere_step;

typedef struct kp_sphere_arguments {
  kp_sphere_step step;
  double factor;
} kp_sphere_arguments;

/* HEAD_NORM: (x (N, width) [, gain (G·D)] [, positions int32 (N)]) -> of each row, group j of the first
 * `heads` groups of D channels divided by its norm and multiplied by factor · gain of group j mod G; the rest
 * copied. Packed q, k, v with heads = 2H and G = H: q and k share a gain, v is copied.  Zero groups stay zero
 * and get no gradient.  With positions the groups are first turned as ROTARY turns them; pairs are
 * neighbours. HEAD_NORM_BACKWARD: (x, gain, g, positions) -> (g x, adds: g gain) */
typedef struct kp_head_norm_arguments {
  int heads;
  int head_size; /* D */
  double factor;
  kp_rotary_arguments rotary; /* with positions only: of the same heads, side by side */
} kp_head_norm_arguments;

/* SCALE_COLUMNS: (x (N, C), s (C)) -> x · factor · s.  SCALE_COLUMNS_BACKWARD: (x, s, g) -> (g x, adds: g s)
 * Both have kp_scale_arguments. */

#endif
