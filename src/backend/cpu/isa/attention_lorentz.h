/* Lorentz scores on a tile: 2c + 2<Q, K> = 2c + 2σ²<q, k> - 2 Q₀K₀ with the times Q₀ = √(σ²|q|² + c), σ the
 * scale.
 *
 * The product <q, k> is a float matrix product, the times and what is done with them double.  Both terms are
 * near |q||k|σ² and cancel for close points, so a score is off by about 1e-7 σ²|q||k|: as much as that of a
 * dot product of these rows, and no relative precision is claimed for small distances.
 *
 * Backward: Q₀ and K₀ are functions of the rows, so that q̄ = 2σ² Σ S̄ (k - (K₀/Q₀) q): a matrix product, and
 * the sums Σ S̄ K₀ of each query and Σ S̄ Q₀ of each key. */
#ifndef KAPPA_BACKEND_CPU_ATTENTION_LORENTZ_H
#define KAPPA_BACKEND_CPU_ATTENTION_LORENTZ_H

#include "backend/cpu/isa/attention_tile.h"
#include "geometry/lorentz.h"

static inline double kp_row_time(const kp_attention_head *head, const float *row) {
  const double square = head->scale * head->scale * kp_inner_product(row, row, head->size);
  return kp_lorentz_time(square, kp_lorentz_radius(head->kappa));
}

/* One row of a tile: scores that hold 2βσ²<q, k>, completed. */
static inline void kp_lorentz_scores(float *score, const double *query_time, double key_time, int lanes,
                                     const kp_attention_head *head) {
  const double shift = 2.0 * head->beta * kp_lorentz_radius(head->kappa), twice = 2.0 * head->beta * key_time;
#pragma omp simd
  for (int i = 0; i < lanes; i++) score[i] = (float)((double)score[i] + shift - query_time[i] * twice);
}

/* Lane by lane: Σ S̄ K₀, and Σ S̄ ∂score/∂c. */
typedef struct kp_lorentz_sums {
  float time[KP_QUERY_TILE], radius[KP_QUERY_TILE];
} kp_lorentz_sums;

/* One row of score gradients; returns Σ S̄ Q₀.  Times of a flat space (large c) differ by little: their
 * difference is taken in double. */
static inline double kp_lorentz_backward(const float *score_bar, const double *query_time, double key_time,
                                         int start, int lanes, kp_lorentz_sums *sums) {
  const float time = (float)key_time, inverse = 1.0f / time;
  float key_sum = 0.0f;
#pragma omp simd reduction(+ : key_sum)
  for (int i = start; i < lanes; i++) {
    const float bar = score_bar[i], own = (float)query_time[i];
    const float difference = (float)(query_time[i] - key_time);
    key_sum += bar * own;
    sums->time[i] += bar * time;
    sums->radius[i] -= bar * (difference * inverse) * (difference / own);
  }
  return (double)key_sum;
}

/* gradient += factor · row */
static inline void kp_add_row(float *gradient, const float *row, double factor, int size) {
  const float by = (float)factor;
#pragma omp simd
  for (int d = 0; d < size; d++) gradient[d] += by * row[d];
}

#endif
