/* What the attention kernels share: one head of one sequence, tiles of scores, and their memory.
 *
 * Scores are computed in tiles of up to KP_KEY_TILE keys by KP_QUERY_TILE queries and stand
 * transposed: one row a key, one lane a query.  Then every matrix product of the forward and the
 * backward pass has its left operand as it lies in memory or transposed and its right one as it lies
 * (the two fast cases of a BLAS); only the 64 queries of a block are transposed.  Maxima and sums of
 * the softmax run down the lanes without a horizontal reduction.
 *
 * The products are single-threaded BLAS calls from inside a parallel region.  Lanes beyond the last
 * query of a block hold zeros, so they compute finite scores that nobody reads. */
#ifndef KAPPA_BACKEND_CPU_ATTENTION_TILE_H
#define KAPPA_BACKEND_CPU_ATTENTION_TILE_H

#include <cblas.h>
#include <string.h>

#include "backend/cpu/isa/isa.h"

enum {
  KP_QUERY_TILE = 64,
  KP_KEY_TILE = 128,     /* at most */
  KP_DIAGONAL_TILE = 16, /* keys, along the diagonal of a causal mask */
  KP_LANES = 16,
  KP_SCRATCH_ALIGNMENT = 64,
};

/* One head of one sequence.  Query row t stands at position `first` + t of the keys. */
typedef struct kp_attention_head {
  const float *q, *k, *v; /* first row each: (queries, D), (keys, D), (keys, D) */
  int q_stride, kv_stride;
  int queries, keys, first, size;
  bool causal;
  kp_score score;
  double scale, kappa, beta;
} kp_attention_head;

/* A block of queries of a head: `lanes` is `rows` rounded up to whole vectors. */
typedef struct kp_query_block {
  int begin, rows, lanes;
} kp_query_block;

static inline int kp_smaller(int a, int b) {
  return a < b ? a : b;
}

static inline int kp_query_blocks(int64_t queries) {
  return (int)((queries + KP_QUERY_TILE - 1) / KP_QUERY_TILE);
}

static inline kp_query_block kp_query_block_of(const kp_attention_head *head, int index) {
  kp_query_block block = {.begin = index * KP_QUERY_TILE};
  block.rows = kp_smaller(KP_QUERY_TILE, head->queries - block.begin);
  block.lanes = (block.rows + KP_LANES - 1) / KP_LANES * KP_LANES;
  return block;
}

/* How many keys the block's last query may see. */
static inline int kp_visible_keys(const kp_attention_head *head, kp_query_block block) {
  return head->causal ? kp_smaller(head->keys, head->first + block.begin + block.rows) : head->keys;
}

/* How many of the block's first lanes may not see the key at `position`. */
static inline int kp_hidden_lanes(const kp_attention_head *head, kp_query_block block, int position) {
  const int hidden = position - head->first - block.begin;
  return !head->causal || hidden < 0 ? 0 : hidden;
}

/* `count` keys from position `first`, and the lanes from `lane` on: those before see none of these keys. */
typedef struct kp_key_tile {
  int first, count, lane;
} kp_key_tile;

/* The tile that starts at `first`.  Large heads have tiles of half the keys: OpenBLAS multiplies without
 * copying its operands into panels while a product has at most 10^6 steps, which is 122 channels with a full
 * tile. Along the diagonal of a causal mask tiles are short, so that little is computed in vain. */
static inline kp_key_tile kp_key_tile_of(const kp_attention_head *head, kp_query_block block, int first) {
  const int diagonal = head->first + block.begin, left = kp_visible_keys(head, block) - first;
  kp_key_tile tile = {.first = first,
                      .count = kp_smaller(head->size > 120 ? KP_KEY_TILE / 2 : KP_KEY_TILE, left)};
  if (head->causal && first < diagonal) tile.count = kp_smaller(tile.count, diagonal - first);
  if (head->causal && first >= diagonal) tile.count = kp_smaller(tile.count, KP_DIAGONAL_TILE);
  tile.lane = kp_hidden_lanes(head, block, first) / KP_LANES * KP_LANES;
  return tile;
}

/* Rows of the scratch memory, each on a cache line.  With `base` NULL it only counts. */
static inline void *kp_scratch_take(char *base, size_t *used, size_t bytes) {
  void *place = base == NULL ? NULL : base + *used;
  *used += (bytes + KP_SCRATCH_ALIGNMENT - 1) / KP_SCRATCH_ALIGNMENT * KP_SCRATCH_ALIGNMENT;
  return place;
}

/* κ and β of head `h`; absent ones are 0 and 1. */
static inline void kp_attention_head_geometry(kp_attention_head *head, const float *kappa, const float *beta,
                                              int h) {
  head->kappa = kappa == NULL ? 0.0 : (double)kappa[h];
  head->beta = beta == NULL ? 1.0 : (double)beta[h];
}

/* Where head `h` of sequence `b` lies in q, k, v, or in their gradients. */
typedef struct kp_head_rows {
  float *q, *k, *v;
  int q_stride, kv_stride;
} kp_head_rows;

static inline kp_head_rows kp_head_rows_of(const kp_attention_arguments *a, void *const part[3], int64_t b,
                                           int h) {
  const int64_t size = a->head_size, row = b * a->length;
  const int64_t column = h * size, kv_column = h / (a->heads / a->kv_heads) * size;
  const int64_t width = a->heads * size, kv_width = a->kv_heads * size;
  kp_head_rows rows = {.q_stride = (int)width, .kv_stride = (int)kv_width};
  if (a->packed) {
    rows.q_stride = rows.kv_stride = (int)(width + 2 * kv_width);
    float *first = (float *)part[0] + row * rows.q_stride;
    rows.q = first + column;
    rows.k = first + width + kv_column;
    rows.v = first + width + kv_width + kv_column;
  } else {
    rows.q = (float *)part[0] + row * width + column;
    rows.k = (float *)part[1] + row * kv_width + kv_column;
    rows.v = (float *)part[2] + row * kv_width + kv_column;
  }
  return rows;
}

/* Head `h` of sequence `b` for the inputs of ATTENTION: q, k, v [, κ, β]. */
static inline kp_attention_head kp_attention_head_of(const kp_attention_arguments *a, void *const *input,
                                                     int64_t b, int h) {
  const kp_head_rows rows = kp_head_rows_of(a, input, b, h);
  kp_attention_head head = {
      .q = rows.q,
      .k = rows.k,
      .v = rows.v,
      .q_stride = rows.q_stride,
      .kv_stride = rows.kv_stride,
      .queries = (int)a->length,
      .keys = (int)a->length,
      .size = a->head_size,
      .causal = a->causal,
      .score = a->score,
      .scale = kp_attention_scale(a),
  };
  kp_attention_head_geometry(&head, input[3], input[4], h);
  return head;
}

/* <x, y>, summed in double. */
static inline double kp_inner_product(const float *x, const float *y, int size) {
  double sum = 0.0;
#pragma omp simd reduction(+ : sum)
  for (int d = 0; d < size; d++) sum += (double)x[d] * (double)y[d];
  return sum;
}

/* to (size, 64) = factor · from (rows, size) transposed, zero in the lanes beyond `rows`. */
static inline void kp_transpose_block(float *to, const float *from, int stride, kp_query_block block,
                                      int size, float factor) {
  for (int d = 0; d < size; d++) {
    float *lane = to + d * KP_QUERY_TILE;
    for (int i = 0; i < block.rows; i++) lane[i] = factor * from[(int64_t)i * stride + d];
    for (int i = block.rows; i < block.lanes; i++) lane[i] = 0.0f;
  }
}

#endif
