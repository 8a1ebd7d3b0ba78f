/* Attention over a cache of latents, for generation: keys and values are expanded again in blocks of
 * positions.
 *
 * A work item is one head of one sequence.  It takes the cached rows KP_LATENT_BLOCK at a time: norms them,
 * multiplies them with the head's rows of the up weight, puts the shared part beside each key, and attends
 * all new tokens to them; the softmax of every block of queries waits in between.  So a thread holds one
 * block of expanded keys of one head, and what grows with T are the softmax states alone. */
#include <omp.h>

#include "backend/cpu/isa/attention_forward.h"
#include "backend/cpu/sgemm.h"

enum { KP_LATENT_BLOCK = 256 };

/* A thread's memory. */
typedef struct latent_space {
  kp_forward_space forward;
  float *latents;            /* (256, r): normalised */
  double *times;             /* (256): of these */
  float *key_value;          /* (256, p + D' + ρ): one position's value, then its key */
  kp_softmax_lanes *softmax; /* by block of queries */
  double *lines;             /* (blocks, 64, D' + 1): midpoints' sums of these */
} latent_space;

/* Numbers in the lines of one block of queries. */
static size_t lines_of(const kp_attention_arguments *a) {
  return KP_QUERY_TILE * ((size_t)kp_attention_value_size(a) + 1);
}

static size_t lay_space(latent_space *space, char *base, const kp_attention_latent_arguments *l) {
  const kp_attention_arguments *a = &l->attention;
  const size_t width = (size_t)(a->head_size + kp_attention_value_size(a));
  size_t used = kp_forward_space_lay(&space->forward, base, a, KP_LATENT_BLOCK);
  space->latents = kp_scratch_take(base, &used, KP_LATENT_BLOCK * (size_t)l->latent_size * sizeof(float));
  space->times = kp_scratch_take(base, &used, KP_LATENT_BLOCK * sizeof(double));
  space->key_value = kp_scratch_take(base, &used, KP_LATENT_BLOCK * width * sizeof(float));
  space->softmax =
      kp_scratch_take(base, &used, (size_t)kp_query_blocks(a->length) * sizeof(kp_softmax_lanes));
  space->lines = NULL;
  if (a->values == KP_VALUES_MIDPOINT)
    space->lines =
        kp_scratch_take(base, &used, (size_t)kp_query_blocks(a->length) * lines_of(a) * sizeof(double));
  return used;
}

size_t KP_SCRATCH(attention_latent_cached)(const kp_node *node, int threads) {
  latent_space space;
  return (size_t)threads * lay_space(&space, NULL, node->arguments);
}

/* Positions `first` … first+count-1 of sequence b, expanded for head h. */
typedef struct latent_block {
  int64_t b;
  int h, first, count;
} latent_block;

static const float *cached_row(const kp_call *call, const latent_block *at, int i) {
  const kp_tensor *state = call->node->input[2];
  return (const float *)call->input[2] + (at->b * state->shape[1] + at->first + i) * state->shape[2];
}

/* The normalised latents and their times. */
static void normalise(const kp_call *call, const latent_block *at, latent_space *space) {
  const kp_attention_latent_arguments *l = call->node->arguments;
  const float *weight = call->input[4], *kappa = call->input[8];
  const double c = kappa == NULL ? 1.0 : kp_lorentz_radius((double)*kappa);
  for (int i = 0; i < at->count; i++) {
    const float *row = cached_row(call, at, i);
    float *latent = space->latents + (int64_t)i * l->latent_size;
    const double square = kp_inner_product(row, row, l->latent_size) / l->latent_size;
    const float inverse = weight == NULL ? 1.0f : (float)(1.0 / sqrt(square + l->epsilon));
    for (int d = 0; d < l->latent_size; d++)
      latent[d] = row[d] * inverse * (weight == NULL ? 1.0f : weight[d]);
    space->times[i] = kp_lorentz_time(kp_inner_product(latent, latent, l->latent_size), c);
  }
}

/* What the product leaves out: z of one position += time · time weight + bias. */
static void add_time(float *z, double time, const float *time_weight, const float *bias, int count) {
  const float t = (float)time;
  for (int d = 0; time_weight != NULL && d < count; d++) z[d] += t * time_weight[d];
  for (int d = 0; bias != NULL && d < count; d++) z[d] += bias[d];
}

/* Rows (key own part | key shared part | value) of the block, from z = (own part | value). */
static void expand(const kp_call *call, const latent_block *at, latent_space *space) {
  const kp_attention_latent_arguments *l = call->node->arguments;
  const int shared = l->shared_size, own = l->attention.head_size - shared;
  const int value = kp_attention_value_size(&l->attention), row = own + shared + value;
  const int64_t first = (int64_t)at->h * (own + value);
  const float *weight = (const float *)call->input[5] + first * l->latent_size;
  const float *time_weight = call->input[6], *bias = call->input[7];
  const int part[] = {own, value}, column[] = {0, own + shared}, z[] = {0, own};
  for (int i = 0; i < 2; i++) {
    kp_sgemm(false, true, at->count, part[i], l->latent_size, 1.0f, space->latents, l->latent_size,
             weight + (int64_t)z[i] * l->latent_size, l->latent_size, 0.0f, space->key_value + column[i],
             row);
    for (int j = 0; j < at->count; j++)
      add_time(space->key_value + (int64_t)j * row + column[i], space->times[j],
               time_weight == NULL ? NULL : time_weight + first + z[i],
               bias == NULL ? NULL : bias + first + z[i], part[i]);
  }
  for (int j = 0; j < at->count; j++)
    memcpy(space->key_value + (int64_t)j * row + own, cached_row(call, at, j) + l->latent_size,
           (size_t)shared * sizeof(float));
}

/* The head over the expanded block: its keys are that block alone, and queries stand where they stand to it.
 */
static kp_attention_head block_head(const kp_call *call, const latent_block *at, int start,
                                    const latent_space *space) {
  const kp_attention_latent_arguments *l = call->node->arguments;
  const kp_attention_arguments *a = &l->attention;
  kp_attention_head head = kp_attention_head_of(call, a, 8, at->h);
  head.q_stride = a->heads * a->head_size;
  head.q = (const float *)call->input[0] + at->b * a->length * head.q_stride + (int64_t)at->h * a->head_size;
  head.k = space->key_value;
  head.v = space->key_value + a->head_size;
  head.k_stride = head.v_stride = a->head_size + head.value_size;
  head.first = start - at->first;
  head.keys = at->count;
  return head;
}

/* All blocks of queries over one block of positions. */
static void attend_block(const kp_attention_head *head, latent_space *space, kp_block_output output) {
  space->forward.key_count = 0;
  for (int index = 0; index < kp_query_blocks(head->queries); index++) {
    const kp_query_block block = kp_query_block_of(head, index);
    const int visible = kp_visible_keys(head, block);
    if (visible <= 0) continue;
    kp_prepare_queries(head, block, &space->forward);
    kp_prepare_keys(head, visible, &space->forward);
    kp_attend_keys(head, block, &space->forward, space->softmax + index,
                   kp_block_output_at(output, block.begin));
  }
}

static void attend_head(const kp_call *call, int64_t b, int h, int start, latent_space *space) {
  const kp_attention_latent_arguments *l = call->node->arguments;
  const int end = start + (int)l->attention.length, blocks = kp_query_blocks(l->attention.length);
  const kp_block_output output = kp_block_output_of(call, &l->attention, b, h, 1);
  latent_block at = {.b = b, .h = h};
  kp_attention_head head = block_head(call, &at, start, space);
  for (int index = 0; index < blocks; index++) {
    const kp_query_block block = kp_query_block_of(&head, index);
    double *lines = space->lines == NULL ? NULL : space->lines + (size_t)index * lines_of(&l->attention);
    kp_block_begin(&head, block, space->softmax + index, kp_block_output_at(output, block.begin), lines);
  }
  for (at.first = 0; at.first < end; at.first += KP_LATENT_BLOCK) {
    at.count = kp_smaller(KP_LATENT_BLOCK, end - at.first);
    normalise(call, &at, space);
    expand(call, &at, space);
    head = block_head(call, &at, start, space);
    attend_block(&head, space, output);
  }
  for (int index = 0; index < blocks; index++) {
    const kp_query_block block = kp_query_block_of(&head, index);
    kp_block_finish(&head, block, space->softmax + index, kp_block_output_at(output, block.begin));
  }
}

static void store_new_rows(const kp_call *call, int start) {
  const kp_attention_latent_arguments *l = call->node->arguments;
  const kp_tensor *state = call->node->input[2];
  const int64_t T = l->attention.length, width = state->shape[2];
#pragma omp for schedule(static)
  for (int64_t b = 0; b < l->attention.batch; b++)
    memcpy((float *)call->input[2] + (b * state->shape[1] + start) * width,
           (const float *)call->input[1] + b * T * width, (size_t)(T * width) * sizeof(float));
}

kp_status KP_KERNEL(attention_latent_cached)(const kp_call *call, kp_error *error) {
  const kp_attention_latent_arguments *l = call->node->arguments;
  const kp_attention_arguments *a = &l->attention;
  const int64_t capacity = call->node->input[2]->shape[1], start = *(const int32_t *)call->input[3];
  if (start < 0 || start + a->length > capacity)
    return kp_fail(error, KP_ERR_INPUT, "positions %lld to %lld do not fit a cache of %lld", (long long)start,
                   (long long)(start + a->length - 1), (long long)capacity);
#pragma omp parallel num_threads(call->run->threads)
  {
    latent_space space;
    const size_t bytes = lay_space(&space, NULL, l);
    lay_space(&space, (char *)call->scratch + (size_t)omp_get_thread_num() * bytes, l);
    store_new_rows(call, (int)start);
#pragma omp for schedule(static)
    for (int64_t unit = 0; unit < a->batch * a->heads; unit++)
      attend_head(call, unit / a->heads, (int)(unit % a->heads), (int)start, &space);
  }
  return KP_OK;
}
