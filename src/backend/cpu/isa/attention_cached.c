/* Attention of T new tokens over a cache of keys and values, for generation.
 *
 * Blocks of queries run as in the forward pass, with the cache in the place of the keys.  A few queries
 * (generation has one) would leave most lanes of a tile empty; they go over the cache row by row instead,
 * which is as fast as the cache can be read. */
#include <omp.h>

#include "backend/cpu/isa/attention_forward.h"

/* From this many new tokens on tiles pay. */
enum { TILED_QUERIES = 8 };

size_t KP_SCRATCH(attention_cached)(const kp_node *node, int threads) {
  const kp_attention_arguments *a = node->arguments;
  kp_forward_space space;
  return (size_t)threads *
         kp_forward_space_lay(&space, NULL, a->score, a->head_size, node->input[1]->shape[2]);
}

static void store_rows(float *cache, const float *rows, int stride, int64_t count, int size) {
  for (int64_t t = 0; t < count; t++)
    memcpy(cache + t * size, rows + t * stride, (size_t)size * sizeof(float));
}

static float dot_product(const float *x, const float *y, int size) {
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int d = 0; d < size; d++) sum += x[d] * y[d];
  return sum;
}

/* The scores of one query and `count` keys. */
static void score_row(const kp_attention_head *head, const float *q, const kp_geodesic_row *query,
                      const float *k, int count, float *scores, double *products) {
  if (head->score == KP_SCORE_DOT) {
    for (int j = 0; j < count; j++)
      scores[j] = (float)head->scale * dot_product(q, k + (int64_t)j * head->kv_stride, head->size);
    return;
  }
  const double square = head->scale * head->scale;
  for (int j = 0; j < count; j++) {
    const float *row = k + (int64_t)j * head->kv_stride;
    const kp_geodesic_row key =
        kp_geodesic_row_of(square * kp_inner_product(row, row, head->size), head->kappa);
    const double inner = query->scale * key.scale * square * kp_inner_product(q, row, head->size);
    products[j] = query->alpha * key.cosine * key.cosine + query->cosine * query->cosine * key.alpha -
                  2.0 * query->cosine * key.cosine * inner;
  }
  kp_geodesic_scores(scores, products, count, head);
}

/* One query over all keys that it sees. */
static void attend_row(const kp_attention_head *head, int t, float *o) {
  const float *q = head->q + (int64_t)t * head->q_stride;
  const kp_geodesic_row query =
      kp_geodesic_row_of(head->scale * head->scale * kp_inner_product(q, q, head->size), head->kappa);
  const int visible = head->first + t + 1;
  float scores[KP_KEY_TILE], largest = -INFINITY, sum = 0.0f;
  double products[KP_KEY_TILE];
  memset(o, 0, (size_t)head->size * sizeof(float));
  for (int first = 0; first < visible; first += KP_KEY_TILE) {
    const int count = kp_smaller(KP_KEY_TILE, visible - first);
    const float before = largest;
    score_row(head, q, &query, head->k + (int64_t)first * head->kv_stride, count, scores, products);
    for (int j = 0; j < count; j++) largest = scores[j] > largest ? scores[j] : largest;
    const float correction = kp_expf(before - largest);
    float tile_sum = 0.0f;
#pragma omp simd reduction(+ : tile_sum)
    for (int j = 0; j < count; j++) {
      scores[j] = kp_expf(scores[j] - largest);
      tile_sum += scores[j];
    }
    sum = sum * correction + tile_sum;
    kp_scale_rows(o, head->size, &correction, 1, head->size);
    for (int j = 0; j < count; j++) {
      const float *v = head->v + (int64_t)(first + j) * head->kv_stride;
#pragma omp simd
      for (int d = 0; d < head->size; d++) o[d] += scores[j] * v[d];
    }
  }
  const float inverse = 1.0f / sum;
  kp_scale_rows(o, head->size, &inverse, 1, head->size);
}

/* Head `h` of sequence `b`, its keys and values in the caches. */
static kp_attention_head cached_head(const kp_call *call, int64_t capacity, int start, int64_t b, int h) {
  const kp_attention_arguments *a = call->node->arguments;
  const int64_t cache = (b * a->kv_heads + h / (a->heads / a->kv_heads)) * capacity * a->head_size;
  const kp_head_rows rows = kp_head_rows_of(a, call->input, b, h);
  kp_attention_head head = {
      .q = rows.q,
      .k = (const float *)call->input[1] + cache,
      .v = (const float *)call->input[2] + cache,
      .q_stride = rows.q_stride,
      .kv_stride = a->head_size,
      .queries = (int)a->length,
      .keys = start + (int)a->length,
      .first = start,
      .size = a->head_size,
      .causal = true,
      .score = a->score,
      .scale = kp_attention_scale(a),
  };
  kp_attention_head_geometry(&head, call->input[4], call->input[5], h);
  return head;
}

static void store_new_rows(const kp_call *call, int64_t capacity, int start) {
  const kp_attention_arguments *a = call->node->arguments;
  const int group = a->heads / a->kv_heads, size = a->head_size;
#pragma omp for schedule(static)
  for (int64_t unit = 0; unit < a->batch * a->kv_heads; unit++) {
    const int64_t b = unit / a->kv_heads, cache = (unit * capacity + start) * size;
    const kp_head_rows rows = kp_head_rows_of(a, call->input, b, (int)(unit % a->kv_heads) * group);
    store_rows((float *)call->input[1] + cache, rows.k, rows.kv_stride, a->length, size);
    store_rows((float *)call->input[2] + cache, rows.v, rows.kv_stride, a->length, size);
  }
}

static void attend_new_rows(const kp_call *call, int64_t capacity, int start) {
  const kp_attention_arguments *a = call->node->arguments;
  const int stride = a->heads * a->head_size;
  kp_forward_space space;
  const size_t bytes = kp_forward_space_lay(&space, NULL, a->score, a->head_size, capacity);
  kp_forward_space_lay(&space, (char *)call->scratch + (size_t)omp_get_thread_num() * bytes, a->score,
                       a->head_size, capacity);
#pragma omp for schedule(static)
  for (int64_t unit = 0; unit < a->batch * a->heads; unit++) {
    const int64_t b = unit / a->heads;
    const int h = (int)(unit % a->heads);
    const kp_attention_head head = cached_head(call, capacity, start, b, h);
    float *o = (float *)call->output[0] + b * a->length * stride + (int64_t)h * a->head_size;
    if (a->length < TILED_QUERIES) {
      for (int t = 0; t < head.queries; t++) attend_row(&head, t, o + (int64_t)t * stride);
      continue;
    }
    space.key_count = 0;
    for (int index = 0; index < kp_query_blocks(a->length); index++) {
      const kp_query_block block = kp_query_block_of(&head, index);
      kp_attend_block(&head, block, &space, o + (int64_t)block.begin * stride, stride, NULL);
    }
  }
}

kp_status KP_KERNEL(attention_cached)(const kp_call *call, kp_error *error) {
  const kp_attention_arguments *a = call->node->arguments;
  const int64_t capacity = call->node->input[1]->shape[2], start = *(const int32_t *)call->input[3];
  if (a->values != KP_VALUES_MEAN || a->score == KP_SCORE_LORENTZ || !a->packed)
    return kp_fail(error, KP_ERR_UNSUPPORTED, "attention with these scores or values runs on ref alone");
  if (start < 0 || start + a->length > capacity)
    return kp_fail(error, KP_ERR_INPUT, "positions %lld to %lld do not fit a cache of %lld", (long long)start,
                   (long long)(start + a->length - 1), (long long)capacity);
#pragma omp parallel num_threads(call->run->threads)
  {
    store_new_rows(call, capacity, (int)start);
    attend_new_rows(call, capacity, (int)start);
  }
  return KP_OK;
}

kp_status KP_KERNEL(attention_latent_cached)(const kp_call *call, kp_error *error) {
  (void)call;
  return kp_fail(error, KP_ERR_UNSUPPORTED, "attention over latents runs on ref alone");
}
