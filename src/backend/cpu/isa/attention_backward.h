/* The backward pass of one tile of scores, and of the rows at its edges (attention_backward.c has the
 * formulas).
 *
 * Sums over keys (a query's) are kept by lane for one block, sums over queries (a key's) for the whole head.
 */
#ifndef KAPPA_BACKEND_CPU_ATTENTION_BACKWARD_H
#define KAPPA_BACKEND_CPU_ATTENTION_BACKWARD_H

#include "backend/cpu/isa/attention_forward.h"

/* Scalars of one head of one sequence. */
typedef struct kp_scalar_bars {
  double kappa, beta;
} kp_scalar_bars;

/* What all queries give to the times of one key and value: Σ S̄ Q₀ of a Lorentz score, Σ P M̄₀ of a Lorentz
 * value. */
typedef struct kp_key_sums {
  double score, value;
} kp_key_sums;

/* A thread's memory. */
typedef struct kp_backward_space {
  kp_forward_space forward;
  float *bar_lanes;       /* (D', 64): the block's rows of M̄ transposed */
  float *mean_bars;       /* (64, D'): M̄ of Lorentz values; that of plain means is Ō itself */
  double *line_lanes;     /* (D' + 1, 64): M̄ of midpoints transposed */
  double *line_bars;      /* (64, D' + 1): M̄ of midpoints */
  double *value_bars;     /* (T, D' + 1): gradients of the midpoints' lines */
  float *weights;         /* (128, 64): a tile of P */
  float *score_bars;      /* (128, 64): a tile of P̄, then S̄ */
  double *query_lines;    /* (64, D + 2): geodesic query rows */
  double *query_row_bars; /* (64, D + 2): their gradients */
  double *key_row_bars;   /* (T, D + 2): gradients of the key rows */
  kp_key_sums *key_sums;  /* (T) */
  const float *bars;      /* M̄ of the block */
  int bars_stride;
  /* Of the block, by query.  mean: rowsum(P ∘ P̄); time_bars: M̄₀; from score_sum on sums over the keys so far.
   */
  float logsumexp[KP_QUERY_TILE], mean[KP_QUERY_TILE];
  double time_bars[KP_QUERY_TILE];
  float score_sum[KP_QUERY_TILE];    /* Σ S̄ */
  float score_moment[KP_QUERY_TILE]; /* Σ S̄ score */
  float mean_score[KP_QUERY_TILE];   /* Σ P score */
  float kappa[KP_QUERY_TILE];        /* geodesic: Σ β S̄ ∂score/∂κ at fixed w */
  kp_lorentz_sums lorentz;
} kp_backward_space;

static inline size_t kp_backward_space_lay(kp_backward_space *space, char *base,
                                           const kp_attention_arguments *a) {
  *space = (kp_backward_space){.bars = NULL};
  const size_t queries = KP_QUERY_TILE, row = (size_t)a->head_size + 2, length = (size_t)a->length;
  const size_t value = (size_t)kp_attention_value_size(a);
  size_t used = kp_forward_space_lay(&space->forward, base, a, a->length);
  space->weights = kp_scratch_take(base, &used, KP_KEY_TILE * queries * sizeof(float));
  space->score_bars = kp_scratch_take(base, &used, KP_KEY_TILE * queries * sizeof(float));
  if (a->values == KP_VALUES_MIDPOINT) {
    space->line_lanes = kp_scratch_take(base, &used, (value + 1) * queries * sizeof(double));
    space->line_bars = kp_scratch_take(base, &used, (value + 1) * queries * sizeof(double));
    space->value_bars = kp_scratch_take(base, &used, (value + 1) * length * sizeof(double));
  } else {
    space->bar_lanes = kp_scratch_take(base, &used, value * queries * sizeof(float));
  }
  if (a->values == KP_VALUES_LORENTZ)
    space->mean_bars = kp_scratch_take(base, &used, value * queries * sizeof(float));
  if (a->values == KP_VALUES_LORENTZ || a->score == KP_SCORE_LORENTZ)
    space->key_sums = kp_scratch_take(base, &used, length * sizeof(kp_key_sums));
  if (kp_score_is_geodesic(a->score)) {
    space->query_lines = kp_scratch_take(base, &used, row * queries * sizeof(double));
    space->query_row_bars = kp_scratch_take(base, &used, row * queries * sizeof(double));
    space->key_row_bars = kp_scratch_take(base, &used, row * length * sizeof(double));
  }
  return used;
}

static inline void kp_backward_keys_begin(const kp_attention_head *head, kp_backward_space *space) {
  const size_t keys = (size_t)head->keys;
  if (space->key_sums != NULL) memset(space->key_sums, 0, keys * sizeof(kp_key_sums));
  if (space->value_bars != NULL)
    memset(space->value_bars, 0, keys * ((size_t)head->value_size + 1) * sizeof(double));
  if (space->key_row_bars != NULL)
    memset(space->key_row_bars, 0, keys * ((size_t)head->size + 2) * sizeof(double));
}

/* The block's queries are prepared. */
static inline void kp_backward_sums_begin(const kp_attention_head *head, kp_query_block block,
                                          kp_backward_space *space) {
  const int row = head->size + 2;
  memset(space->score_sum, 0, sizeof space->score_sum);
  memset(space->score_moment, 0, sizeof space->score_moment);
  memset(space->mean_score, 0, sizeof space->mean_score);
  memset(space->kappa, 0, sizeof space->kappa);
  memset(&space->lorentz, 0, sizeof space->lorentz);
  if (!kp_score_is_geodesic(head->score)) return;
  memset(space->query_row_bars, 0, (size_t)(KP_QUERY_TILE * row) * sizeof(double));
  for (int i = 0; i < block.rows; i++)
    for (int d = 0; d < row; d++)
      space->query_lines[i * row + d] = space->forward.query_rows[d * KP_QUERY_TILE + i];
}

/* The weights from the scores (without β); those of hidden pairs and of lanes without a query are 0. */
static inline void kp_weights_again(const kp_attention_head *head, kp_query_block block, kp_key_tile tile,
                                    kp_tile_documents documents, kp_backward_space *space) {
  const float beta = (float)head->beta;
  for (int j = 0; j < tile.count; j++) {
    const float *s = space->forward.scores + j * KP_QUERY_TILE;
    float *weight = space->weights + j * KP_QUERY_TILE;
    const int hidden = kp_hidden_lanes(head, block, tile.first + j), start = hidden / KP_LANES * KP_LANES;
    for (int i = tile.lane; i < start; i++) weight[i] = 0.0f;
#pragma omp simd
    for (int i = start; i < block.lanes; i++) {
      const float value = kp_expf(beta * s[i] - space->logsumexp[i]);
      weight[i] = i >= hidden ? value : 0.0f;
    }
    for (int i = block.rows; i < block.lanes; i++) weight[i] = 0.0f;
  }
  if (documents == KP_DOCUMENTS_MIXED) kp_mask_documents(head, block, tile, space->weights, 0.0f);
}

/* P̄ becomes S̄ in one row of a tile. */
static inline void kp_mean_score_bars(kp_backward_space *space, const float *weight, float *bar, int start,
                                      int lanes) {
#pragma omp simd
  for (int i = start; i < lanes; i++) bar[i] = weight[i] * (bar[i] - space->mean[i]);
}

/* The same for Lorentz values: <M̄, v> of the space becomes S̄.  Returns Σ P M̄₀. */
static inline double kp_lorentz_score_bars(kp_backward_space *space, const float *weight, float *bar,
                                           int start, int lanes, double time) {
  double time_sum = 0.0;
#pragma omp simd reduction(+ : time_sum)
  for (int i = start; i < lanes; i++) {
    const double value = (double)bar[i] + time * space->time_bars[i] - (double)space->mean[i];
    time_sum += (double)weight[i] * space->time_bars[i];
    bar[i] = weight[i] * (float)value;
  }
  return time_sum;
}

/* One row's part of β's gradient.  The score gradients of a query sum to zero, but their rounding errors do
 * not: the mean score of each query, which would multiply that sum, is left out of the gradient at the end.
 */
static inline void kp_temperature_sums(kp_backward_space *space, const float *score, const float *weight,
                                       const float *bar, int start, int lanes) {
#pragma omp simd
  for (int i = start; i < lanes; i++) {
    space->score_sum[i] += bar[i];
    space->score_moment[i] += bar[i] * score[i];
    space->mean_score[i] += weight[i] * score[i];
  }
}

/* P̄ and V̄ of a tile of midpoints. */
static inline void kp_midpoint_bars(const kp_attention_head *head, kp_query_block block, kp_key_tile tile,
                                    kp_backward_space *space) {
  const int line = head->value_size + 1, lanes = block.lanes - tile.lane, rows = block.rows - tile.lane;
  const int count = tile.count * KP_QUERY_TILE;
  const int64_t key = (int64_t)tile.first * line;
  double *tile_lines = space->forward.weight_lines;
  cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, tile.count, lanes, line, 1.0,
              space->forward.value_lines + key, line, space->line_lanes + tile.lane, KP_QUERY_TILE, 0.0,
              tile_lines + tile.lane, KP_QUERY_TILE);
  for (int j = 0; j < tile.count; j++) {
#pragma omp simd
    for (int i = tile.lane; i < block.lanes; i++)
      space->score_bars[j * KP_QUERY_TILE + i] = (float)tile_lines[j * KP_QUERY_TILE + i];
  }
#pragma omp simd
  for (int i = 0; i < count; i++) tile_lines[i] = (double)space->weights[i];
  cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, tile.count, line, rows, 1.0, tile_lines + tile.lane,
              KP_QUERY_TILE, space->line_bars + (int64_t)tile.lane * line, line, 1.0, space->value_bars + key,
              line);
}

/* The same for plain means and Lorentz values, without their times. */
static inline void kp_value_bars(const kp_attention_head *head, kp_query_block block, kp_key_tile tile,
                                 kp_head_rows gradient, kp_backward_space *space) {
  const int lanes = block.lanes - tile.lane, rows = block.rows - tile.lane;
  const int64_t key = tile.first;
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, tile.count, lanes, head->value_size, 1.0f,
              head->v + key * head->v_stride, head->v_stride, space->bar_lanes + tile.lane, KP_QUERY_TILE,
              0.0f, space->score_bars + tile.lane, KP_QUERY_TILE);
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, tile.count, head->value_size, rows, 1.0f,
              space->weights + tile.lane, KP_QUERY_TILE,
              space->bars + (int64_t)tile.lane * space->bars_stride, space->bars_stride, 1.0f,
              gradient.v + key * gradient.v_stride, gradient.v_stride);
}

/* P̄ becomes S̄ in a tile. */
static inline void kp_score_bars(const kp_attention_head *head, kp_query_block block, kp_key_tile tile,
                                 bool temperature, kp_backward_space *space) {
  for (int j = 0; j < tile.count; j++) {
    const float *score = space->forward.scores + j * KP_QUERY_TILE,
                *weight = space->weights + j * KP_QUERY_TILE;
    float *bar = space->score_bars + j * KP_QUERY_TILE;
    const int key = tile.first + j;
    if (head->values == KP_VALUES_LORENTZ)
      space->key_sums[key].value +=
          kp_lorentz_score_bars(space, weight, bar, tile.lane, block.lanes, space->forward.value_times[key]);
    else
      kp_mean_score_bars(space, weight, bar, tile.lane, block.lanes);
    if (temperature) kp_temperature_sums(space, score, weight, bar, tile.lane, block.lanes);
  }
}

/* ---- Scores ---- */

/* Q̄ and K̄ of the inner product of a dot or Lorentz score, and the sums of the latter's times. */
static inline void kp_product_tile_backward(const kp_attention_head *head, kp_query_block block,
                                            kp_key_tile tile, kp_head_rows gradient,
                                            kp_backward_space *space) {
  const bool lorentz = head->score == KP_SCORE_LORENTZ;
  const float factor = (float)(head->beta * (lorentz ? 2.0 * head->scale * head->scale : head->scale));
  const int64_t query = block.begin + tile.lane, key = tile.first;
  const int rows = block.rows - tile.lane;
  const float *bars = space->score_bars + tile.lane;
  for (int j = 0; lorentz && j < tile.count; j++)
    space->key_sums[tile.first + j].score += kp_lorentz_backward(
        space->score_bars + j * KP_QUERY_TILE, space->forward.query_times,
        space->forward.key_times[tile.first + j], tile.lane, block.lanes, &space->lorentz);
  cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, rows, head->size, tile.count, factor, bars,
              KP_QUERY_TILE, head->k + key * head->k_stride, head->k_stride, 1.0f,
              gradient.q + query * gradient.q_stride, gradient.q_stride);
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, tile.count, head->size, rows, factor, bars,
              KP_QUERY_TILE, head->q + query * head->q_stride, head->q_stride, 1.0f,
              gradient.k + key * gradient.k_stride, gradient.k_stride);
}

/* The gradients of the query and key rows of a geodesic score. */
static inline void kp_geodesic_tile_backward(const kp_attention_head *head, kp_query_block block,
                                             kp_key_tile tile, kp_backward_space *space) {
  const int row = head->size + 2, rows = block.rows - tile.lane;
  const int64_t key = (int64_t)tile.first * row, query = (int64_t)tile.lane * row;
  for (int j = 0; j < tile.count; j++)
    kp_geodesic_backward(space->forward.products + j * KP_QUERY_TILE, space->score_bars + j * KP_QUERY_TILE,
                         space->kappa, tile.lane, block.lanes, head);
  const double *bars = space->forward.products + tile.lane;
  cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, rows, row, tile.count, 1.0, bars, KP_QUERY_TILE,
              space->forward.key_rows + key, row, 1.0, space->query_row_bars + query, row);
  cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, tile.count, row, rows, 1.0, bars, KP_QUERY_TILE,
              space->query_lines + query, row, 1.0, space->key_row_bars + key, row);
}

/* ---- Rows ---- */

/* What a Lorentz score's time gives to the gradient of its row: Σ S̄ (the other's time) stands in `sum`. */
static inline void kp_time_backward(const kp_attention_head *head, float *gradient, const float *row,
                                    double time, double sum) {
  kp_add_row(gradient, row, -2.0 * head->beta * head->scale * head->scale * sum / time, head->size);
}

/* The block's queries, κ̄ and β̄. */
static inline void kp_backward_block_finish(const kp_attention_head *head, kp_query_block block,
                                            kp_head_rows gradient, const kp_backward_space *space,
                                            kp_scalar_bars *scalars) {
  const double c = kp_lorentz_radius(head->kappa);
  for (int i = 0; i < block.rows; i++) {
    const int64_t t = block.begin + i;
    const float *q = head->q + t * head->q_stride;
    float *q_bar = gradient.q + t * gradient.q_stride;
    scalars->beta +=
        (double)space->score_moment[i] - (double)space->mean_score[i] * (double)space->score_sum[i];
    if (head->score == KP_SCORE_LORENTZ) {
      scalars->kappa += head->beta * c * c * (double)space->lorentz.radius[i];
      kp_time_backward(head, q_bar, q, space->forward.query_times[i], (double)space->lorentz.time[i]);
    } else if (kp_score_is_geodesic(head->score)) {
      scalars->kappa += (double)space->kappa[i];
      scalars->kappa += kp_geodesic_row_carry(space->query_row_bars + (int64_t)i * (head->size + 2), q, head,
                                              kp_query_side(head->size), q_bar);
    }
  }
}

/* V̄ of the times and lines that value j has. */
static inline double kp_value_finish(const kp_attention_head *head, int64_t j, float *v_bar,
                                     const kp_backward_space *space) {
  const int size = head->value_size;
  const float *v = head->v + j * head->v_stride;
  const double square = kp_inner_product(v, v, size);
  double kappa = 0.0, vector = 0.0;
  if (head->values == KP_VALUES_LORENTZ) {
    kp_add_row(
        v_bar, v,
        kp_value_row_backward(head->values, square, head->kappa, 0.0, space->key_sums[j].value, &kappa),
        size);
    return kappa;
  }
  const double *bar = space->value_bars + j * (size + 1);
  const double scale = kp_value_row_of(head->values, square, head->kappa).scale;
  for (int d = 0; d < size; d++) vector += bar[d] * (double)v[d];
  const double along = kp_value_row_backward(head->values, square, head->kappa, vector, bar[size], &kappa);
  for (int d = 0; d < size; d++) v_bar[d] = (float)((double)v_bar[d] + scale * bar[d] + along * (double)v[d]);
  return kappa;
}

/* The head's keys and values, and their part of κ̄. */
static inline void kp_backward_keys_finish(const kp_attention_head *head, kp_head_rows gradient,
                                           const kp_backward_space *space, kp_scalar_bars *scalars) {
  for (int64_t j = 0; j < head->keys; j++) {
    const float *k = head->k + j * head->k_stride;
    float *k_bar = gradient.k + j * gradient.k_stride;
    if (head->score == KP_SCORE_LORENTZ)
      kp_time_backward(head, k_bar, k, space->forward.key_times[j], space->key_sums[j].score);
    if (kp_score_is_geodesic(head->score))
      scalars->kappa += kp_geodesic_row_carry(space->key_row_bars + j * (head->size + 2), k, head,
                                              kp_key_side(head->size), k_bar);
    if (head->values != KP_VALUES_MEAN)
      scalars->kappa += kp_value_finish(head, j, gradient.v + j * gradient.v_stride, space);
  }
}

#endif
