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

/* row[i · step] for i < D + 2: scale · u as a query or key row. */
static inline void kp_geodesic_row_fill(double *row, int step, const float *u, const kp_attention_head *head,
                                        kp_geodesic_side side) {
  const int size = head->size;
  const double scale = head->scale;
  const kp_geodesic_row at = kp_geodesic_row_of(scale * scale * kp_inner_product(u, u, size), head->kappa);
  const double along = side.factor * at.cosine * at.scale * scale;
  for (int d = 0; d < size; d++) row[d * step] = along * (double)u[d];
  row[side.square * step] = at.alpha;
  row[side.cosine * step] = at.cosine * at.cosine;
}

/* Adds the gradient of u, given that of its row.  Returns u's part of the gradient of κ. */
static inline double kp_geodesic_row_carry(const double *bar, const float *u, const kp_attention_head *head,
                                           kp_geodesic_side side, float *gradient) {
  const int size = head->size;
  const double kappa = head->kappa, scale = head->scale;
  const double norm = scale * scale * kp_inner_product(u, u, size);
  const kp_geodesic_row at = kp_geodesic_row_of(norm, kappa);
  double inner = 0, kappa_bar = 0;
#pragma omp simd reduction(+ : inner)
  for (int d = 0; d < size; d++) inner += bar[d] * (double)u[d];
  inner *= scale;
  const double square_bar = 2.0 * bar[side.square] * at.scale, cosine_factor = side.factor * at.cosine;
  const double m_bar_u = cosine_factor * inner + square_bar * norm;
  const double cosine_bar = side.factor * at.scale * inner + 2.0 * at.cosine * bar[side.cosine];
  const double z_bar = kp_geodesic_row_backward(norm, kappa, m_bar_u, cosine_bar, &kappa_bar);
  const double along = scale * scale * (at.scale * square_bar + 2.0 * kappa * z_bar);
  const double across = scale * at.scale * cosine_factor;
  for (int d = 0; d < size; d++) {
    const double value = across * bar[d] + along * (double)u[d];
    gradient[d] = (float)((double)gradient[d] + value);
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

/* The same for |κ w| < 1/4, where no bound is near: in float from the start. */
static inline kp_tile_pair kp_near_pair_of(double product, float kappa) {
  const float w = (float)((product < 0.0 ? 0.0 : product) + KP_SCORE_EPSILON);
  return (kp_tile_pair){w, kappa * w, 1.0f - kappa * w};
}

/* Whether |κ w| < 1/4 for all of a row.  Most rows of small or slightly curved heads are: they need neither
 * logarithm nor second root. */
static inline bool kp_row_is_near(const double *product, int start, int lanes, double kappa) {
  double largest = 0.0;
#pragma omp simd reduction(max : largest)
  for (int i = start; i < lanes; i++) largest = product[i] > largest ? product[i] : largest;
  return fabs(kappa) * (largest + KP_SCORE_EPSILON) < 0.25;
}

/* Σ c_i z^i by Horner's rule. */
static inline float kp_polynomial_at(const float *c, int degree, float z) {
  float value = c[degree];
  for (int i = degree - 1; i >= 0; i--) value = value * z + c[i];
  return value;
}

/* φ(z) = arcsin(sqrt z) / sqrt z for -1/4 <= z <= 1/2: a minimax fit, error 1e-9. */
static inline float kp_arcsine_core(float z) {
  const float c[] = {1.0f,           0.166666648f,    0.07499961439f, 0.04464610821f,
                     0.03040717489f, 0.02219933775f,  0.01691873706f, 0.01758305969f,
                     0.01105088149f, -0.01566179864f, 0.04942114481f};
  return kp_polynomial_at(c, 10, z);
}

/* φ'(z) there, relative error 1.4e-8: a fit of its own, as the derivative of the fit above is far worse. */
static inline float kp_arcsine_slope_core(float z) {
  const float c[] = {0.166666668f,  0.1500000673f,  0.1339278278f,  0.1215153469f,
                     0.1119390394f, 0.104694694f,   0.09447625151f, 0.08396572884f,
                     0.1474038904f, 0.08352789323f, -0.3014917828f, 0.6352125821f};
  return kp_polynomial_at(c, 11, z);
}

/* φ of a pair.  Hyperbolic: asinh t = log(t + sqrt(1 + t²)) far out, with t² = -z.
 * Spherical: arcsin s = π/2 - arcsin sqrt(1 - s²) in the far half. */
static inline float kp_arcsine_ratio(kp_tile_pair pair, bool hyperbolic) {
  const float root = sqrtf(pair.complement);
  if (hyperbolic) {
    const float t = sqrtf(-pair.z), far = kp_logf(t + root) / t, near = kp_arcsine_core(pair.z);
    return pair.z < -0.25f ? far : near;
  }
  const float core = kp_arcsine_core(pair.z > 0.5f ? pair.complement : pair.z);
  const float far = (1.57079632679f - root * core) / sqrtf(pair.z);
  return pair.z > 0.5f ? far : core;
}

/* φ' of a pair with ratio φ. */
static inline float kp_arcsine_slope(kp_tile_pair pair, float ratio, bool hyperbolic) {
  const float far = (1.0f / sqrtf(pair.complement) - ratio) / (2.0f * pair.z);
  const bool outside = hyperbolic ? pair.z < -0.25f : pair.z > 0.5f;
  return outside ? far : kp_arcsine_slope_core(pair.z);
}

/* How a row is computed: constants of the loops below, which are compiled once for each. */
typedef struct kp_geodesic_kind {
  bool hyperbolic, squared, near;
} kp_geodesic_kind;

static inline kp_tile_pair kp_pair_for(double product, double kappa, kp_geodesic_kind kind) {
  return kind.near ? kp_near_pair_of(product, (float)kappa) : kp_tile_pair_of(product, kappa);
}

static inline float kp_ratio_for(kp_tile_pair pair, kp_geodesic_kind kind) {
  return kind.near ? kp_arcsine_core(pair.z) : kp_arcsine_ratio(pair, kind.hyperbolic);
}

/* Scores from the products w: one row of a tile. */
static inline __attribute__((always_inline)) void kp_geodesic_scores_row(float *score, const double *product,
                                                                         int lanes,
                                                                         const kp_attention_head *head,
                                                                         kp_geodesic_kind kind) {
  const double kappa = head->kappa;
  const float beta = (float)head->beta;
#pragma omp simd
  for (int i = 0; i < lanes; i++) {
    const kp_tile_pair pair = kp_pair_for(product[i], kappa, kind);
    const float ratio = kp_ratio_for(pair, kind);
    const float distance = kind.squared ? 4.0f * pair.w * ratio * ratio : 2.0f * sqrtf(pair.w) * ratio;
    score[i] = -beta * distance;
  }
}

/* Turns one row's products w into the gradients of w, given those of the scores times β; adds the gradient of
 * κ at fixed w, lane by lane. */
static inline __attribute__((always_inline)) void
kp_geodesic_backward_row(double *product, const float *score_bar, float *kappa_bar, int start, int lanes,
                         const kp_attention_head *head, kp_geodesic_kind kind) {
  const double kappa = head->kappa;
  const float beta = (float)head->beta;
#pragma omp simd
  for (int i = start; i < lanes; i++) {
    const kp_tile_pair pair = kp_pair_for(product[i], kappa, kind);
    const float ratio = kp_ratio_for(pair, kind), bar = -beta * score_bar[i];
    const float slope =
        kind.near ? kp_arcsine_slope_core(pair.z) : kp_arcsine_slope(pair, ratio, kind.hyperbolic);
    const float root = kind.squared ? pair.w : sqrtf(pair.w), cut = sqrtf(pair.complement);
    const float by_w = kind.squared ? 4.0f * ratio / cut : 1.0f / (root * cut);
    const float by_kappa = 2.0f * pair.w * root * slope * (kind.squared ? 4.0f * ratio : 1.0f);
    kappa_bar[i] += bar * by_kappa;
    product[i] = (double)(bar * by_w);
  }
}

/* The loops above for the head's sign of curvature, power of the distance and the row's reach. */
static inline void kp_geodesic_scores(float *score, const double *product, int lanes,
                                      const kp_attention_head *head) {
  const bool squared = head->score == KP_SCORE_DISTANCE_SQUARED;
  if (kp_row_is_near(product, 0, lanes, head->kappa)) {
    if (squared)
      kp_geodesic_scores_row(score, product, lanes, head, (kp_geodesic_kind){false, true, true});
    else
      kp_geodesic_scores_row(score, product, lanes, head, (kp_geodesic_kind){false, false, true});
  } else if (head->kappa < 0) {
    if (squared)
      kp_geodesic_scores_row(score, product, lanes, head, (kp_geodesic_kind){true, true, false});
    else
      kp_geodesic_scores_row(score, product, lanes, head, (kp_geodesic_kind){true, false, false});
  } else if (squared) {
    kp_geodesic_scores_row(score, product, lanes, head, (kp_geodesic_kind){false, true, false});
  } else {
    kp_geodesic_scores_row(score, product, lanes, head, (kp_geodesic_kind){false, false, false});
  }
}

static inline void kp_geodesic_backward(double *product, const float *score_bar, float *kappa_bar, int start,
                                        int lanes, const kp_attention_head *head) {
  const bool squared = head->score == KP_SCORE_DISTANCE_SQUARED;
  if (kp_row_is_near(product, start, lanes, head->kappa)) {
    if (squared)
      kp_geodesic_backward_row(product, score_bar, kappa_bar, start, lanes, head,
                               (kp_geodesic_kind){false, true, true});
    else
      kp_geodesic_backward_row(product, score_bar, kappa_bar, start, lanes, head,
                               (kp_geodesic_kind){false, false, true});
  } else if (head->kappa < 0) {
    if (squared)
      kp_geodesic_backward_row(product, score_bar, kappa_bar, start, lanes, head,
                               (kp_geodesic_kind){true, true, false});
    else
      kp_geodesic_backward_row(product, score_bar, kappa_bar, start, lanes, head,
                               (kp_geodesic_kind){true, false, false});
  } else if (squared) {
    kp_geodesic_backward_row(product, score_bar, kappa_bar, start, lanes, head,
                             (kp_geodesic_kind){false, true, false});
  } else {
    kp_geodesic_backward_row(product, score_bar, kappa_bar, start, lanes, head,
                             (kp_geodesic_kind){false, false, false});
  }
}

#endif
