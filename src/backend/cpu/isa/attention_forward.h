/* Attention of one block of queries over all keys that it sees: tiles of keys with an online softmax
 * (Milakov and Gimelshein 2018; Dao et al. 2022), so that memory does not grow with T² but with a tile.
 *
 * A NaN in a query, key or value comes out in the rows that see it; in the last keys of a block, which are
 * multiplied by weights of 0 for the queries that do not see them, also in up to 15 rows before, and where a
 * tile meets a border of documents in the rows of its other documents.
 *
 * A thread works on blocks of one head after another.  It keeps what it derives from the keys and values of
 * the head that it is in (geodesic rows, times), and extends it as later blocks see further. */
#ifndef KAPPA_BACKEND_CPU_ATTENTION_FORWARD_H
#define KAPPA_BACKEND_CPU_ATTENTION_FORWARD_H

#include <float.h>

#include "backend/cpu/isa/attention_geodesic.h"
#include "backend/cpu/isa/attention_lorentz.h"
#include "backend/cpu/isa/attention_means.h"

/* A thread's memory. */
typedef struct kp_forward_space {
  float *queries;       /* (D, 64): the block's queries transposed, times the factor of their product */
  float *scores;        /* (128, 64): a tile */
  double *query_times;  /* (64): of Lorentz scores */
  double *query_rows;   /* (D + 2, 64): geodesic query rows transposed */
  double *products;     /* (128, 64): a tile of w */
  double *key_times;    /* (keys): of Lorentz scores */
  double *key_rows;     /* (keys, D + 2): geodesic */
  double *value_times;  /* (keys): of Lorentz values */
  double *value_lines;  /* (keys, D' + 1): of midpoints */
  int key_count;        /* how many keys the four before know */
  double *mean_lines;   /* (64, D' + 1): of midpoints, the block's weighted sums */
  double *weight_lines; /* (128, 64): a tile of weights for their product */
} kp_forward_space;

static inline bool kp_score_is_geodesic(kp_score score) {
  return score == KP_SCORE_DISTANCE || score == KP_SCORE_DISTANCE_SQUARED;
}

/* Lays the space out from `base` and returns its bytes; a NULL base only counts. */
static inline size_t kp_forward_space_lay(kp_forward_space *space, char *base,
                                          const kp_attention_arguments *a, int64_t keys) {
  const size_t tile = (size_t)KP_KEY_TILE * KP_QUERY_TILE, size = (size_t)a->head_size, row = size + 2,
               count = (size_t)keys;
  size_t used = 0;
  *space = (kp_forward_space){.scores = kp_scratch_take(base, &used, tile * sizeof(float))};
  if (kp_score_is_geodesic(a->score)) {
    space->query_rows = kp_scratch_take(base, &used, row * KP_QUERY_TILE * sizeof(double));
    space->key_rows = kp_scratch_take(base, &used, row * count * sizeof(double));
    space->products = kp_scratch_take(base, &used, tile * sizeof(double));
  } else {
    space->queries = kp_scratch_take(base, &used, size * KP_QUERY_TILE * sizeof(float));
  }
  if (a->score == KP_SCORE_LORENTZ) {
    space->query_times = kp_scratch_take(base, &used, KP_QUERY_TILE * sizeof(double));
    space->key_times = kp_scratch_take(base, &used, count * sizeof(double));
  }
  if (a->values == KP_VALUES_LORENTZ)
    space->value_times = kp_scratch_take(base, &used, count * sizeof(double));
  if (a->values == KP_VALUES_MIDPOINT) {
    const size_t line = (size_t)kp_attention_value_size(a) + 1;
    space->value_lines = kp_scratch_take(base, &used, count * line * sizeof(double));
    space->mean_lines = kp_scratch_take(base, &used, KP_QUERY_TILE * line * sizeof(double));
    space->weight_lines = kp_scratch_take(base, &used, tile * sizeof(double));
  }
  return used;
}

static inline void kp_prepare_geodesic_queries(const kp_attention_head *head, kp_query_block block,
                                               const float *q, double *rows) {
  for (int i = 0; i < block.rows; i++)
    kp_geodesic_row_fill(rows + i, KP_QUERY_TILE, q + (int64_t)i * head->q_stride, head,
                         kp_query_side(head->size));
  for (int d = 0; d < head->size + 2; d++)
    for (int i = block.rows; i < block.lanes; i++) rows[d * KP_QUERY_TILE + i] = 0.0;
}

/* The block's queries as the right operand of the scores' product. */
static inline void kp_prepare_queries(const kp_attention_head *head, kp_query_block block,
                                      kp_forward_space *space) {
  const float *q = head->q + (int64_t)block.begin * head->q_stride;
  if (kp_score_is_geodesic(head->score)) {
    kp_prepare_geodesic_queries(head, block, q, space->query_rows);
    return;
  }
  const bool lorentz = head->score == KP_SCORE_LORENTZ;
  kp_transpose_block(space->queries, q, head->q_stride, block, head->size,
                     (float)(head->beta * (lorentz ? 2.0 * head->scale * head->scale : head->scale)));
  for (int i = 0; lorentz && i < block.lanes; i++)
    space->query_times[i] = i < block.rows ? kp_row_time(head, q + (int64_t)i * head->q_stride) : 1.0;
}

/* What scores and means need to know of the keys and values up to `count` of the head that the space is in.
 */
static inline void kp_prepare_keys(const kp_attention_head *head, int count, kp_forward_space *space) {
  const int64_t row = head->size + 2;
  for (int64_t j = space->key_count; j < count; j++) {
    const float *k = head->k + j * head->k_stride, *v = head->v + j * head->v_stride;
    if (space->key_rows != NULL)
      kp_geodesic_row_fill(space->key_rows + j * row, 1, k, head, kp_key_side(head->size));
    if (space->key_times != NULL) space->key_times[j] = kp_row_time(head, k);
    if (space->value_times != NULL) space->value_times[j] = kp_value_time(head, v);
    if (space->value_lines != NULL)
      kp_value_line_fill(head, v, space->value_lines + j * (head->value_size + 1));
  }
  space->key_count = count > space->key_count ? count : space->key_count;
}

static inline void kp_geodesic_tile(const kp_attention_head *head, int lanes, kp_key_tile tile,
                                    const kp_forward_space *space) {
  const int row = head->size + 2;
  double *products = space->products + tile.lane;
  cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, tile.count, lanes, row, 1.0,
              space->key_rows + (int64_t)tile.first * row, row, space->query_rows + tile.lane, KP_QUERY_TILE,
              0.0, products, KP_QUERY_TILE);
  for (int j = 0; j < tile.count; j++)
    kp_geodesic_scores(space->scores + tile.lane + j * KP_QUERY_TILE, products + j * KP_QUERY_TILE, lanes,
                       head);
}

/* The scores of a tile, one row a key; for geodesic scores also their products w. */
static inline void kp_score_tile(const kp_attention_head *head, kp_query_block block, kp_key_tile tile,
                                 const kp_forward_space *space) {
  const int lanes = block.lanes - tile.lane;
  float *scores = space->scores + tile.lane;
  if (kp_score_is_geodesic(head->score)) {
    kp_geodesic_tile(head, lanes, tile, space);
    return;
  }
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, tile.count, lanes, head->size, 1.0f,
              head->k + (int64_t)tile.first * head->k_stride, head->k_stride, space->queries + tile.lane,
              KP_QUERY_TILE, 0.0f, scores, KP_QUERY_TILE);
  for (int j = 0; head->score == KP_SCORE_LORENTZ && j < tile.count; j++)
    kp_lorentz_scores(scores + j * KP_QUERY_TILE, space->query_times + tile.lane,
                      space->key_times[tile.first + j], lanes, head);
}

/* The online softmax of a block: largest score so far, sum of exp(score - largest), what the last tile
 * multiplied older sums by; and the weighted sums of the values' times, or of their lines. */
typedef struct kp_softmax_lanes {
  float largest[KP_QUERY_TILE], sum[KP_QUERY_TILE], correction[KP_QUERY_TILE];
  double time[KP_QUERY_TILE];
  double *lines; /* (64, D' + 1) of midpoints, or NULL */
} kp_softmax_lanes;

/* The largest scores of old and of this tile. */
static inline void kp_largest_scores(const kp_attention_head *head, kp_query_block block, kp_key_tile tile,
                                     const float *scores, float *largest) {
  for (int j = 0; j < tile.count; j++) {
    const float *s = scores + j * KP_QUERY_TILE;
    const int hidden = kp_hidden_lanes(head, block, tile.first + j);
#pragma omp simd
    for (int i = hidden / KP_LANES * KP_LANES; i < block.lanes; i++)
      largest[i] = i >= hidden && s[i] > largest[i] ? s[i] : largest[i];
  }
}

/* Turns a tile of scores into weights exp(score - largest); those of hidden pairs are 0. */
static inline void kp_softmax_tile(const kp_attention_head *head, kp_query_block block, kp_key_tile tile,
                                   float *scores, kp_softmax_lanes *softmax) {
  float largest[KP_QUERY_TILE], sum[KP_QUERY_TILE];
  const int lanes = block.lanes;
  memcpy(largest, softmax->largest, sizeof largest);
  memset(sum, 0, sizeof sum);
  kp_largest_scores(head, block, tile, scores, largest);
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
    if (factor[i] == 1.0f) continue;
#pragma omp simd
    for (int d = 0; d < size; d++) row[d] *= factor[i];
  }
}

/* Adds a tile's weighted lines to the block's. */
static inline void kp_weigh_lines(const kp_attention_head *head, kp_query_block block, kp_key_tile tile,
                                  const kp_forward_space *space, const kp_softmax_lanes *softmax) {
  const int line = head->value_size + 1, count = tile.count * KP_QUERY_TILE;
#pragma omp simd
  for (int i = 0; i < count; i++) space->weight_lines[i] = (double)space->scores[i];
  for (int i = tile.lane; i < block.rows; i++)
    for (int d = 0; d < line; d++) softmax->lines[i * line + d] *= (double)softmax->correction[i];
  cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, block.rows - tile.lane, line, tile.count, 1.0,
              space->weight_lines + tile.lane, KP_QUERY_TILE, space->value_lines + (int64_t)tile.first * line,
              line, 1.0, softmax->lines + (int64_t)tile.lane * line, line);
}

/* Adds a tile's weighted values to the block's sums. */
static inline void kp_weigh_tile(const kp_attention_head *head, kp_query_block block, kp_key_tile tile,
                                 const kp_forward_space *space, kp_softmax_lanes *softmax,
                                 kp_block_output output) {
  const int rows = block.rows - tile.lane;
  float *o = output.o + (int64_t)tile.lane * output.stride;
  if (head->values == KP_VALUES_MIDPOINT) {
    kp_weigh_lines(head, block, tile, space, softmax);
    return;
  }
  if (head->values == KP_VALUES_LORENTZ) {
    for (int i = tile.lane; i < block.lanes; i++) softmax->time[i] *= (double)softmax->correction[i];
    for (int j = 0; j < tile.count; j++)
      kp_weigh_time(space->scores + j * KP_QUERY_TILE, space->value_times[tile.first + j], tile.lane,
                    block.lanes, softmax->time);
  }
  kp_scale_rows(o, output.stride, softmax->correction + tile.lane, rows, head->value_size);
  cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, rows, head->value_size, tile.count, 1.0f,
              space->scores + tile.lane, KP_QUERY_TILE, head->v + (int64_t)tile.first * head->v_stride,
              head->v_stride, 1.0f, o, output.stride);
}

/* lines: where midpoints are summed, else NULL. */
static inline void kp_block_begin(const kp_attention_head *head, kp_query_block block,
                                  kp_softmax_lanes *softmax, kp_block_output output, double *lines) {
  *softmax = (kp_softmax_lanes){.sum = {0}, .lines = lines};
  for (int i = 0; i < KP_QUERY_TILE; i++) softmax->largest[i] = -FLT_MAX;
  for (int i = 0; i < block.rows; i++)
    memset(output.o + (int64_t)i * output.stride, 0, (size_t)head->value_size * sizeof(float));
  if (lines != NULL) memset(lines, 0, KP_QUERY_TILE * ((size_t)head->value_size + 1) * sizeof(double));
}

/* Adds all of the head's keys that the block sees; the space knows them and the block's queries. */
static inline void kp_attend_keys(const kp_attention_head *head, kp_query_block block,
                                  const kp_forward_space *space, kp_softmax_lanes *softmax,
                                  kp_block_output output) {
  const int visible = kp_visible_keys(head, block);
  kp_key_tile tile;
  for (int first = 0; first < visible; first += tile.count) {
    tile = kp_key_tile_of(head, block, first);
    const kp_tile_documents documents = kp_tile_documents_of(head, block, tile);
    if (documents == KP_DOCUMENTS_APART) continue;
    kp_score_tile(head, block, tile, space);
    if (documents == KP_DOCUMENTS_MIXED) kp_mask_documents(head, block, tile, space->scores, -INFINITY);
    kp_softmax_tile(head, block, tile, space->scores, softmax);
    kp_weigh_tile(head, block, tile, space, softmax, output);
  }
}

static inline void kp_block_finish(const kp_attention_head *head, kp_query_block block,
                                   const kp_softmax_lanes *softmax, kp_block_output output) {
  for (int i = 0; i < block.rows; i++)
    kp_finish_row(head, output, i, softmax->time[i], (double)softmax->sum[i],
                  softmax->lines == NULL ? NULL : softmax->lines + i * (head->value_size + 1));
  for (int i = 0; output.logsumexp != NULL && i < block.rows; i++)
    output.logsumexp[i] = softmax->largest[i] + kp_logf(softmax->sum[i]);
}

static inline void kp_attend_block(const kp_attention_head *head, kp_query_block block,
                                   kp_forward_space *space, kp_block_output output) {
  kp_softmax_lanes softmax;
  kp_block_begin(head, block, &softmax, output, space->mean_lines);
  kp_prepare_queries(head, block, space);
  kp_prepare_keys(head, kp_visible_keys(head, block), space);
  kp_attend_keys(head, block, space, &softmax, output);
  kp_block_finish(head, block, &softmax, output);
}

#endif
