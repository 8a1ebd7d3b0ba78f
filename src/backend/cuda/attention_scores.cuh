/* Scores on the tensor cores: what a product <u_i, u_j> of bfloat16 rows becomes, element by element.
 *
 * The products are of the rows as they lie in memory, so they are exact but for float32 sums; the geometry of
 * a row is in a few numbers beside it (kp_row_numbers), from geometry/geodesic_score.h and lorentz.h in
 * float. Constants are folded so that a score comes out in units of log 2, ready for the exponential of
 * base 2.
 *
 *   dot       G
 *   Lorentz   G - x_i x_j: with t = √(|σu|² + c) and a = t - √c = |σu|²/(t + √c),
 *             c + <Q, K> = σ²G - t_i a_j - √c a_i, whose last term is the row's own and cannot change its
 *             weights.  No difference of large numbers is left.
 *   geodesic  z = κ w = x_i x_j + y_i y_j - z_i z_j G, then a function of z:
 *     near, all |z| <= 1/2 in a warp's part of the tile:  d = 2 √w φ(z) by a polynomial, no special function
 *           but the root (none for d²);
 *     κ < 0:  √-κ d = acosh(1 - 2z) = log(1 + 2W + 2√(W + W²)), W = -z: one root, one logarithm;
 *     κ > 0:  √κ d/2 = arcsin √z, which is π/2 - arcsin √(1-z) for z > 1/2: one root and the same polynomial.
 *   d² is its square.  φ is kp_asin_ratio of geometry/functions.h; the fit's error is 8e-7, and with the
 * chip's approximate functions scores are right to 1e-6 of the largest |score| of a tile: bfloat16 operands
 * leave 1e-3.
 *
 * Cost of an element beside the products: dot 4 operations and 1 special function (of which a multiprocessor
 * does 16 a cycle, and 128 plain operations); Lorentz 5 and 1; geodesic near 15 and 2 (d²: 15 and 1), κ < 0
 * 17 and 3, κ > 0 19 and 2. */
#ifndef KAPPA_BACKEND_CUDA_ATTENTION_SCORES_CUH
#define KAPPA_BACKEND_CUDA_ATTENTION_SCORES_CUH

#include "backend/cuda/attention_mma.cuh"

constexpr float KP_LOG2_E = 1.44269504088896f, KP_LN_2 = 0.693147180559945f;

/* The families that kernels are compiled for; the power of a distance is asked at run time.  The kernels of
 * plain dot products are for plain means; those of Lorentz scores do dot products with other values, as rows
 * whose numbers are 0. */
enum kp_score_family { KP_FAMILY_DOT, KP_FAMILY_LORENTZ, KP_FAMILY_GEODESIC };

static inline __host__ __device__ kp_score_family kp_score_family_of(int score, int values) {
  if (kp_is_geodesic(score)) return KP_FAMILY_GEODESIC;
  return score == KP_SCORE_DOT && values == KP_VALUES_MEAN ? KP_FAMILY_DOT : KP_FAMILY_LORENTZ;
}

/* A head's constants. */
struct kp_score_head {
  float kappa;           /* not 0 for geodesic scores: flat space is one of very small curvature */
  float factor;          /* dot, Lorentz: of the product, in units of log 2; >= 0, the sign is in the rows */
  float near, far;       /* geodesic: of √|z| φ or z φ², and of log2 or log2² */
  float shift;           /* of |z|, at coincident points */
  float slope;           /* of the score's derivative by z, with β = 1 */
  float own;             /* Lorentz: of the row's own term, in natural units */
  bool squared, negated; /* negated: queries enter with the other sign */
};

constexpr float KP_FLAT_CURVATURE = 1e-12f;

/* For `beta`; the backward pass takes 1 and multiplies later, and needs no negated rows. */
__device__ static inline kp_score_head kp_score_head_of(const kp_attention_problem &p, int h, float beta) {
  const float kappa = kp_head_kappa(p, h);
  kp_score_head head = {};
  head.kappa = kappa;
  float factor = beta * p.scale * KP_LOG2_E;
  if (p.score == KP_SCORE_LORENTZ) {
    factor = 2 * beta * p.scale * p.scale * KP_LOG2_E;
    head.own = -2 * beta;
  }
  head.negated = factor < 0;
  /* Never 0, for hidden pairs have a score of minus infinity. */
  head.factor = fabsf(factor) < 1e-30f ? 1e-30f : fabsf(factor);
  if (!kp_is_geodesic(p.score)) return head;
  head.squared = p.score == KP_SCORE_DISTANCE_SQUARED;
  head.kappa = fabsf(kappa) < KP_FLAT_CURVATURE ? copysignf(KP_FLAT_CURVATURE, kappa) : kappa;
  const float size = fabsf(head.kappa), root = sqrtf(size);
  head.near = head.squared ? -4 * beta * KP_LOG2_E / head.kappa : -2 * beta * KP_LOG2_E / root;
  head.far = head.squared ? -beta * KP_LN_2 / size : -beta / root;
  head.shift = size * 1e-12f;
  head.slope = head.squared ? -4 / head.kappa : -root / head.kappa;
  head.negated = false;
  head.factor = 1;
  return head;
}

/* What a row has beside its numbers. */
struct alignas(16) kp_row_numbers {
  float x, y, z;
  float own; /* see kp_score_head */
};

/* φ(z) for |z| <= 1/2, error 8e-7. */
__device__ static inline float kp_arcsine_near(float z) {
  float value = 0.0215544929f;
  value = fmaf(value, z, 0.0250512801f);
  value = fmaf(value, z, 0.0207986107f);
  value = fmaf(value, z, 0.029065387f);
  value = fmaf(value, z, 0.0447578035f);
  value = fmaf(value, z, 0.0750688934f);
  value = fmaf(value, z, 0.166664444f);
  return fmaf(value, z, 0.999999447f);
}

/* φ'(z) there, error 7e-6. */
__device__ static inline float kp_arcsine_near_slope(float z) {
  float value = 0.163194523f;
  value = fmaf(value, z, 0.161263289f);
  value = fmaf(value, z, 0.0891097344f);
  value = fmaf(value, z, 0.100748729f);
  value = fmaf(value, z, 0.122636334f);
  value = fmaf(value, z, 0.134516735f);
  value = fmaf(value, z, 0.149978417f);
  return fmaf(value, z, 0.166661909f);
}

/* Beyond this W its square leaves float. */
constexpr float KP_FAR_LIMIT = 1e18f;

enum kp_reach { KP_REACH_NEAR, KP_REACH_HYPERBOLIC, KP_REACH_SPHERICAL };

/* Score of a geodesic pair from z, in units of log 2. */
template <kp_reach REACH, bool SQUARED>
__device__ static inline float kp_geodesic_score(float z, const kp_score_head &head) {
  if (REACH == KP_REACH_NEAR) {
    const float phi = kp_arcsine_near(z);
    return SQUARED ? head.near * z * (phi * phi) : head.near * kp_fast_sqrt(fabsf(z)) * phi;
  }
  if (REACH == KP_REACH_HYPERBOLIC) {
    const float W = kp_bounded(fabsf(z), KP_FAR_LIMIT), root = kp_fast_sqrt(fmaf(W, W, W));
    const float log = kp_fast_log2(fmaf(2.0f, root, fmaf(2.0f, W, 1.0f)));
    return SQUARED ? head.far * log * log : head.far * log;
  }
  const float inner = fabsf(kp_bounded(z, 1.0f - z)), root = kp_fast_sqrt(inner);
  const float small = root * kp_arcsine_near(inner), arc = z > 0.5f ? 1.57079632679f - small : small;
  return SQUARED ? head.near * arc * arc : head.near * arc;
}

/* All elements of a thread's part of a tile, in place. */
template <kp_reach REACH, bool SQUARED, int N>
__device__ static inline void kp_geodesic_scores_as(float (&s)[N], const kp_score_head &head) {
#pragma unroll
  for (int i = 0; i < N; i++) s[i] = kp_geodesic_score<REACH, SQUARED>(s[i], head);
}

/* The score of a pair with β = 1 and what its gradient leads to. */
struct kp_geodesic_slope {
  float score;    /* in units of log 2 */
  float by_z;     /* of the natural score */
  float by_kappa; /* κ times that of the natural score at fixed w, or at fixed w and score where far */
};

/* SQUARED matters where near; far the head says it. */
template <kp_reach REACH, bool SQUARED>
__device__ static inline kp_geodesic_slope kp_geodesic_backward(float z, const kp_score_head &head,
                                                                bool kappa) {
  kp_geodesic_slope slope;
  slope.by_kappa = 0;
  if (REACH == KP_REACH_NEAR) {
    const float phi = kp_arcsine_near(z);
    if (SQUARED) {
      slope.score = head.near * z * (phi * phi);
      slope.by_z = head.slope * phi * kp_fast_rsqrt(1.0f - z);
      if (kappa) slope.by_kappa = 2 * head.slope * z * z * phi * kp_arcsine_near_slope(z);
      return slope;
    }
    const float size = fabsf(z) + head.shift, inverse = kp_fast_rsqrt(size), root = size * inverse;
    slope.score = head.near * root * phi;
    slope.by_z = head.slope * inverse * kp_fast_rsqrt(1.0f - z);
    if (kappa) slope.by_kappa = 2 * head.slope * size * root * kp_arcsine_near_slope(z);
    return slope;
  }
  const bool squared = head.squared;
  if (REACH == KP_REACH_HYPERBOLIC) {
    const float W = kp_bounded(fabsf(z), KP_FAR_LIMIT), square = fmaf(W, W, W + head.shift);
    const float inverse = kp_fast_rsqrt(square), root = square * inverse;
    const float log = kp_fast_log2(fmaf(2.0f, root, fmaf(2.0f, W, 1.0f)));
    slope.score = head.far * log * (squared ? log : 1.0f);
    slope.by_z = head.slope * inverse * (squared ? 0.5f * KP_LN_2 * log : 1.0f);
  } else {
    const float rest = 1.0f - z, inner = fabsf(kp_bounded(z, rest));
    const float small = kp_fast_sqrt(inner) * kp_arcsine_near(inner);
    const float arc = z > 0.5f ? 1.57079632679f - small : small, power = squared ? arc : 1.0f;
    const float inverse = kp_fast_rsqrt((fabsf(z) + head.shift) * kp_floored(rest, 1e-6f));
    slope.score = head.near * arc * power;
    slope.by_z = head.slope * inverse * power;
  }
  /* κ by_kappa = w by_w - D / 2 (D for squares), D the distance or its square. */
  if (kappa) slope.by_kappa = slope.by_z * z - (squared ? KP_LN_2 : 0.5f * KP_LN_2) * slope.score;
  return slope;
}

/* How a warp computes its part: the same for all its lanes. */
template <int N>
__device__ static inline kp_reach kp_reach_of(const float (&z)[N], const kp_score_head &head) {
  bool far = false;
#pragma unroll
  for (int i = 0; i < N; i++) far |= !(fabsf(z[i]) <= 0.5f);
  if (!__any_sync(0xffffffffu, far)) return KP_REACH_NEAR;
  return head.kappa < 0 ? KP_REACH_HYPERBOLIC : KP_REACH_SPHERICAL;
}

template <int N> __device__ static inline void kp_geodesic_scores(float (&s)[N], const kp_score_head &head) {
  const kp_reach reach = kp_reach_of(s, head);
  if (head.squared) {
    if (reach == KP_REACH_NEAR)
      kp_geodesic_scores_as<KP_REACH_NEAR, true>(s, head);
    else if (reach == KP_REACH_HYPERBOLIC)
      kp_geodesic_scores_as<KP_REACH_HYPERBOLIC, true>(s, head);
    else
      kp_geodesic_scores_as<KP_REACH_SPHERICAL, true>(s, head);
  } else if (reach == KP_REACH_NEAR) {
    kp_geodesic_scores_as<KP_REACH_NEAR, false>(s, head);
  } else if (reach == KP_REACH_HYPERBOLIC) {
    kp_geodesic_scores_as<KP_REACH_HYPERBOLIC, false>(s, head);
  } else {
    kp_geodesic_scores_as<KP_REACH_SPHERICAL, false>(s, head);
  }
}

#endif
