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

static kp_status cut(const kp_packed_stream *stream, span_list *list, kp_error *error) {
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
  kp_status status = (stream->rule == KP_PACKING_EXACT ? plan_exact : plan_helm)(stream, packer, list, error);
  kp_packer_destroy(packer);
  if (status == KP_OK && stream->packed.count == 0)
    status = kp_fail(error, KP_ERR_INPUT, "token file %s has no documents between its separators",
                     kp_tokens_path(stream->tokens, 0));
  return status;
}

kp_status kp_packed_stream_init(kp_packed_stream *stream, const kp_tokens *tokens,
                                const kp_sampler_options *options, kp_packing_rule rule, int32_t separator,
                                kp_error *error) {
  *stream = (kp_packed_stream){.tokens = tokens, .options = *options, .rule = rule, .separator = separator};
  span_list list = {0};
  if (kp_tokens_vocabulary(tokens) > options->vocabulary)
    return kp_fail(error, KP_ERR_INPUT, "token file %s was made for a vocabulary of %d, the model has %d",
                   kp_tokens_path(tokens, 0), kp_tokens_vocabulary(tokens), options->vocabulary);
  kp_status status = cut(stream, &list, error);
  if (status == KP_OK) status = plan(stream, &list, error);
  free(list.spans);
  if (status != KP_OK) kp_packed_stream_clear(stream);
  return status;
}

void kp_packed_stream_clear(kp_packed_stream *stream) {
  kp_packed_clear(&stream->packed);
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

kp_status kp_packed_stream_fill(const kp_packed_stream *stream, int64_t step, int64_t micro_batch,
                                kp_batch *batch, kp_error *error) {
  const kp_sampler_options *options = &stream->options;
  const kp_packed_marks marks = {.pad = stream->separator, .end = stream->separator, .ignore = KP_IGNORE};
  const kp_token_source source = {copy_tokens, stream->tokens};
  for (int64_t i = 0; i < options->rows; i++) {
    const int64_t at = i * options->context;
    const int64_t row =
        kp_sampling_place(options, stream->packed.count, step, micro_batch * options->rows + i);
    kp_packed_fill(&stream->packed, row, options->context, marks, source, batch->inputs + at,
                   batch->targets + at, batch->documents + at, NULL);
    KP_TRY(check_tokens(stream, batch->inputs + at, batch->targets + at, row, error));
  }
  return KP_OK;
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
