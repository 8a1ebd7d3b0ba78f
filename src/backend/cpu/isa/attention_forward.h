/* Attention of one block of queries over all keys that it sees: tiles of keys with an online softmax
 * (Milakov and Gimelshein 2018; Dao et al. 2022), so that memory does not grow with T² but with a tile.
 *
 * A NaN in a query, key or value comes out in the rows that see it; in the last keys of a block, which are
 * multiplied by weights of 0 for the queries that do not see them, also in up to 15 rows before.
 *
 * A thread works on blocks of one head after another.  For geodesic scores it keeps the key rows of the
 * head that it is in, and extends them as later blocks see further. */
#ifndef KAPPA_BACKEND_CPU_ATTENTION_FORWARD_H
#define KAPPA_BACKEND_CPU_ATTENTION_FORWARD_H

#include "backend/cpu/isa/attention_geodesic.h"

/* A thread's memory. */
typedef struct kp_forward_space {
  float *queries;     /* (D, 64): the block's queries transposed, times the scale */
  float *scores;      /* (128, 64): a tile */
  double *query_rows; /* (D + 2, 64): geodesic query rows transposed */
  double *key_rows;   /* (keys, D + 2) */
  double *products;   /* (128, 64): a tile of w */
  int key_count;      /* how many key rows are there */
} kp_forward_space;

/* Lays the space out from `base` and returns its bytes; a NULL base only counts. */
static inline size_t kp_forward_space_lay(kp_forward_space *space, char *base, kp_score score, int size,
                                          int64_t keys) {
  const size_t tile = (size_t)KP_KEY_TILE * KP_QUERY_TILE, row = (size_t)size + 2;
  size_t used = 0;
  *space = (kp_forward_space){.scores = kp_scratch_take(base, &used, tile * sizeof(float))};
  if (score == KP_SCORE_DOT) {
    space->queries = kp_scratch_take(base, &used, (size_t)size * KP_QUERY_TILE * sizeof(float));
  } else {
    space->query_rows = kp_scratch_take(base, &used, row * KP_QUERY_TILE * sizeof(double));
    space->key_rows = kp_scratch_take(base, &used, row * (size_t)keys * sizeof(double));
    space->products = kp_scratch_take(base, &used, tile * sizeof(double));
  }
  return used;
}

/* The block's queries as the right operand of the scores' product. */
static inline void kp_prepare_queries(const kp_attention_head *head, kp_query_block block,
                                      kp_forward_space *space) {
  const float *q = head->q + (int64_t)block.begin * head->q_stride;
  if (head->score == KP_SCORE_DOT) {
    kp_transpose_block(space->queries, q, head->q_stride, block, head->size, (float)head->scale);
    return;
  }
  for (int i = 0; i < block.rows; i++)
    kp_geodesic_row_fill(space->query_rows + i, KP_QUERY_TILE, q + (int64_t)i * head->q_stride, head,
                         kp_query_side(head->size));
  for (int d = 0; d < head->size + 2; d++)
    for (int i = block.rows; i < block.lanes; i++) space->query_rows[d * KP_QUERY_TILE + i] = 0.0;
}

/* Key rows up to `count` of the head that the space is in. */
static inline void kp_prepare_keys(const kp_attention_head *head, int count, kp_forward_space *space) {
  if (head->score == KP_SCORE_DOT) return;
  const int64_t row = head->size + 2;
  for (; space->key_count < count; space->key_count++)
    kp_geodesic_row_fill(space->key_rows + space->key_count * row, 1,
                         head->k + (int64_t)space->key_count * head->kv_stride, head,
                         kp_key_side(head->size));
}

/* The scores of a tile, one row a key; for geodesic scores also their products w. */
static inline void kp_score_tile(const kp_attention_head *head, kp_query_block block, kp_key_tile tile,
                                 const kp_forward_space *space) {
  const int lanes = block.lanes - tile.lane;
  float *scores = space->scores + tile.lane;
  if (head->score == KP_SCORE_DOT) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, tile.count, lanes, head->size, 1.0f,
                head->k + (int64_t)tile.first * head->kv_stride, head->kv_stride, space->queries + tile.lane,
                KP_QUERY_TILE, 0.0f, scores, KP_QUERY_TILE);
    return;
  }
  const int row = head->size + 2;
  double *products = space->products + tile.lane;
  cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, tile.count, lanes, row, 1.0,
              space->key_rows + (int64_t)tile.first * row, row, space->query_rows + tile.lane, KP_QUERY_TILE,
              0.0, products, KP_QUERY_TILE);
  for (int j = 0; j < tile.count; j++)
    kp_geodesic_scores(scores + j * KP_QUERY_TILE, products + j * KP_QUERY_TILE, lanes, head);
}

/* The online softmax of a block: largest score so far, sum of exp(score - largest), and what the last tile
 * multiplied older sums by. */
typedef struct kp_softmax_lanes {
  float largest[KP_QUERY_TILE], sum[KP_QUERY_TILE], correction[KP_QUERY_TILE];
} kp_softmax_lanes;

/* Turns a tile of scores into weights exp(score - largest); those of hidden pairs are 0. */
static inline void kp_softmax_tile(const kp_attention_head *head, kp_query_block block, kp_key_tile tile,
                                   float *scores, kp_softmax_lanes *softmax) {
  float largest[KP_QUERY_TILE], sum[KP_QUERY_TILE];
  const int lanes = block.lanes;
  memcpy(largest, softmax->largest, sizeof largest);
  memset(sum, 0, sizeof sum);
  for (int j = 0; j < tile.count; j++) {
    const float *s = scores + j * KP_QUERY_TILE;
    const int hidden = kp_hidden_lanes(head, block, tile.first + j);
#pragma omp simd
    for (int i = hidden / KP_LANES * KP_LANES; i < lanes; i++)
      largest[i] = i >= hidden && s[i] > largest[i] ? s[i] : largest[i];
  }
#pragma omp simd
  for (int i = 0; i < lanes; i++) softmax->correction[i] = kp_expf(softmax->largest[i] - largest[i]);
  for (int j = 0; j < tile.count; j++) {
    float *s = scores + j * KP_QUERY_TILE;
    const int hidden = kp_hidden_lanes(head, block, tile.first + j), start = hidden / KP_LANES * KP_LANES;
    for (int i = tile.lane; i < start; i++) s[i] = 0.0f;
#pragma omp simd
    for (int i = start; i < lanes; i++) {
      const float weight = kp_expf(s[i] - largest[i]);
      s[i] = i >= hidden ? weight : 0.0f;
      sum[i] += s[i];
    }
  }
#pragma omp simd
  for (int i = 0; i < lanes; i++) {
    softmax->sum[i] = softmax->sum[i] * softmax->correction[i] + sum[i];
    softmax->largest[i] = largest[i];
  }
}

/* Row i times factor[i]. */
static inline void kp_scale_rows(float *rows, int stride, const float *factor, int count, int size) {
  for (int i = 0; i < count; i++) {
    float *row = rows + (int64_t)i * stride;
#pragma omp simd
    for (int d = 0; d < size; d++) row[d] *= factor[i];
  }
}

/* o: the block's rows of the output, `stride` apart.  logsumexp: its rows there, or NULL. */
static inline void kp_attend_block(const kp_attention_head *head, kp_query_block block,
                                   kp_forward_space *space, float *o, int stride, float *logsumexp) {
  const int visible = kp_visible_keys(head, block);
  kp_softmax_lanes softmax = {.sum = {0}};
  for (int i = 0; i < KP_QUERY_TILE; i++) softmax.largest[i] = -INFINITY;
  kp_prepare_queries(head, block, space);
  kp_prepare_keys(head, visible, space);
  kp_key_tile tile;
  for (int first = 0; first < visible; first += tile.count) {
    tile = kp_key_tile_of(head, block, first);
    float *tile_o = o + (int64_t)tile.lane * stride;
    kp_score_tile(head, block, tile, space);
    kp_softmax_tile(head, block, tile, space->scores, &softmax);
    if (first > 0)
      kp_scale_rows(tile_o, stride, softmax.correction + tile.lane, block.rows - tile.lane, head->size);
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, block.rows - tile.lane, head->size, tile.count, 1.0f,
                space->scores + tile.lane, KP_QUERY_TILE, head->v + (int64_t)first * head->kv_stride,
                head->kv_stride, first > 0 ? 1.0f : 0.0f, tile_o, stride);
  }
  float inverse[KP_QUERY_TILE];
  for (int i = 0; i < block.rows; i++) inverse[i] = 1.0f / softmax.sum[i];
  kp_scale_rows(o, stride, inverse, block.rows, head->size);
  for (int i = 0; logsumexp != NULL && i < block.rows; i++)
    logsumexp[i] = softmax.largest[i] + kp_logf(softmax.sum[i]);
}

#endif
