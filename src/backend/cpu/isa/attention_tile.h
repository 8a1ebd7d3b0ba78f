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
  const float *q, *k, *v; /* first row each: (queries, D), (keys, D), (keys, D') */
  int q_stride, k_stride, v_stride;
  int queries, keys, first, size, value_size; /* size is D, value_size D' */
  bool causal;
  const int32_t *documents; /* (keys), or NULL */
  kp_score score;
  kp_values values;
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

/* Which pairs of a tile are of the same document. */
typedef enum kp_tile_documents { KP_DOCUMENT_SAME, KP_DOCUMENTS_MIXED, KP_DOCUMENTS_APART } kp_tile_documents;

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

typedef struct kp_document_range {
  int32_t least, most;
} kp_document_range;

static inline kp_document_range kp_document_range_of(const int32_t *documents, int count) {
  kp_document_range range = {documents[0], documents[0]};
  for (int i = 1; i < count; i++) {
    range.least = documents[i] < range.least ? documents[i] : range.least;
    range.most = documents[i] > range.most ? documents[i] : range.most;
  }
  return range;
}

static inline kp_tile_documents kp_tile_documents_of(const kp_attention_head *head, kp_query_block block,
                                                     kp_key_tile tile) {
  if (head->documents == NULL) return KP_DOCUMENT_SAME;
  const int query = head->first + block.begin + tile.lane;
  const kp_document_range queries = kp_document_range_of(head->documents + query, block.rows - tile.lane);
  const kp_document_range keys = kp_document_range_of(head->documents + tile.first, tile.count);
  if (queries.most < keys.least || keys.most < queries.least) return KP_DOCUMENTS_APART;
  const bool one = queries.least == queries.most && keys.least == keys.most;
  return one ? KP_DOCUMENT_SAME : KP_DOCUMENTS_MIXED;
}

/* Writes `value` where query and key of a mixed tile are of different documents. */
static inline void kp_mask_documents(const kp_attention_head *head, kp_query_block block, kp_key_tile tile,
                                     float *rows, float value) {
  const int32_t *documents = head->documents + head->first + block.begin;
  for (int j = 0; j < tile.count; j++) {
    float *row = rows + j * KP_QUERY_TILE;
    const int32_t document = head->documents[tile.first + j];
#pragma omp simd
    for (int i = tile.lane; i < block.rows; i++) row[i] = documents[i] == document ? row[i] : value;
  }
}

/* Rows of the scratch memory, each on a cache line.  With `base` NULL it only counts. */
static inline void *kp_scratch_take(char *base, size_t *used, size_t bytes) {
  void *place = base == NULL ? NULL : base + *used;
  *used += (bytes + KP_SCRATCH_ALIGNMENT - 1) / KP_SCRATCH_ALIGNMENT * KP_SCRATCH_ALIGNMENT;
  return place;
}

/* Head h's number of κ or β, of which there are H or 1. */
static inline double kp_attention_scalar(const kp_tensor *tensor, const float *values, int h, double absent) {
  if (values == NULL) return absent;
  return (double)values[tensor != NULL && kp_tensor_count(tensor) == 1 ? 0 : h];
}

/* Where head `h` of sequence `b` lies in q, k, v, or in their gradients. */
typedef struct kp_head_rows {
  float *q, *k, *v;
  int q_stride, k_stride, v_stride;
} kp_head_rows;

static inline kp_head_rows kp_head_rows_of(const kp_attention_arguments *a, void *q, void *k, void *v,
                                           int64_t b, int h) {
  const int64_t size = a->head_size, value_size = kp_attention_value_size(a), row = b * a->length;
  const int64_t kv = h / (a->heads / a->kv_heads), width = a->heads * size, kv_width = a->kv_heads * size;
  if (a->packed) {
    const int64_t stride = width + 2 * kv_width;
    float *first = (float *)q + row * stride;
    return (kp_head_rows){.q = first + h * size,
                          .k = first + width + kv * size,
                          .v = first + width + kv_width + kv * size,
                          .q_stride = (int)stride,
                          .k_stride = (int)stride,
                          .v_stride = (int)stride};
  }
  const int64_t value_width = a->kv_heads * value_size;
  return (kp_head_rows){.q = (float *)q + row * width + h * size,
                        .k = (float *)k + row * kv_width + kv * size,
                        .v = (float *)v + row * value_width + kv * value_size,
                        .q_stride = (int)width,
                        .k_stride = (int)kv_width,
                        .v_stride = (int)value_width};
}

/* Head `h` of `node`, whose inputs κ and β stand at `scalars` and after; its rows are the caller's. */
static inline kp_attention_head kp_attention_head_of(const kp_call *call, const kp_attention_arguments *a,
                                                     int scalars, int h) {
  kp_tensor *const *tensor = call->node->input;
  return (kp_attention_head){
      .queries = (int)a->length,
      .keys = (int)a->length,
      .size = a->head_size,
      .value_size = kp_attention_value_size(a),
      .causal = a->causal,
      .score = a->score,
      .values = a->values,
      .scale = kp_attention_scale(a),
      .kappa = kp_attention_scalar(tensor[scalars], call->input[scalars], h, kp_attention_curvature(a)),
      .beta = kp_attention_scalar(tensor[scalars + 1], call->input[scalars + 1], h, 1.0),
  };
}

/* Head `h` of sequence `b` of ATTENTION and its backward: inputs q, k, v, κ, β, documents. */
static inline kp_attention_head kp_whole_head_of(const kp_call *call, int64_t b, int h) {
  const kp_attention_arguments *a = call->node->arguments;
  const kp_head_rows rows = kp_head_rows_of(a, call->input[0], call->input[1], call->input[2], b, h);
  kp_attention_head head = kp_attention_head_of(call, a, 3, h);
  head.q = rows.q, head.k = rows.k, head.v = rows.v;
  head.q_stride = rows.q_stride, head.k_stride = rows.k_stride, head.v_stride = rows.v_stride;
  if (call->input[5] != NULL) head.documents = (const int32_t *)call->input[5] + b * a->length;
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
