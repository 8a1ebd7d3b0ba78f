/* Fast attention, backward: the weights are computed again from the scores and the logsumexp
 * (Dao et al. 2022, appendix B), tile by tile.
 *
 * With P the weights, M the ambient means of the values V (backend/attention_values.h) and bars for
 * gradients: M̄ from Ō and O      V̄ = Pᵀ M̄      P̄ = M̄ Vᵀ      S̄ = P ∘ (P̄ - rowsum(P ∘ P̄)) where that row sum
 * is <Ō, O> for the plain mean and 0 for the others.  Then the score's own backward: for the dot product Q̄ =
 * β scale S̄ K, K̄ = β scale S̄ᵀ Q; for Lorentz scores these and sums of S̄ with the times; for geodesic scores S̄
 * becomes the gradient of w, two products carry it to the query and key rows, and these to q, k and κ.
 *
 * A work item is one key head of one sequence with all query heads that share it, so that every gradient
 * has one owner and is summed in a fixed order: there are no atomics, and the result does not depend on
 * the number of threads.  κ̄ and β̄ are kept by head and sequence and summed at the end. */
#include <omp.h>

#include "backend/cpu/isa/attention_backward.h"

/* One head and where its gradients go. */
typedef struct backward_head {
  kp_attention_head head, plain; /* plain: with β = 1, for scores without it */
  kp_head_rows gradient;
  const float *o, *o_bar, *logsumexp;   /* o and Ō: (T, D'), `stride` apart; Ō may be NULL */
  const float *time, *norms, *time_bar; /* (T), `heads` apart; may be NULL */
  int stride, heads;
  bool temperature; /* β̄ is wanted */
} backward_head;

/* The scratch memory: the scalars of all heads of all sequences, then the threads' spaces. */
static size_t scalars_bytes(const kp_attention_arguments *a) {
  size_t used = 0;
  kp_scratch_take(NULL, &used, (size_t)(a->batch * a->heads) * sizeof(kp_scalar_bars));
  return used;
}

size_t KP_SCRATCH(attention_backward)(const kp_node *node, int threads) {
  const kp_attention_arguments *a = node->arguments;
  kp_backward_space space;
  return scalars_bytes(a) + (size_t)threads * kp_backward_space_lay(&space, NULL, a);
}

static double number_at(const float *numbers, int64_t i) {
  return numbers == NULL ? 0.0 : (double)numbers[i];
}

/* What leads from row t of the output to the gradient of the mean that it comes from. */
static kp_value_mean_slopes mean_slopes(const backward_head *b, int64_t t) {
  const kp_attention_head *head = &b->head;
  const int size = head->value_size;
  const float *o = b->o + t * b->stride;
  return kp_value_mean_backward(head->values, kp_inner_product(o, o, size), number_at(b->time, t * b->heads),
                                number_at(b->norms, t * b->heads),
                                b->o_bar == NULL ? 0.0 : kp_inner_product(o, b->o_bar + t * b->stride, size),
                                number_at(b->time_bar, t * b->heads), head->kappa);
}

/* M̄ of Lorentz values, row i of the block.  <M̄, M> is 0 but for the rounding of M̄, and taken out of P̄: M is
 * (o, o_time) times the norm over √c.  Returns κ̄'s part. */
static double lorentz_bar(const backward_head *b, int64_t t, int i, kp_backward_space *space) {
  const int size = b->head.value_size;
  const float *o = b->o + t * b->stride, *o_bar = b->o_bar == NULL ? NULL : b->o_bar + t * b->stride;
  float *bar = space->mean_bars + (int64_t)i * size;
  const kp_value_mean_slopes slopes = mean_slopes(b, t);
  const double norm = (double)b->norms[t * b->heads] / sqrt(kp_lorentz_radius(b->head.kappa));
  for (int d = 0; d < size; d++)
    bar[d] =
        (float)(slopes.along * (double)o[d] + (o_bar == NULL ? 0.0 : slopes.gradient * (double)o_bar[d]));
  space->time_bars[i] = slopes.extra;
  space->mean[i] =
      (float)(norm * (kp_inner_product(bar, o, size) + slopes.extra * (double)b->time[t * b->heads]));
  return slopes.kappa;
}

/* M̄ of midpoints, row i of the block.  Returns κ̄'s part. */
static double midpoint_bar(const backward_head *b, int64_t t, int i, kp_backward_space *space) {
  const int size = b->head.value_size;
  const float *o = b->o + t * b->stride, *o_bar = b->o_bar + t * b->stride;
  double *line = space->line_bars + (int64_t)i * (size + 1);
  const kp_value_mean_slopes slopes = mean_slopes(b, t);
  for (int d = 0; d < size; d++) line[d] = slopes.along * (double)o[d] + slopes.gradient * (double)o_bar[d];
  line[size] = slopes.extra;
  for (int d = 0; d <= size; d++) space->line_lanes[d * KP_QUERY_TILE + i] = line[d];
  return slopes.kappa;
}

/* M̄ of the block and its transpose, and the row sums of P ∘ P̄.  Returns κ̄'s part. */
static double prepare_means(const backward_head *b, kp_query_block block, kp_backward_space *space) {
  const kp_attention_head *head = &b->head;
  const int64_t begin = block.begin;
  double kappa = 0.0;
  if (head->values == KP_VALUES_MIDPOINT) {
    memset(space->line_lanes, 0, (size_t)(head->value_size + 1) * KP_QUERY_TILE * sizeof(double));
    for (int i = 0; i < block.rows; i++) kappa += midpoint_bar(b, begin + i, i, space);
    return kappa;
  }
  const bool lorentz = head->values == KP_VALUES_LORENTZ;
  space->bars = lorentz ? space->mean_bars : b->o_bar + begin * b->stride;
  space->bars_stride = lorentz ? head->value_size : b->stride;
  for (int i = 0; i < block.rows; i++)
    if (lorentz)
      kappa += lorentz_bar(b, begin + i, i, space);
    else
      space->mean[i] = (float)kp_inner_product(b->o + (begin + i) * b->stride,
                                               b->o_bar + (begin + i) * b->stride, head->value_size);
  kp_transpose_block(space->bar_lanes, space->bars, space->bars_stride, block, head->value_size, 1.0f);
  return kappa;
}

/* What the tiles of a block read, and zeroed sums. */
static void prepare_block(const backward_head *b, kp_query_block block, kp_backward_space *space,
                          kp_scalar_bars *scalars) {
  kp_prepare_queries(&b->plain, block, &space->forward);
  for (int i = 0; i < KP_QUERY_TILE; i++) {
    space->logsumexp[i] = i < block.rows ? b->logsumexp[block.begin + i] : 0.0f;
    space->mean[i] = 0.0f;
    space->time_bars[i] = 0.0;
  }
  scalars->kappa += prepare_means(b, block, space);
  kp_backward_sums_begin(&b->head, block, space);
}

static void backward_tile(const backward_head *b, kp_query_block block, kp_key_tile tile,
                          kp_tile_documents documents, kp_backward_space *space) {
  const kp_attention_head *head = &b->head;
  kp_score_tile(&b->plain, block, tile, &space->forward);
  kp_weights_again(head, block, tile, documents, space);
  if (head->values == KP_VALUES_MIDPOINT)
    kp_midpoint_bars(head, block, tile, space);
  else
    kp_value_bars(head, block, tile, b->gradient, space);
  kp_score_bars(head, block, tile, b->temperature, space);
  if (kp_score_is_geodesic(head->score))
    kp_geodesic_tile_backward(head, block, tile, space);
  else
    kp_product_tile_backward(head, block, tile, b->gradient, space);
}

static void zero_rows(float *rows, int stride, int count, int size) {
  for (int64_t t = 0; t < count; t++) memset(rows + t * stride, 0, (size_t)size * sizeof(float));
}

/* All blocks of queries of one head; adds to K̄ and V̄. */
static kp_scalar_bars backward_one_head(const backward_head *b, kp_backward_space *space) {
  const kp_attention_head *head = &b->head;
  kp_scalar_bars scalars = {0, 0};
  space->forward.key_count = 0;
  kp_prepare_keys(head, head->keys, &space->forward);
  kp_backward_keys_begin(head, space);
  zero_rows(b->gradient.q, b->gradient.q_stride, head->queries, head->size);
  for (int index = 0; index < kp_query_blocks(head->queries); index++) {
    const kp_query_block block = kp_query_block_of(head, index);
    const int visible = kp_visible_keys(head, block);
    prepare_block(b, block, space, &scalars);
    kp_key_tile tile;
    for (int first = 0; first < visible; first += tile.count) {
      tile = kp_key_tile_of(head, block, first);
      const kp_tile_documents documents = kp_tile_documents_of(head, block, tile);
      if (documents != KP_DOCUMENTS_APART) backward_tile(b, block, tile, documents, space);
    }
    kp_backward_block_finish(head, block, b->gradient, space, &scalars);
  }
  kp_backward_keys_finish(head, b->gradient, space, &scalars);
  return scalars;
}

static const float *numbers_of(const void *input, int64_t place) {
  return input == NULL ? NULL : (const float *)input + place;
}

static backward_head backward_head_of(const kp_call *call, int64_t b, int h) {
  const kp_attention_arguments *a = call->node->arguments;
  const int size = kp_attention_value_size(a);
  const int64_t number = b * a->length * a->heads + h;
  kp_attention_head plain = kp_whole_head_of(call, b, h);
  plain.beta = 1.0;
  return (backward_head){
      .head = kp_whole_head_of(call, b, h),
      .plain = plain,
      .gradient = kp_head_rows_of(a, call->output[0], call->output[1], call->output[2], b, h),
      .o = (const float *)call->input[6] + number * size,
      .logsumexp = (const float *)call->input[7] + (b * a->heads + h) * a->length,
      .time = numbers_of(call->input[8], number),
      .norms = numbers_of(call->input[9], number),
      .o_bar = numbers_of(call->input[10], number * size),
      .time_bar = numbers_of(call->input[11], number),
      .stride = a->heads * size,
      .heads = a->heads,
      .temperature = call->output[4] != NULL,
  };
}

/* Adds to head h's place in a gradient of H or 1 numbers, which may be NULL. */
static void add_scalar(float *gradient, const kp_tensor *tensor, int h, double value) {
  if (gradient != NULL) gradient[tensor != NULL && kp_tensor_count(tensor) == 1 ? 0 : h] += (float)value;
}

/* Adds the scalars of all sequences to the gradients of κ and β. */
static void add_scalars(const kp_call *call, const kp_scalar_bars *scalars) {
  const kp_attention_arguments *a = call->node->arguments;
  for (int h = 0; h < a->heads; h++) {
    kp_scalar_bars sum = {0, 0};
    for (int64_t b = 0; b < a->batch; b++) {
      sum.kappa += scalars[b * a->heads + h].kappa;
      sum.beta += scalars[b * a->heads + h].beta;
    }
    add_scalar(call->output[3], call->node->input[3], h, sum.kappa);
    add_scalar(call->output[4], call->node->input[4], h, sum.beta);
  }
}

/* One key head of one sequence, with the query heads that share it. */
static void backward_unit(const kp_call *call, int64_t unit, kp_backward_space *space,
                          kp_scalar_bars *scalars) {
  const kp_attention_arguments *a = call->node->arguments;
  const int group = a->heads / a->kv_heads, first = (int)(unit % a->kv_heads) * group;
  const int64_t b = unit / a->kv_heads;
  for (int h = first; h < first + group; h++) {
    const backward_head head = backward_head_of(call, b, h);
    if (h == first) {
      zero_rows(head.gradient.k, head.gradient.k_stride, head.head.keys, head.head.size);
      zero_rows(head.gradient.v, head.gradient.v_stride, head.head.keys, head.head.value_size);
    }
    scalars[b * a->heads + h] = backward_one_head(&head, space);
  }
}

kp_status KP_KERNEL(attention_backward)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_attention_arguments *a = call->node->arguments;
  kp_scalar_bars *scalars = call->scratch;
#pragma omp parallel num_threads(call->run->threads)
  {
    kp_backward_space space;
    const size_t bytes = kp_backward_space_lay(&space, NULL, a);
    kp_backward_space_lay(&space,
                          (char *)call->scratch + scalars_bytes(a) + (size_t)omp_get_thread_num() * bytes, a);
#pragma omp for schedule(static)
    for (int64_t unit = 0; unit < a->batch * a->kv_heads; unit++) backward_unit(call, unit, &space, scalars);
  }
  add_scalars(call, scalars);
  return KP_OK;
}
