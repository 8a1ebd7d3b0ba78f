/* Attention of a few new rows over a cache of keys and values: what its kernels share.
 *
 * The cache of a head is split over blocks, so that one sequence fills the chip.  Each block leaves, for each
 * of its query rows, the largest score, the sum of the weights relative to it, and the weighted sums of the
 * values; a second kernel adds those of all splits in order. */
#ifndef KAPPA_BACKEND_CUDA_ATTENTION_CACHED_CUH
#define KAPPA_BACKEND_CUDA_ATTENTION_CACHED_CUH

#include "backend/cuda/kernel.cuh"

#include "backend/attention_values.h"
#include "geometry/geodesic_score.h"

enum { KP_CACHED_MOST_SPLITS = 64, KP_CACHED_LEAST_KEYS = 128, KP_CACHED_BLOCKS = 528 };

/* What a block leaves of a query row beside its sums of values. */
struct kp_split_state {
  float largest, sum;
  double extra; /* of the values' times or cosines */
};

/* Keys and values are (B, H', P, ·); pitches are in elements. */
struct kp_cached_heads {
  int64_t batch, length, capacity; /* B, T, P */
  int heads, kv_heads, size, value_size;
  kp_score score;
  kp_values values;
  double scale;
  const void *q, *k, *v;
  int64_t q_pitch, k_pitch, v_pitch, o_pitch;
  kp_numbers kappa, beta;
  int kappa_step, beta_step; /* from head to head: 0 or 1 */
  double absent_kappa;
  const int32_t *start;
  void *o;
  kp_results time;        /* (N, H), or absent */
  int splits, together;   /* query heads of a block */
  kp_split_state *states; /* (N, H, splits) */
  void *sums;             /* (N, H, splits, D'): double where values are not plain, else float */
  kp_device_step *step;
  int node;
};

__host__ __device__ static inline bool kp_sums_are_wide(kp_values values) {
  return values != KP_VALUES_MEAN;
}

template <bool WIDE> struct kp_sum_type { using type = float; };
template <> struct kp_sum_type<true> { using type = double; };

/* The position of the first new row; one that leaves no room for them is reported and read as 0. */
__device__ static inline int kp_cached_start(const int32_t *start, int64_t length, int64_t capacity,
                                             kp_device_step *step, int node) {
  const int32_t at = *start;
  if (at >= 0 && at + length <= capacity) return at;
  kp_report(step, KP_FAULT_POSITION, node, 0, at, capacity - length + 1);
  return 0;
}

__device__ static inline int kp_cached_start(const kp_cached_heads &a) {
  return kp_cached_start(a.start, a.length, a.capacity, a.step, a.node);
}

__device__ static inline double kp_kappa_of(const kp_cached_heads &a, int head) {
  return a.kappa.at == NULL ? a.absent_kappa : (double)a.kappa[head * a.kappa_step];
}

__device__ static inline double kp_beta_of(const kp_cached_heads &a, int head) {
  return a.beta.at == NULL ? 1 : (double)a.beta[head * a.beta_step];
}

/* What a query or a key contributes to a score beside its direction. */
struct kp_score_row {
  double scale, cosine, alpha; /* geodesic; or `alpha` the time of a lifted row */
};

/* square = |scale · u|²; without GEODESIC there is no distance among the scores. */
template <bool GEODESIC>
__device__ static inline kp_score_row kp_score_row_of(kp_score score, double square, double kappa) {
  kp_score_row row = {1, 0, 0};
  if (score == KP_SCORE_LORENTZ) {
    row.alpha = kp_lorentz_time(square, kp_lorentz_radius(kappa));
  } else if (GEODESIC && score != KP_SCORE_DOT) {
    const kp_geodesic_row geodesic = kp_geodesic_row_of(square, kappa);
    row = {geodesic.scale, geodesic.cosine, geodesic.alpha};
  }
  return row;
}

/* The score of a pair, divided by β, from its product <q, k>. */
template <bool GEODESIC>
__device__ static inline double kp_score_of(const kp_cached_heads &a, const kp_score_row &q,
                                            const kp_score_row &k, double product, double kappa) {
  if (GEODESIC) {
    const kp_geodesic_row i = {q.scale, q.cosine, q.alpha, 0}, j = {k.scale, k.cosine, k.alpha, 0};
    const double inner = q.scale * k.scale * a.scale * a.scale * product;
    return -kp_geodesic_pair_of(&i, &j, inner, kappa, a.score == KP_SCORE_DISTANCE ? 1 : 2).distance;
  }
  if (a.score == KP_SCORE_LORENTZ)
    return 2 * (kp_lorentz_radius(kappa) + a.scale * a.scale * product - q.alpha * k.alpha);
  return a.scale * product;
}

/* Bytes of scratch memory for `rows` query rows of all heads. */
size_t kp_cached_scratch(const kp_attention_arguments *arguments, int64_t capacity);

/* Fills in what follows from the arguments, the places of scalars κ and β among the inputs, and scratch. */
kp_cached_heads kp_cached_heads_of(const kp_call *call, const kp_attention_arguments *arguments,
                                   int64_t capacity, int scalars, void *scratch);

/* Attends all new rows and writes the outputs. */
kp_status kp_cached_attend(const kp_call *call, const kp_cached_heads *heads, kp_error *error);

/* A few query rows of whole packs. */
bool kp_cached_rows_can(const kp_call *call, const kp_cached_heads *heads);
kp_status kp_cached_rows(const kp_call *call, const kp_cached_heads *heads, kp_error *error);

/* Blocks of 16 query rows: any sizes. */
kp_status kp_cached_tiles(const kp_call *call, const kp_cached_heads *heads, kp_error *error);

#endif
