/* The end of a tile of gradients: from sums over the other side to gradients of rows, of κ and of β.
 *
 * With X = Σ S' u the sum of the other side's rows, a row u of its own has the gradient
 *   dot       X
 *   Lorentz   X - (Σ S' t̂ / t̂_own) u
 *   distance  -k̂ E X + 2 (k̂ α' R - k̂ E' <u, X>) u,  R = Σ S' (1 - 2σÂ)/E,  primes by |u|² */
#ifndef KAPPA_BACKEND_CUDA_ATTENTION_HOPPER_FINISH_CUH
#define KAPPA_BACKEND_CUDA_ATTENTION_HOPPER_FINISH_CUH

#include "backend/cuda/attention_hopper_slopes.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* Element pairs of a row of a matrix as the accumulators hold them. */
__device__ static inline uint32_t source_pair(const kp_hopper_matrix &m, int64_t row, int column, int j) {
  return *(const uint32_t *)(m.at + row * m.pitch + m.column + column + 8 * j + threadIdx.x % 4 * 2);
}

/* Row r of d becomes of · d + along · (the source's row). */
template <int D>
__device__ static inline void combine(float (&d)[D / 2], int r, float of, float along,
                                      const kp_hopper_matrix &m, int64_t row, int column) {
#pragma unroll
  for (int j = 0; j < D / 8; j++) {
    const uint32_t pair = source_pair(m, row, column, j);
    d[4 * j + 2 * r] = fmaf(d[4 * j + 2 * r], of, along * kp_pair_low(pair));
    d[4 * j + 2 * r + 1] = fmaf(d[4 * j + 2 * r + 1], of, along * kp_pair_high(pair));
  }
}

template <int D>
__device__ static inline float along_source(const float (&d)[D / 2], int r, const kp_hopper_matrix &m,
                                            int64_t row, int column) {
  float sum = 0;
#pragma unroll
  for (int j = 0; j < D / 8; j++) {
    const uint32_t pair = source_pair(m, row, column, j);
    sum = fmaf(d[4 * j + 2 * r], kp_pair_low(pair), fmaf(d[4 * j + 2 * r + 1], kp_pair_high(pair), sum));
  }
  return kp_quad_sum(sum);
}

/* What a tile gives to κ and β; the same in the four threads of a row. */
struct scalar_bars {
  float kappa, beta;
};

/* What queries' rows give through the scores themselves. */
template <int SCORE>
__device__ static inline scalar_bars score_bars(const kp_hopper_problem &p, const kp_hopper_head &head,
                                                const kp_slope_rows &rows, int r, float sum, float along) {
  scalar_bars bars = {0, 0};
  const float square = p.scale * p.scale;
  if (SCORE == KP_SCORE_DOT || SCORE == KP_SCORE_LORENTZ) {
    /* Slopes of a row add up to 0: subtracting the logsumexp from the scores takes their rounding away. */
    const float plain = kp_quad_sum(rows.plain[r]);
    const float natural =
        rows.logsumexp[r] == INFINITY ? 0.0f : rows.logsumexp[r] * 0.6931471805599453f + head.constant;
    const float shift = fabsf(head.beta) < 1e-6f ? 0.0f : natural / head.beta;
    if (SCORE == KP_SCORE_DOT) {
      bars.beta = p.scale * along - shift * plain;
    } else {
      const float time = rows.row.level[r], inverse = kp_quad_sum(rows.inverse[r]);
      bars.beta = 2 * square * (along - time * sum) + (2 * head.c - shift) * plain;
      if (time > 0) bars.kappa = -head.beta * head.c * head.c * (sum / time + time * inverse - 2 * plain);
    }
    return bars;
  }
  const float inverse = rsqrtf(head.level), unit = head.unit, level = kp_quad_sum(rows.level[r]);
  /* The thread's own share of both rows: counted once, and four times less for the quad. */
  const float distances = r == 0 ? kp_quad_sum(rows.distances) : 0.0f,
              kappa = r == 0 ? kp_quad_sum(rows.kappa) : 0.0f;
  if (SCORE == KP_SCORE_DISTANCE) {
    bars.beta = 2 * unit * inverse * distances;
    bars.kappa = -head.beta * inverse * inverse * inverse * kappa;
  } else {
    bars.beta = 4 * unit * unit * inverse * inverse * distances;
    bars.kappa = -4 * head.beta * unit * inverse * inverse * inverse * inverse * kappa;
  }
  bars.kappa -= 2 * head.slope * inverse * inverse * rows.row.level[r] * level;
  return bars;
}

/* Turns the sum X of the other side's rows into the gradient of row r. */
template <int D, int SCORE, bool KEYS>
__device__ static inline scalar_bars finish_row(const kp_hopper_problem &p, const kp_hopper_head &head,
                                                const kp_slope_rows &rows, int r, float (&d)[D / 2],
                                                const kp_hopper_matrix &source, int64_t row, int column,
                                                const float *at, bool scalars) {
  const float slope = KEYS ? 1.0f : head.slope, sum = kp_quad_sum(rows.sum[r]);
  float of = slope, along_factor = 0, along = 0;
  scalar_bars bars = {0, 0};
  if (SCORE != KP_SCORE_LORENTZ && (SCORE != KP_SCORE_DOT || (scalars && !KEYS)))
    along = along_source<D>(d, r, source, row, column);
  if (SCORE == KP_SCORE_LORENTZ) {
    along_factor = -slope * sum / rows.row.level[r];
    if (scalars && !KEYS) along = along_source<D>(d, r, source, row, column);
  }
  if (!KEYS && scalars) bars = score_bars<SCORE>(p, head, rows, r, sum, along);
  if (SCORE == KP_SCORE_DISTANCE || SCORE == KP_SCORE_DISTANCE_SQUARED) {
    of = -slope * rows.row.factor[r];
    along_factor =
        2 * slope *
        (at[KP_ROW_LEVEL_SLOPE * KP_ROW_BLOCK] * sum - at[KP_ROW_FACTOR_SLOPE * KP_ROW_BLOCK] * along);
    bars.kappa += slope * (at[KP_ROW_LEVEL_KAPPA * KP_ROW_BLOCK] * sum -
                           at[KP_ROW_FACTOR_KAPPA * KP_ROW_BLOCK] * along);
  }
  if (SCORE != KP_SCORE_DOT) {
    combine<D>(d, r, of, along_factor, source, row, column);
  } else {
#pragma unroll
    for (int j = 0; j < D / 8; j++) d[4 * j + 2 * r] *= of, d[4 * j + 2 * r + 1] *= of;
  }
  return bars;
}

#endif
#endif
