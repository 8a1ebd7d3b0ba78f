/* Geodesic scores on a tile: -β d or -β d², d the distance of exp_0(q) and exp_0(k) at curvature κ.
 *
 * With the sine vector m = S(z) u and the cosine c = C(z) of a row u, z = κ|u|² (geometry/geodesic_score.h),
 *     w = |c_k m_q - c_q m_k|² = sin_κ²(d/2),     d = 2 sqrt(w) φ(κ w)
 * which is smooth through κ = 0 and has no pole.  Multiplied out, w is one inner product of rows of
 * D + 2 numbers,
 *     query: (-2 c m, |m|², c²)     key: (c m, c², |m|²)
 * so a matrix product yields the whole tile, and two more carry its gradient back to the rows.
 *
 * These products are in double: w of close points is a small difference of large terms, and 1/sqrt(w)
 * multiplies what is left of it.  What follows w has no cancellation and is float.
 *
 * As in geometry/geodesic_score.h, w is shifted by KP_SCORE_EPSILON and 1 - κ w floored at
 * KP_SCORE_CUT_FLOOR; and w stops at 1e37, the end of float: |u| sqrt(-κ) of about 21 for both rows. */
#ifndef KAPPA_BACKEND_CPU_ATTENTION_GEODESIC_H
#define KAPPA_BACKEND_CPU_ATTENTION_GEODESIC_H

#include "backend/cpu/isa/attention_tile.h"
#include "backend/cpu/isa/vector_math.h"
#include "geometry/geodesic_score.h"

/* The two scalars that end a row: where |m|² and c² stand. */
typedef struct kp_geodesic_side {
  double factor; /* of c m */
  int square, cosine;
} kp_geodesic_side;

static inline kp_geodesic_side kp_query_side(int size) {
  return (kp_geodesic_side){-2.0, size, size + 1};
}

static inline kp_geodesic_side kp_key_side(int size) {
  return (kp_geodesic_side){1.0, size + 1, size};
}

static inline double kp_squared_norm(const float *u, int size) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int d = 0; d < size; d++) sum += (double)u[d] * (double)u[d];
  return sum;
}

/* row[i · step] for i < D + 2: u as a query or key row. */
static inline void kp_geodesic_row_fill(double *row, int step, const float *u, int size, double kappa,
                                        kp_geodesic_side side) {
  const kp_geodesic_row at = kp_geodesic_row_of(kp_squared_norm(u, size), kappa);
  const double along = side.factor * at.cosine * at.scale;
  for (int d = 0; d < size; d++) row[d * step] = along * (double)u[d];
  row[side.square * step] = at.alpha;
  row[side.cosine * step] = at.cosine * at.cosine;
}

/* The gradient of u, given that of its row: written to `gradient`, or added.  Returns u's part of the
 * gradient of κ. */
static inline double kp_geodesic_row_carry(const double *bar, const float *u, int size, double kappa,
                                           kp_geodesic_side side, bool add, float *gradient) {
  const double norm = kp_squared_norm(u, size);
  const kp_geodesic_row at = kp_geodesic_row_of(norm, kappa);
  double inner = 0, kappa_bar = 0;
  for (int d = 0; d < size; d++) inner += bar[d] * (double)u[d];
  const double square_bar = 2.0 * bar[side.square] * at.scale, cosine_factor = side.factor * at.cosine;
  const double m_bar_u = cosine_factor * inner + square_bar * norm;
  const double cosine_bar = side.factor * at.scale * inner + 2.0 * at.cosine * bar[side.cosine];
  const double z_bar = kp_geodesic_row_backward(norm, kappa, m_bar_u, cosine_bar, &kappa_bar);
  const double along = at.scale * square_bar + 2.0 * kappa * z_bar, across = at.scale * cosine_factor;
  for (int d = 0; d < size; d++) {
    const double value = across * bar[d] + along * (double)u[d];
    gradient[d] = (float)(add ? (double)gradient[d] + value : value);
  }
  return kappa_bar;
}

/* w as the float part uses it: itself, z = κ w and the cosine 1 - z, each rounded once. */
typedef struct kp_tile_pair {
  float w, z, complement;
} kp_tile_pair;

static inline kp_tile_pair kp_tile_pair_of(double product, double kappa) {
  /* Written so that a NaN passes. */
  const double positive = (product < 0.0 ? 0.0 : product) + KP_SCORE_EPSILON;
  const double w = positive > 1e37 ? 1e37 : positive;
  const double complement = 1.0 - kappa * w;
  const double floored = complement < KP_SCORE_CUT_FLOOR ? KP_SCORE_CUT_FLOOR : complement;
  return (kp_tile_pair){(float)w, (float)(kappa * w), (float)floored};
}

/* φ(z) = arcsin(sqrt z) / sqrt z for -1/4 <= z <= 1/2 and its derivative: a minimax fit, error 1e-9. */
static inline float kp_arcsine_core(float z, float *derivative) {
  const float c[] = {1.0f,           0.166666648f,    0.07499961439f, 0.04464610821f,
                     0.03040717489f, 0.02219933775f,  0.01691873706f, 0.01758305969f,
                     0.01105088149f, -0.01566179864f, 0.04942114481f};
  float value = c[10], slope = 0.0f;
  for (int i = 9; i >= 0; i--) {
    slope = slope * z + value;
    value = value * z + c[i];
  }
  *derivative = slope;
  return value;
}

/* φ and φ' of a pair.  Hyperbolic: asinh t = log(t + sqrt(1 + t²)) far out, with t² = -z.
 * Spherical: arcsin s = π/2 - arcsin sqrt(1 - s²) in the far half. */
static inline float kp_arcsine_ratio(kp_tile_pair pair, bool hyperbolic, float *derivative) {
  const float root = sqrtf(pair.complement);
  const bool near = hyperbolic ? pair.z >= -0.25f : pair.z <= 0.5f;
  float slope, far;
  float core = kp_arcsine_core(hyperbolic || near ? pair.z : pair.complement, &slope);
  if (hyperbolic) {
    const float t = sqrtf(-pair.z);
    far = kp_logf(t + root) / t;
  } else {
    far = (1.57079632679f - root * core) / sqrtf(pair.z);
  }
  const float value = near ? core : far;
  *derivative = near ? slope : (1.0f / root - value) / (2.0f * pair.z);
  return value;
}

/* Scores from the products w: one row of a tile. */
static inline void kp_geodesic_scores_row(float *score, const double *product, int lanes, double kappa,
                                          float beta, bool hyperbolic, bool squared) {
#pragma omp simd
  for (int i = 0; i < lanes; i++) {
    const kp_tile_pair pair = kp_tile_pair_of(product[i], kappa);
    float slope;
    const float ratio = kp_arcsine_ratio(pair, hyperbolic, &slope);
    const float root = sqrtf(pair.w);
    const float distance = 2.0f * root * ratio;
    score[i] = -beta * (squared ? distance * distance : distance);
  }
}

/* Turns one row's products w into the gradients of w, and adds what the row gives to the gradients of κ and
 * β, lane by lane, from the gradients of its scores. */
static inline void kp_geodesic_backward_row(double *product, const float *score_bar, float *kappa_bar,
                                            float *beta_bar, int lanes, double kappa, float beta,
                                            bool hyperbolic, bool squared) {
#pragma omp simd
  for (int i = 0; i < lanes; i++) {
    const kp_tile_pair pair = kp_tile_pair_of(product[i], kappa);
    float slope;
    const float ratio = kp_arcsine_ratio(pair, hyperbolic, &slope);
    const float root = sqrtf(pair.w), distance = 2.0f * root * ratio, bar = -beta * score_bar[i];
    const float by_w =
        squared ? 4.0f * ratio / sqrtf(pair.complement) : 1.0f / (root * sqrtf(pair.complement));
    const float by_kappa = 2.0f * pair.w * root * slope * (squared ? 2.0f * distance : 1.0f);
    kappa_bar[i] += bar * by_kappa;
    beta_bar[i] -= score_bar[i] * (squared ? distance * distance : distance);
    product[i] = (double)(bar * by_w);
  }
}

/* The loops above for the head's sign of curvature and power of the distance. */
static inline void kp_geodesic_scores(float *score, const double *product, int lanes,
                                      const kp_attention_head *head) {
  const bool squared = head->score == KP_SCORE_DISTANCE_SQUARED;
  const double kappa = head->kappa;
  const float beta = (float)head->beta;
  if (kappa < 0 && squared)
    kp_geodesic_scores_row(score, product, lanes, kappa, beta, true, true);
  else if (kappa < 0)
    kp_geodesic_scores_row(score, product, lanes, kappa, beta, true, false);
  else if (squared)
    kp_geodesic_scores_row(score, product, lanes, kappa, beta, false, true);
  else
    kp_geodesic_scores_row(score, product, lanes, kappa, beta, false, false);
}

static inline void kp_geodesic_backward(double *product, const float *score_bar, float *kappa_bar,
                                        float *beta_bar, int lanes, const kp_attention_head *head) {
  const bool squared = head->score == KP_SCORE_DISTANCE_SQUARED;
  const double kappa = head->kappa;
  const float beta = (float)head->beta;
  if (kappa < 0 && squared)
    kp_geodesic_backward_row(product, score_bar, kappa_bar, beta_bar, lanes, kappa, beta, true, true);
  else if (kappa < 0)
    kp_geodesic_backward_row(product, score_bar, kappa_bar, beta_bar, lanes, kappa, beta, true, false);
  else if (squared)
    kp_geodesic_backward_row(product, score_bar, kappa_bar, beta_bar, lanes, kappa, beta, false, true);
  else
    kp_geodesic_backward_row(product, score_bar, kappa_bar, beta_bar, lanes, kappa, beta, false, false);
}

#endif
