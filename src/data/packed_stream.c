#include "data/packed_stream.h"

#include <stdlib.h>

#include "core/assert.h"
#include "core/random.h"
#include "data/packed.h"

/* What HELM's scripts draw for each row of a batch. */
enum { HELM_SAMPLES_PER_ROW = 3 };

/* ---- documents ---- */

/* A growing list of documents. */
typedef struct span_list {
  kp_span *spans;
  int64_t count, capacity;
} span_list;

static kp_status append(span_list *list, kp_span span, kp_error *error) {
  if (span.count < (span.closed ? 2 : 1)) return KP_OK; /* nothing to predict */
  if (list->count == list->capacity) {
    const int64_t capacity = list->capacity == 0 ? 1024 : 2 * list->capacity;
    kp_span *grown = realloc(list->spans, (size_t)capacity * sizeof *grown);
    if (grown == NULL)
      return kp_fail(error, KP_ERR_MEMORY, "no memory for a list of %lld documents", (long long)capacity);
    list->spans = grown;
    list->capacity = capacity;
  }
  list->spans[list->count++] = span;
  return KP_OK;
}

/* The document in front of the separator at `at`, or of the stream's end, where the last separator stood at
 * `previous` (-1: none). */
static kp_span document_of(kp_packing_rule rule, int64_t previous, int64_t at, int64_t stream_end) {
  const int64_t first = rule == KP_PACKING_EXACT && previous >= 0 ? previous : previous + 1;
  const int64_t end = rule == KP_PACKING_EXACT && at < stream_end ? at + 1 : at;
  return (kp_span){.offset = first, .count = end - first, .closed = rule == KP_PACKING_EXACT};
}

/* Conversations of an index: the last token predicts nothing. */
static kp_status cut_by_index(const kp_packed_stream *stream, span_list *list, kp_error *error) {
  const int64_t *offsets = stream->index->offsets;
  for (int64_t e = 0; e < stream->index->count; e++)
    KP_TRY(append(list,
                  (kp_span){.offset = offsets[e],
                            .count = offsets[e + 1] - offsets[e],
                            .closed = stream->rule != KP_PACKING_HELM},
                  error));
  return KP_OK;
}

static kp_status cut_at_separators(const kp_packed_stream *stream, span_list *list, kp_error *error) {
  enum { CHUNK = 8192 };
  int32_t tokens[CHUNK];
  const int64_t end = kp_tokens_count(stream->tokens);
  int64_t previous = -1;
  for (int64_t first = 0; first < end; first += CHUNK) {
    const int64_t count = end - first < CHUNK ? end - first : CHUNK;
    kp_tokens_copy(stream->tokens, first, count, tokens);
    for (int64_t i = 0; i < count; i++) {
      if (tokens[i] != stream->separator) continue;
      KP_TRY(append(list, document_of(stream->rule, previous, first + i, end), error));
      previous = first + i;
    }
  }
  if (previous < 0)
    return kp_fail(error, KP_ERR_INPUT,
                   "token file %s holds no token %d: data.separator must be the token between documents",
                   kp_tokens_path(stream->tokens, 0), stream->separator);
  return append(list, document_of(stream->rule, previous, end, end), error);
}

/* ---- the epoch's rows ---- */

static kp_status plan_exact(kp_packed_stream *stream, kp_packer *packer, const span_list *list,
                            kp_error *error) {
  KP_TRY(kp_packer_add(packer, list->spans, list->count, error));
  return kp_packer_take(packer, INT64_MAX, &stream->packed, error);
}

/* Documents come in random order, three for each row of a batch; what waits at the end is lost. */
static kp_status plan_helm(kp_packed_stream *stream, kp_packer *packer, const span_list *list,
                           kp_error *error) {
  const int64_t rows = stream->options.rows, group = HELM_SAMPLES_PER_ROW * rows;
  kp_span *raw = malloc((size_t)group * sizeof *raw);
  kp_status status =
      raw == NULL ? kp_fail(error, KP_ERR_MEMORY, "no memory for a batch of documents") : KP_OK;
  for (int64_t first = 0; first < list->count && status == KP_OK; first += group) {
    const int64_t count = list->count - first < group ? list->count - first : group;
    for (int64_t i = 0; i < count; i++)
      raw[i] = list->spans[kp_random_permute(stream->options.seed, KP_RANDOM_BATCHES, 0,
                                             (uint64_t)(first + i), (uint64_t)list->count)];
    status = kp_packer_add(packer, raw, count, error);
    if (status == KP_OK) status = kp_packer_take(packer, rows, &stream->packed, error);
  }
  free(raw);
  return status;
}

static kp_status plan(kp_packed_stream *stream, const span_list *list, kp_error *error) {
  kp_packer *packer;
  KP_TRY(kp_packer_create(stream->rule, stream->options.rows, stream->options.context, &packer, error));
  kp_status status = (stream->rule == KP_PACKING_HELM ? plan_helm : plan_exact)(stream, packer, list, error);
  kp_packer_destroy(packer);
  if (status == KP_OK && stream->packed.count == 0)
    status = kp_fail(error, KP_ERR_INPUT, "token file %s has no documents that fill a row",
                     kp_tokens_path(stream->tokens, 0));
  return status;
}

/* Whether token `t` of a piece predicts what is learned. */
static bool is_learned(const kp_packed_stream *stream, const kp_piece *piece, int32_t t) {
  if (t == 0 && piece->first_ignored) return false;
  if (t == piece->size - 1 && piece->last != KP_LAST_NEXT) return false;
  return stream->index->mask[piece->offset + t + 1] == 1;
}

static kp_status count_targets(kp_packed_stream *stream, kp_error *error) {
  const kp_packed *packed = &stream->packed;
  stream->targets = calloc((size_t)packed->count, sizeof *stream->targets);
  if (stream->targets == NULL)
    return kp_fail(error, KP_ERR_MEMORY, "no memory for %lld rows", (long long)packed->count);
  for (int64_t row = 0; row < packed->count; row++)
    for (int64_t p = packed->first[row]; p < packed->first[row + 1]; p++)
      for (int32_t t = 0; t < packed->pieces[p].size; t++)
        stream->targets[row] += is_learned(stream, &packed->pieces[p], t);
  return KP_OK;
}

static kp_status init(kp_packed_stream *stream, kp_error *error) {
  span_list list = {0};
  const kp_tokens *tokens = stream->tokens;
  if (kp_tokens_vocabulary(tokens) > stream->options.vocabulary)
    return kp_fail(error, KP_ERR_INPUT, "token file %s was made for a vocabulary of %d, the model has %d",
                   kp_tokens_path(tokens, 0), kp_tokens_vocabulary(tokens), stream->options.vocabulary);
  kp_status status = (stream->index != NULL ? cut_by_index : cut_at_separators)(stream, &list, error);
  if (status == KP_OK) status = plan(stream, &list, error);
  free(list.spans);
  if (status == KP_OK && stream->index != NULL) status = count_targets(stream, error);
  if (status != KP_OK) kp_packed_stream_clear(stream);
  return status;
}

kp_status kp_packed_stream_init(kp_packed_stream *stream, const kp_tokens *tokens,
                                const kp_sampler_options *options, kp_packing_rule rule, int32_t separator,
                                kp_error *error) {
  *stream = (kp_packed_stream){.tokens = tokens, .options = *options, .rule = rule, .separator = separator};
  return init(stream, error);
}

kp_status kp_packed_stream_init_conversations(kp_packed_stream *stream, const kp_tokens *tokens,
                                              const kp_sampler_options *options, kp_packing_rule rule,
                                              kp_error *error) {
  const kp_conversation_index *index = kp_tokens_index(tokens);
  kp_assert(index != NULL, "no conversations in %s", kp_tokens_path(tokens, 0));
  *stream = (kp_packed_stream){.tokens = tokens, .index = index, .options = *options, .rule = rule};
  if (index->longest - 1 > options->context)
    return kp_fail(error, KP_ERR_INPUT,
                   "%s has a conversation of %lld tokens, which a context of %lld does not hold: set "
                   "model.context, or prepare the data with --length %lld",
                   kp_tokens_path(tokens, 0), (long long)index->longest, (long long)options->context,
                   (long long)options->context + 1);
  return init(stream, error);
}

void kp_packed_stream_clear(kp_packed_stream *stream) {
  kp_packed_clear(&stream->packed);
  free(stream->targets);
  stream->targets = NULL;
}

double kp_packed_stream_efficiency(const kp_packed_stream *stream) {
  return (double)stream->packed.tokens / ((double)stream->packed.count * (double)stream->options.context);
}

/* ---- batches ---- */

static void copy_tokens(const void *from, int64_t offset, int64_t count, int32_t *out) {
  kp_tokens_copy(from, offset, count, out);
}

/* Refuses tokens outside the vocabulary, which would read beyond the embedding. */
static kp_status check_tokens(const kp_packed_stream *stream, const int32_t *tokens, const int32_t *targets,
                              int64_t row, kp_error *error) {
  for (int64_t t = 0; t < stream->options.context; t++) {
    const int32_t vocabulary = stream->options.vocabulary;
    if ((uint32_t)tokens[t] >= (uint32_t)vocabulary || (targets[t] != KP_IGNORE && targets[t] >= vocabulary))
      return kp_fail(
          error, KP_ERR_INPUT,
          "a packed row (%lld) of token file %s holds a token that is not below the vocabulary of %d",
          (long long)row, kp_tokens_path(stream->tokens, 0), vocabulary);
  }
  return KP_OK;
}

/* Targets that the index does not mark are none. */
static void apply_mask(const kp_packed_stream *stream, int64_t row, int32_t *targets) {
  const kp_packed *packed = &stream->packed;
  for (int64_t p = packed->first[row]; p < packed->first[row + 1]; p++) {
    const kp_piece *piece = &packed->pieces[p];
    for (int32_t t = 0; t < piece->size; t++)
      if (!is_learned(stream, piece, t)) targets[t] = KP_IGNORE;
    targets += piece->size;
  }
}

/* Row `row` of the plan becomes row `to` of the batch; -1 leaves it empty. */
static kp_status fill_row(const kp_packed_stream *stream, int64_t row, int64_t to, kp_batch *batch,
                          kp_error *error) {
  const int32_t separator = stream->index != NULL ? 0 : stream->separator;
  const kp_packed_marks marks = {
      .pad = separator, .end = stream->index != NULL ? KP_IGNORE : separator, .ignore = KP_IGNORE};
  const kp_token_source source = {copy_tokens, stream->tokens};
  const int64_t T = stream->options.context, at = to * T;
  if (row < 0) {
    for (int64_t t = at; t < at + T; t++) {
      batch->inputs[t] = marks.pad;
      batch->targets[t] = KP_IGNORE;
      batch->documents[t] = -1;
    }
    return KP_OK;
  }
  kp_packed_fill(&stream->packed, row, T, marks, source, batch->inputs + at, batch->targets + at,
                 batch->documents + at, NULL);
  if (stream->index != NULL) apply_mask(stream, row, batch->targets + at);
  return check_tokens(stream, batch->inputs + at, batch->targets + at, row, error);
}

kp_status kp_packed_stream_fill(const kp_packed_stream *stream, int64_t step, int64_t micro_batch,
                                kp_batch *batch, kp_error *error) {
  const kp_sampler_options *options = &stream->options;
  for (int64_t i = 0; i < options->rows; i++) {
    const int64_t row =
        kp_sampling_place(options, stream->packed.count, step, micro_batch * options->rows + i);
    KP_TRY(fill_row(stream, row, i, batch, error));
  }
  return KP_OK;
}

int64_t kp_packed_stream_targets(const kp_packed_stream *stream, int64_t step, int64_t micro_batch) {
  const kp_sampler_options *options = &stream->options;
  int64_t count = 0;
  for (int64_t i = 0; i < options->rows; i++)
    count += stream->targets[kp_sampling_place(options, stream->packed.count, step,
                                               micro_batch * options->rows + i)];
  return count;
}

int64_t kp_packed_stream_batches(const kp_packed_stream *stream, int64_t maximum) {
  const int64_t rows = stream->options.rows, all = (stream->packed.count + rows - 1) / rows;
  return maximum > 0 && maximum < all ? maximum : all;
}

kp_status kp_packed_stream_validation_fill(const kp_packed_stream *stream, int64_t batches, int64_t number,
                                           kp_batch *batch, int64_t *scored, kp_error *error) {
  const int64_t rows = stream->options.rows, count = stream->packed.count, places = batches * rows;
  *scored = 0;
  for (int64_t i = 0; i < rows; i++) {
    const int64_t place = number * rows + i, row = places < count ? place * count / places : place;
    KP_TRY(fill_row(stream, row < count ? row : -1, i, batch, error));
  }
  for (int64_t t = 0; t < rows * stream->options.context; t++) *scored += batch->targets[t] != KP_IGNORE;
  return KP_OK;
}

void kp_document_positions(const int32_t *documents, int64_t rows, int64_t context, int32_t *positions) {
  for (int64_t row = 0; row < rows; row++)
    for (int64_t t = 0, i = row * context; t < context; t++, i++)
      positions[i] = t > 0 && documents[i] == documents[i - 1] ? positions[i - 1] + 1 : 0;
}

void kp_number_documents(const int32_t *inputs, int64_t rows, int64_t context, int32_t separator,
                         int32_t *documents) {
  for (int64_t row = 0; row < rows; row++) {
    int32_t number = 0;
    for (int64_t t = row * context; t < (row + 1) * context; t++) {
      number += inputs[t] == separator;
      documents[t] = number;
    }
  }
}
