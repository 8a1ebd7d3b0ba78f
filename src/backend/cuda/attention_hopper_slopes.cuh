/* Scores' gradients in the registers of a warpgroup: what a tile of 64 rows by 64 columns of the other side
 * gives. */
#ifndef KAPPA_BACKEND_CUDA_ATTENTION_HOPPER_SLOPES_CUH
#define KAPPA_BACKEND_CUDA_ATTENTION_HOPPER_SLOPES_CUH

#include "backend/cuda/attention_hopper_tile.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* A thread's two rows: their numbers, and sums over the other side. */
struct kp_slope_rows {
  kp_tile_row row;
  float logsumexp[2], product[2]; /* of queries: to base 2, and <g, o> */
  float center[2];                /* of queries' x: takes an error of <g, o> out of β's gradient */
  float time[2];                  /* centroids: of a key's value, or the gradient of a query's mean's */
  int document[2];
  int position[2];
  float sum[2];      /* of the rounded slopes times t̂, or times (1 - 2σÂ)/E */
  float plain[2];    /* Lorentz and dot: of the rounded slopes */
  float inverse[2];  /* Lorentz: of the rounded slopes over t̂ */
  float time_sum[2]; /* centroids, of keys: of the rounded weights times the times' gradients */
  float level[2];    /* distances: of dL/dz times Â */
  float distances;   /* distances: of slopes times L or L² */
  float kappa;       /* distances: of slopes times what a distance changes with κ */
};

/* What is the same for all pairs of a head. */
struct kp_slope_head {
  float exponent,
      slope; /* of x in the weight's exponent; of a score's gradient, 1 where it is applied later */
  float floor;
};

/* A distance: L, its derivative's root r, and the change with κ: σ(z r - a) or its series. */
struct kp_distance_slopes {
  float length, root, kappa;
  float x; /* of the distance itself */
};

template <int SIGN, bool KAPPA>
__device__ static inline kp_distance_slopes kp_distance_slopes_of(float z, float floor) {
  kp_distance_slopes result;
  float arc, series;
  if (SIGN > 0) {
    float y;
    result.x = kp_arc(z, floor, &y);
    result.length = arc = 0.785398163f - result.x;
    z = kp_larger(z, floor);
    if (z > 0.5f) y = kp_larger(y, 1e-6f); /* the cut locus */
    result.root = kp_inverse_root(y * (1.0f - y));
    series = fmaf(fmaf(fmaf(z, 0.0557252838f, 0.0759940224f), z, 0.133335808f), z, 0.333333328f);
  } else {
    z = kp_larger(z, floor);
    const float square = SIGN < 0 ? fmaf(z, z, z) : z;
    result.root = kp_inverse_root(square);
    const float root = square * result.root;
    result.length = SIGN < 0 ? kp_log2(fmaf(2.0f, z + root, 1.0f)) : root;
    result.x = -result.length;
    arc = SIGN < 0 ? 0.34657359027997264f * result.length : root;
    series = SIGN < 0 ? fmaf(fmaf(fmaf(z, -0.0464544794f, 0.0760241657f), z, -0.13333127f), z, 0.333333329f)
                      : 0.333333333f;
  }
  if (KAPPA) {
    const float along = z * result.root;
    result.kappa = SIGN == 0 || z < 0.0625f ? z * along * series : SIGN > 0 ? along - arc : arc - along;
  }
  return result;
}

/* Which of a thread's 32 pairs are hidden: bit i for element i.  `first` is the other side's first position.
 */
template <bool KEYS>
__device__ static inline uint32_t kp_hidden(const kp_hopper_problem &p, const kp_slope_rows &rows, int first,
                                            bool strange, const float *columns) {
  uint32_t hidden = 0;
  int limit[2];
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const int own = rows.position[r] - first - (int)(threadIdx.x % 4 * 2);
    const int end = p.length - first - (int)(threadIdx.x % 4 * 2);
    limit[r] = KEYS ? (p.causal ? own : -1) : (p.causal ? min(own + 1, end) : end);
  }
#pragma unroll
  for (int i = 0; i < 32; i++) {
    const int column = i / 4 * 8 + i % 2;
    if (KEYS ? column < limit[i / 2 % 2] : column >= limit[i / 2 % 2]) hidden |= 1u << i;
  }
  if (!strange) return hidden;
#pragma unroll
  for (int j = 0; j < 8; j++) {
    const float2 document = kp_columns(columns, KP_ROW_DOCUMENT, j);
#pragma unroll
    for (int e = 0; e < 4; e++)
      if (rows.document[e / 2] != __float_as_int(e % 2 ? document.y : document.x))
        hidden |= 1u << (4 * j + e);
  }
  return hidden;
}

/* From raw products s and the weights' gradients d: the weights (words of pairs) and what multiplies the
 * other side's rows in the gradient. */
template <int SCORE, int SIGN, bool CENTROID, bool KEYS, bool MASKED>
__device__ static inline void kp_slopes_of(const float (&s)[32], const float (&d)[32], kp_slope_rows &rows,
                                           const kp_slope_head &head, const float *columns, uint32_t hidden,
                                           uint32_t (&weights)[16], uint32_t (&slopes)[16]) {
  constexpr bool geodesic = SCORE == KP_SCORE_DISTANCE || SCORE == KP_SCORE_DISTANCE_SQUARED;
  constexpr bool squared = SCORE == KP_SCORE_DISTANCE_SQUARED;
  const float2 none = make_float2(0, 0);
#pragma unroll
  for (int j = 0; j < 8; j++) {
    const float2 level = SCORE == KP_SCORE_DOT ? none : kp_columns(columns, KP_ROW_LEVEL, j);
    const float2 factor = geodesic ? kp_columns(columns, KP_ROW_FACTOR, j) : none;
    const float2 logsumexp = KEYS || CENTROID ? kp_columns(columns, KP_ROW_LOGSUMEXP, j) : none;
    const float2 product = KEYS && !CENTROID ? kp_columns(columns, KP_ROW_PRODUCT, j) : none;
    const float2 time_bar = KEYS && CENTROID ? kp_columns(columns, KP_ROW_RATIO, j) : none;
    float p[4], g[4];
#pragma unroll
    for (int e = 0; e < 4; e++) {
      const int r = e / 2;
      const bool odd = e % 2;
      float x = s[4 * j + e], bar = d[4 * j + e];
      kp_distance_slopes distance = {};
      if (SCORE == KP_SCORE_LORENTZ) x = fmaf(-rows.row.level[r], odd ? level.y : level.x, x);
      if (geodesic) {
        const float z = kp_pair_z(rows.row, r, x, odd ? level.y : level.x, odd ? factor.y : factor.x);
        distance = kp_distance_slopes_of<SIGN, !KEYS>(z, head.floor);
        x = squared ? -distance.length * distance.length : distance.x;
      }
      if (CENTROID) /* a mean's and a value's time */
        bar = KEYS ? fmaf(rows.time[r], odd ? time_bar.y : time_bar.x, bar)
                   : fmaf(rows.time[r], odd ? logsumexp.y : logsumexp.x, bar);
      p[e] = kp_exp2(fmaf(x, head.exponent, KEYS ? -(odd ? logsumexp.y : logsumexp.x) : -rows.logsumexp[r]));
      if (KEYS)
        g[e] = p[e] * fmaf(bar, head.slope, -(odd ? product.y : product.x));
      else
        g[e] = p[e] * (bar - rows.product[r]);
      if (MASKED && hidden >> (4 * j + e) & 1) p[e] = g[e] = 0;
      if (geodesic) {
        if (!KEYS) {
          rows.distances = fmaf(g[e], x - rows.center[r], rows.distances);
          rows.kappa = fmaf(g[e], squared ? distance.kappa * distance.length : distance.kappa, rows.kappa);
        }
        g[e] *= squared ? distance.root * distance.length : distance.root;
        if (!KEYS) rows.level[r] = fmaf(g[e], odd ? level.y : level.x, rows.level[r]);
        g[e] *= odd ? factor.y : factor.x;
      }
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
      if (KEYS) weights[2 * j + r] = kp_pair(p[2 * r], p[2 * r + 1]);
      slopes[2 * j + r] = kp_pair(g[2 * r], g[2 * r + 1]);
    }
  }
}

/* Adds the words' numbers times an array of the other side. */
__device__ static inline void kp_weighted_sums(const uint32_t (&words)[16], const float *columns, int number,
                                               float (&sum)[2]) {
#pragma unroll
  for (int j = 0; j < 8; j++) {
    const float2 weight = kp_columns(columns, number, j);
#pragma unroll
    for (int r = 0; r < 2; r++)
      sum[r] = fmaf(kp_pair_low(words[2 * j + r]), weight.x,
                    fmaf(kp_pair_high(words[2 * j + r]), weight.y, sum[r]));
  }
}

__device__ static inline void kp_plain_sums(const uint32_t (&words)[16], float (&sum)[2]) {
#pragma unroll
  for (int i = 0; i < 16; i++) sum[i % 2] += kp_pair_low(words[i]) + kp_pair_high(words[i]);
}

/* A sign as a type. */
template <int SIGN> struct kp_sign { static constexpr int value = SIGN; };

/* One tile: weights, slopes, and the rows' sums.  `scalars`: κ or β want a gradient. */
template <int SCORE, bool CENTROID, bool KEYS>
__device__ static inline void kp_tile_slopes(const float (&s)[32], const float (&d)[32], kp_slope_rows &rows,
                                             const kp_slope_head &head, int sign, bool masked,
                                             uint32_t hidden, bool scalars, const float *columns,
                                             uint32_t (&weights)[16], uint32_t (&slopes)[16]) {
  constexpr bool geodesic = SCORE == KP_SCORE_DISTANCE || SCORE == KP_SCORE_DISTANCE_SQUARED;
  const auto run = [&](auto of_sign) {
    constexpr int SIGN = decltype(of_sign)::value;
    if (masked)
      kp_slopes_of<SCORE, SIGN, CENTROID, KEYS, true>(s, d, rows, head, columns, hidden, weights, slopes);
    else
      kp_slopes_of<SCORE, SIGN, CENTROID, KEYS, false>(s, d, rows, head, columns, 0, weights, slopes);
  };
  if (!geodesic || sign == 0)
    run(kp_sign<0>{});
  else if (sign < 0)
    run(kp_sign<-1>{});
  else
    run(kp_sign<1>{});
  if (geodesic) kp_weighted_sums(slopes, columns, KP_ROW_RATIO, rows.sum);
  if (SCORE == KP_SCORE_LORENTZ) kp_weighted_sums(slopes, columns, KP_ROW_LEVEL, rows.sum);
  if (KEYS && CENTROID) kp_weighted_sums(weights, columns, KP_ROW_RATIO, rows.time_sum);
  if (!KEYS && !geodesic && scalars) {
    kp_plain_sums(slopes, rows.plain);
    if (SCORE == KP_SCORE_LORENTZ) kp_weighted_sums(slopes, columns, KP_ROW_FACTOR, rows.inverse);
  }
}

#endif
#endif
