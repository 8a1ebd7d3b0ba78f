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
  kp_forward_space space;
  return (size_t)threads * kp_forward_space_lay(&space, NULL, node->arguments, node->input[1]->shape[2]);
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

static void geodesic_score_row(const kp_attention_head *head, const float *q, const float *k, int count,
                               float *scores) {
  double products[KP_KEY_TILE];
  const double square = head->scale * head->scale;
  const kp_geodesic_row query = kp_geodesic_row_of(square * kp_inner_product(q, q, head->size), head->kappa);
  for (int j = 0; j < count; j++) {
    const float *row = k + (int64_t)j * head->k_stride;
    const kp_geodesic_row key =
        kp_geodesic_row_of(square * kp_inner_product(row, row, head->size), head->kappa);
    const double inner = query.scale * key.scale * square * kp_inner_product(q, row, head->size);
    products[j] = query.alpha * key.cosine * key.cosine + query.cosine * query.cosine * key.alpha -
                  2.0 * query.cosine * key.cosine * inner;
  }
  kp_geodesic_scores(scores, products, count, head);
}

/* The scores of one query and `count` keys. */
static void score_row(const kp_attention_head *head, const float *q, const float *k, int count,
                      float *scores) {
  if (kp_score_is_geodesic(head->score)) {
    geodesic_score_row(head, q, k, count, scores);
    return;
  }
  const bool lorentz = head->score == KP_SCORE_LORENTZ;
  const double factor = head->beta * (lorentz ? 2.0 * head->scale * head->scale : head->scale);
  const double time = lorentz ? kp_row_time(head, q) : 0.0;
  for (int j = 0; j < count; j++) {
    const float *row = k + (int64_t)j * head->k_stride;
    scores[j] = (float)factor * dot_product(q, row, head->size);
    if (lorentz) kp_lorentz_scores(scores + j, &time, kp_row_time(head, row), 1, head);
  }
}

/* The running state of one query's softmax. */
typedef struct row_softmax {
  float largest, sum;
  double time;  /* weighted sum of the values' times */
  double *line; /* or of their lines, (D' + 1); NULL but for midpoints */
} row_softmax;

/* Scores become weights; returns what the older sums are to be multiplied by. */
static float softmax_row(float *scores, int count, row_softmax *softmax) {
  const float before = softmax->largest;
  float sum = 0.0f, largest = before;
  for (int j = 0; j < count; j++) largest = scores[j] > largest ? scores[j] : largest;
#pragma omp simd reduction(+ : sum)
  for (int j = 0; j < count; j++) {
    scores[j] = kp_expf(scores[j] - largest);
    sum += scores[j];
  }
  const float correction = kp_expf(before - largest);
  softmax->largest = largest;
  softmax->sum = softmax->sum * correction + sum;
  softmax->time *= (double)correction;
  return correction;
}

/* Adds the weighted lines of `count` keys. */
static void weigh_lines(const kp_attention_head *head, const float *v, const float *weights, int count,
                        double *line) {
  const int size = head->value_size;
  for (int j = 0; j < count; j++) {
    const float *row = v + (int64_t)j * head->v_stride;
    const kp_value_row at = kp_value_row_of(head->values, kp_inner_product(row, row, size), head->kappa);
    const double weight = (double)weights[j], along = weight * at.scale;
#pragma omp simd
    for (int d = 0; d < size; d++) line[d] += along * (double)row[d];
    line[size] += weight * at.extra;
  }
}

/* Adds the weighted values of `count` keys. */
static void weigh_row(const kp_attention_head *head, const float *v, const float *weights, int count,
                      float *o, row_softmax *softmax) {
  if (softmax->line != NULL) {
    weigh_lines(head, v, weights, count, softmax->line);
    return;
  }
  for (int j = 0; j < count; j++) {
    const float *row = v + (int64_t)j * head->v_stride;
    if (head->values == KP_VALUES_LORENTZ) softmax->time += (double)weights[j] * kp_value_time(head, row);
    kp_add_row(o, row, (double)weights[j], head->value_size);
  }
}

/* Query t over all keys that it sees.  line: room for D' + 1 numbers with midpoints, else NULL. */
static void attend_row(const kp_attention_head *head, int t, double *line, kp_block_output output) {
  const float *q = head->q + (int64_t)t * head->q_stride;
  const int visible = head->first + t + 1;
  float weights[KP_KEY_TILE], *o = output.o + (int64_t)t * output.stride;
  row_softmax softmax = {.largest = -FLT_MAX, .line = line};
  memset(o, 0, (size_t)head->value_size * sizeof(float));
  for (int d = 0; line != NULL && d <= head->value_size; d++) line[d] = 0.0;
  for (int first = 0; first < visible; first += KP_KEY_TILE) {
    const int count = kp_smaller(KP_KEY_TILE, visible - first);
    score_row(head, q, head->k + (int64_t)first * head->k_stride, count, weights);
    const float correction = softmax_row(weights, count, &softmax);
    kp_scale_rows(o, 0, &correction, 1, head->value_size);
    for (int d = 0; line != NULL && d <= head->value_size; d++) line[d] *= (double)correction;
    weigh_row(head, head->v + (int64_t)first * head->v_stride, weights, count, o, &softmax);
  }
  kp_finish_row(head, output, t, softmax.time, (double)softmax.sum, line);
}

/* Head `h` of sequence `b`, its keys and values in the caches. */
static kp_attention_head cached_head(const kp_call *call, int64_t capacity, int start, int64_t b, int h) {
  const kp_attention_arguments *a = call->node->arguments;
  const int64_t cache = (b * a->kv_heads + h / (a->heads / a->kv_heads)) * capacity;
  const kp_head_rows rows = kp_head_rows_of(a, call->input[0], call->input[6], call->input[7], b, h);
  kp_attention_head head = kp_attention_head_of(call, a, 4, h);
  head.q = rows.q, head.q_stride = rows.q_stride;
  head.k = (const float *)call->input[1] + cache * head.size, head.k_stride = head.size;
  head.v = (const float *)call->input[2] + cache * head.value_size, head.v_stride = head.value_size;
  head.first = start;
  head.keys = start + (int)a->length;
  return head;
}

static void store_new_rows(const kp_call *call, int64_t capacity, int start) {
  const kp_attention_arguments *a = call->node->arguments;
  const int group = a->heads / a->kv_heads, size = a->head_size, value_size = kp_attention_value_size(a);
#pragma omp for schedule(static)
  for (int64_t unit = 0; unit < a->batch * a->kv_heads; unit++) {
    const int64_t b = unit / a->kv_heads, place = unit * capacity + start;
    const kp_head_rows rows = kp_head_rows_of(a, call->input[0], call->input[6], call->input[7], b,
                                              (int)(unit % a->kv_heads) * group);
    store_rows((float *)call->input[1] + place * size, rows.k, rows.k_stride, a->length, size);
    store_rows((float *)call->input[2] + place * value_size, rows.v, rows.v_stride, a->length, value_size);
  }
}

static void attend_head(const kp_attention_head *head, kp_forward_space *space, kp_block_output output) {
  if (head->queries < TILED_QUERIES) {
    for (int t = 0; t < head->queries; t++) attend_row(head, t, space->mean_lines, output);
    return;
  }
  space->key_count = 0;
  for (int index = 0; index < kp_query_blocks(head->queries); index++) {
    const kp_query_block block = kp_query_block_of(head, index);
    kp_attend_block(head, block, space, kp_block_output_at(output, block.begin));
  }
}

static void attend_new_rows(const kp_call *call, int64_t capacity, int start) {
  const kp_attention_arguments *a = call->node->arguments;
  kp_forward_space space;
  const size_t bytes = kp_forward_space_lay(&space, NULL, a, capacity);
  kp_forward_space_lay(&space, (char *)call->scratch + (size_t)omp_get_thread_num() * bytes, a, capacity);
#pragma omp for schedule(static)
  for (int64_t unit = 0; unit < a->batch * a->heads; unit++) {
    const int64_t b = unit / a->heads;
    const int h = (int)(unit % a->heads);
    const kp_attention_head head = cached_head(call, capacity, start, b, h);
    attend_head(&head, &space, kp_block_output_of(call, a, b, h, 1));
  }
}

kp_status KP_KERNEL(attention_cached)(const kp_call *call, kp_error *error) {
  const kp_attention_arguments *a = call->node->arguments;
  const int64_t capacity = call->node->input[1]->shape[2], start = *(const int32_t *)call->input[3];
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
