/* Fast attention, backward: the weights are computed again from the scores and the logsumexp
 * (Dao et al. 2022, appendix B), tile by tile.
 *
 * With P the weights, O the outputs and bars for gradients:
 *     V̄ = Pᵀ Ō      P̄ = Ō Vᵀ      S̄ = P ∘ (P̄ - rowsum(Ō ∘ O))
 * and the score's own backward: Q̄ = scale S̄ K, K̄ = scale S̄ᵀ Q for the dot product; for geodesic scores
 * S̄ becomes the gradient of w, two products carry it to the query and key rows, and these to q, k and κ.
 *
 * A work item is one key head of one sequence with all query heads that share it, so that every gradient
 * has one owner and is summed in a fixed order: there are no atomics, and the result does not depend on
 * the number of threads.  κ̄ and β̄ are kept by head and sequence and summed at the end. */
#include <omp.h>

#include "backend/cpu/isa/attention_forward.h"

/* Scalars of one head of one sequence. */
typedef struct scalar_bars {
  double kappa, beta;
} scalar_bars;

/* A thread's memory. */
typedef struct backward_space {
  kp_forward_space forward;
  float *out_bars;                                     /* (D, 64): the block's rows of Ō transposed */
  float *score_bars;                                   /* (128, 64): a tile of P̄, then S̄ */
  double *query_lines;                                 /* (64, D + 2): geodesic query rows */
  double *query_row_bars;                              /* (64, D + 2): their gradients */
  double *key_row_bars;                                /* (T, D + 2): gradients of the key rows */
  float logsumexp[KP_QUERY_TILE], mean[KP_QUERY_TILE]; /* of the block: mean is rowsum(Ō ∘ O) */
  kp_geodesic_sums sums;
} backward_space;

/* One head and where its gradients go. */
typedef struct backward_head {
  kp_attention_head head;
  kp_head_rows gradient;
  const float *o, *o_bar, *logsumexp; /* o and Ō: (T, D), `stride` apart */
  int stride;
  bool first_of_group; /* writes K̄ and V̄, the others add */
} backward_head;

static size_t lay_space(backward_space *space, char *base, const kp_attention_arguments *a) {
  const size_t row = (size_t)a->head_size + 2, queries = KP_QUERY_TILE;
  size_t used = kp_forward_space_lay(&space->forward, base, a->score, a->head_size, a->length);
  space->out_bars = kp_scratch_take(base, &used, (size_t)a->head_size * queries * sizeof(float));
  space->score_bars = kp_scratch_take(base, &used, KP_KEY_TILE * queries * sizeof(float));
  if (a->score != KP_SCORE_DOT) {
    space->query_lines = kp_scratch_take(base, &used, row * queries * sizeof(double));
    space->query_row_bars = kp_scratch_take(base, &used, row * queries * sizeof(double));
    space->key_row_bars = kp_scratch_take(base, &used, row * (size_t)a->length * sizeof(double));
  }
  return used;
}

/* The scratch memory: the scalars of all heads of all sequences, then the threads' spaces. */
static size_t scalars_bytes(const kp_attention_arguments *a) {
  size_t used = 0;
  kp_scratch_take(NULL, &used, (size_t)(a->batch * a->heads) * sizeof(scalar_bars));
  return used;
}

size_t KP_SCRATCH(attention_backward)(const kp_node *node, int threads) {
  const kp_attention_arguments *a = node->arguments;
  backward_space space;
  return scalars_bytes(a) + (size_t)threads * lay_space(&space, NULL, a);
}

static void prepare_block(const backward_head *b, kp_query_block block, backward_space *space) {
  const kp_attention_head *head = &b->head;
  const float *o = b->o + (int64_t)block.begin * b->stride,
              *o_bar = b->o_bar + (int64_t)block.begin * b->stride;
  kp_prepare_queries(head, block, &space->forward);
  kp_transpose_block(space->out_bars, o_bar, b->stride, block, head->size, 1.0f);
  for (int i = 0; i < block.lanes; i++) space->logsumexp[i] = space->mean[i] = 0.0f;
  for (int i = 0; i < block.rows; i++) {
    space->mean[i] =
        (float)kp_inner_product(o + (int64_t)i * b->stride, o_bar + (int64_t)i * b->stride, head->size);
    space->logsumexp[i] = b->logsumexp[block.begin + i];
  }
  if (head->score == KP_SCORE_DOT) return;
  memset(&space->sums, 0, sizeof space->sums);
  for (int i = 0; i < block.rows; i++)
    for (int d = 0; d < head->size + 2; d++)
      space->query_lines[i * (head->size + 2) + d] = space->forward.query_rows[d * KP_QUERY_TILE + i];
}

/* Scores become weights; those of hidden pairs are 0. */
static void weigh_tile(const kp_attention_head *head, kp_query_block block, kp_key_tile tile,
                       backward_space *space) {
  for (int j = 0; j < tile.count; j++) {
    float *s = space->forward.scores + j * KP_QUERY_TILE;
    const int hidden = kp_hidden_lanes(head, block, tile.first + j), start = hidden / KP_LANES * KP_LANES;
    for (int i = tile.lane; i < start; i++) s[i] = 0.0f;
#pragma omp simd
    for (int i = start; i < block.lanes; i++) {
      const float weight = kp_expf(s[i] - space->logsumexp[i]);
      s[i] = i >= hidden ? weight : 0.0f;
    }
  }
}

/* P̄ becomes S̄. */
static void score_bars_tile(kp_query_block block, kp_key_tile tile, backward_space *space) {
  for (int j = 0; j < tile.count; j++) {
    const float *weight = space->forward.scores + j * KP_QUERY_TILE;
    float *bar = space->score_bars + j * KP_QUERY_TILE;
#pragma omp simd
    for (int i = tile.lane; i < block.lanes; i++) bar[i] = weight[i] * (bar[i] - space->mean[i]);
  }
}

/* Q̄ and K̄ of the dot product.  A block's first tile writes Q̄; `add` says whether K̄ has been written. */
static void dot_backward(const backward_head *b, kp_query_block block, kp_key_tile tile, bool add,
                         backward_space *space) {
  const kp_attention_head *head = &b->head;
  const int64_t query = block.begin + tile.lane, key = tile.first;
  const int rows = block.rows - tile.lane;
  const float *bars = space->score_bars + tile.lane;
  cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, rows, head->size, tile.count, (float)head->scale, bars,
              KP_QUERY_TILE, head->k + key * head->kv_stride, head->kv_stride, key > 0 ? 1.0f : 0.0f,
              b->gradient.q + query * b->gradient.q_stride, b->gradient.q_stride);
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, tile.count, head->size, rows, (float)head->scale,
              bars, KP_QUERY_TILE, head->q + query * head->q_stride, head->q_stride, add ? 1.0f : 0.0f,
              b->gradient.k + key * b->gradient.kv_stride, b->gradient.kv_stride);
}

/* The same for geodesic scores: gradients of the query and key rows. */
static void geodesic_backward(const backward_head *b, kp_query_block block, kp_key_tile tile, bool add,
                              backward_space *space) {
  const kp_attention_head *head = &b->head;
  const int row = head->size + 2, rows = block.rows - tile.lane;
  const int64_t key = (int64_t)tile.first * row, query = (int64_t)tile.lane * row;
  for (int j = 0; j < tile.count; j++) {
    const int place = j * KP_QUERY_TILE;
    kp_geodesic_backward(space->forward.products + place, space->forward.scores + place,
                         space->score_bars + place, &space->sums, tile.lane, block.lanes, head);
  }
  const double *bars = space->forward.products + tile.lane;
  cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, rows, row, tile.count, 1.0, bars, KP_QUERY_TILE,
              space->forward.key_rows + key, row, tile.first > 0 ? 1.0 : 0.0, space->query_row_bars + query,
              row);
  cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, tile.count, row, rows, 1.0, bars, KP_QUERY_TILE,
              space->query_lines + query, row, add ? 1.0 : 0.0, space->key_row_bars + key, row);
}

/* `add`: an earlier block of this head has written the gradients of these keys. */
static void backward_tile(const backward_head *b, kp_query_block block, kp_key_tile tile, bool add,
                          backward_space *space) {
  const kp_attention_head *head = &b->head;
  const int64_t query = block.begin + tile.lane, key = tile.first;
  const bool written = add || !b->first_of_group;
  kp_score_tile(head, block, tile, &space->forward);
  weigh_tile(head, block, tile, space);
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, tile.count, head->size, block.rows - tile.lane, 1.0f,
              space->forward.scores + tile.lane, KP_QUERY_TILE, b->o_bar + query * b->stride, b->stride,
              written ? 1.0f : 0.0f, b->gradient.v + key * b->gradient.kv_stride, b->gradient.kv_stride);
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, tile.count, block.lanes - tile.lane, head->size,
              1.0f, head->v + key * head->kv_stride, head->kv_stride, space->out_bars + tile.lane,
              KP_QUERY_TILE, 0.0f, space->score_bars + tile.lane, KP_QUERY_TILE);
  score_bars_tile(block, tile, space);
  if (head->score == KP_SCORE_DOT)
    dot_backward(b, block, tile, written, space);
  else
    geodesic_backward(b, block, tile, add, space);
}

/* The block's part of Q̄, κ̄ and β̄ of a geodesic score. */
static void finish_block(const backward_head *b, kp_query_block block, const backward_space *space,
                         scalar_bars *scalars) {
  const kp_attention_head *head = &b->head;
  const kp_geodesic_sums *sums = &space->sums;
  for (int i = 0; i < block.rows; i++) {
    const int64_t t = block.begin + i;
    const double *row_bar = space->query_row_bars + (int64_t)i * (head->size + 2);
    scalars->kappa += (double)sums->kappa[i];
    scalars->kappa +=
        kp_geodesic_row_carry(row_bar, head->q + t * head->q_stride, head, kp_query_side(head->size), false,
                              b->gradient.q + t * b->gradient.q_stride);
    scalars->beta -= (double)sums->moment[i] - (double)sums->mean_distance[i] * (double)sums->score[i];
  }
}

/* All blocks of queries of one head.  The last block comes first: it sees every key, so it writes what the
 * others add to. */
static scalar_bars backward_one_head(const backward_head *b, backward_space *space) {
  const kp_attention_head *head = &b->head;
  const int row = head->size + 2, last = kp_query_blocks(head->queries) - 1;
  const bool geodesic = head->score != KP_SCORE_DOT;
  scalar_bars scalars = {0, 0};
  space->forward.key_count = 0;
  kp_prepare_keys(head, head->keys, &space->forward);
  for (int index = last; index >= 0; index--) {
    const kp_query_block block = kp_query_block_of(head, index);
    const int visible = kp_visible_keys(head, block);
    prepare_block(b, block, space);
    kp_key_tile tile;
    for (int first = 0; first < visible; first += tile.count) {
      tile = kp_key_tile_of(head, block, first);
      backward_tile(b, block, tile, index < last, space);
    }
    if (geodesic) finish_block(b, block, space, &scalars);
  }
  for (int64_t t = 0; geodesic && t < head->keys; t++)
    scalars.kappa += kp_geodesic_row_carry(space->key_row_bars + t * row, head->k + t * head->kv_stride, head,
                                           kp_key_side(head->size), !b->first_of_group,
                                           b->gradient.k + t * b->gradient.kv_stride);
  return scalars;
}

static backward_head backward_head_of(const kp_call *call, int64_t b, int h) {
  const kp_attention_arguments *a = call->node->arguments;
  const int stride = a->heads * a->head_size;
  const int64_t place = b * a->length * stride + (int64_t)h * a->head_size;
  return (backward_head){
      .head = kp_attention_head_of(a, call->input, b, h),
      .gradient = kp_head_rows_of(a, call->output, b, h),
      .o = (const float *)call->input[6] + place,
      .o_bar = (const float *)call->input[10] + place,
      .logsumexp = (const float *)call->input[7] + (b * a->heads + h) * a->length,
      .stride = stride,
      .first_of_group = h % (a->heads / a->kv_heads) == 0,
  };
}

/* Adds the scalars of all sequences to the gradients of κ and β (H), which may be NULL. */
static void add_scalars(const kp_attention_arguments *a, const scalar_bars *scalars, float *kappa,
                        float *beta) {
  for (int h = 0; h < a->heads; h++) {
    scalar_bars sum = {0, 0};
    for (int64_t b = 0; b < a->batch; b++) {
      sum.kappa += scalars[b * a->heads + h].kappa;
      sum.beta += scalars[b * a->heads + h].beta;
    }
    if (kappa != NULL) kappa[h] += (float)sum.kappa;
    if (beta != NULL) beta[h] += (float)sum.beta;
  }
}

kp_status KP_KERNEL(attention_backward)(const kp_call *call, kp_error *error) {
  const kp_attention_arguments *a = call->node->arguments;
  const int group = a->heads / a->kv_heads;
  scalar_bars *scalars = call->scratch;
  if (a->values != KP_VALUES_MEAN || a->score == KP_SCORE_LORENTZ || call->input[5] != NULL ||
      kp_attention_value_size(a) != a->head_size)
    return kp_fail(error, KP_ERR_UNSUPPORTED, "attention with these scores or values runs on ref alone");
#pragma omp parallel num_threads(call->run->threads)
  {
    backward_space space;
    const size_t bytes = lay_space(&space, NULL, a);
    lay_space(&space, (char *)call->scratch + scalars_bytes(a) + (size_t)omp_get_thread_num() * bytes, a);
#pragma omp for schedule(static)
    for (int64_t unit = 0; unit < a->batch * a->kv_heads; unit++)
      for (int h = (int)(unit % a->kv_heads) * group; h < (int)(unit % a->kv_heads + 1) * group; h++) {
        const int64_t b = unit / a->kv_heads;
        const backward_head head = backward_head_of(call, b, h);
        scalars[b * a->heads + h] = backward_one_head(&head, &space);
      }
  }
  add_scalars(a, scalars, call->output[3], call->output[4]);
  return KP_OK;
}
