/* Rows of whole documents: a token stream, cut at its separators or where an index says, and packed
 * (data/packing.h).
 *
 *   exact   a separator opens the document behind it and is the last label of the one before: every token of
 * the stream but the first is a target exactly once, as without packing. helm    separators are read by
 * nobody; they are what the last token of a document predicts, and padding.
 *
 * With an index documents are conversations (data/conversation_index.h), there are no separators, and what
 * the index does not mark is no target.
 *
 * All rows of an epoch are planned when the stream is opened, which reads the tokens once; the rows of a step
 * are then a function of (seed, step), as those of a sampler (data/batches.h). */
#ifndef KAPPA_DATA_PACKED_STREAM_H
#define KAPPA_DATA_PACKED_STREAM_H

#include "data/batches.h"
#include "data/conversation_index.h"
#include "data/packing.h"

typedef struct kp_packed_stream {
  const kp_tokens *tokens;            /* a view */
  const kp_conversation_index *index; /* of the tokens, or NULL: documents stand between separators */
  kp_sampler_options options;
  kp_packing_rule rule;
  int32_t separator;
  kp_packed packed; /* owned */
  int32_t *targets; /* of each row, where there is an index; owned */
} kp_packed_stream;

/* Fails if the stream holds no separator, or says that it was made for a larger vocabulary.  The tokens must
 * outlive the stream; clear it with kp_packed_stream_clear. */
kp_status kp_packed_stream_init(kp_packed_stream *stream, const kp_tokens *tokens,
                                const kp_sampler_options *options, kp_packing_rule rule, int32_t separator,
                                kp_error *error);
/* Same for tokens with an index.  Fails if a conversation is longer than the context. */
kp_status kp_packed_stream_init_conversations(kp_packed_stream *stream, const kp_tokens *tokens,
                                              const kp_sampler_options *options, kp_packing_rule rule,
                                              kp_error *error);
void kp_packed_stream_clear(kp_packed_stream *stream);

/* The share of an epoch's slots that hold tokens. */
double kp_packed_stream_efficiency(const kp_packed_stream *stream);

/* Writes inputs, targets and documents of a micro batch; see kp_batch_fill. */
kp_status kp_packed_stream_fill(const kp_packed_stream *stream, int64_t step, int64_t micro_batch,
                                kp_batch *batch, kp_error *error);

/* Targets that are not KP_IGNORE in a micro batch of conversations. */
int64_t kp_packed_stream_targets(const kp_packed_stream *stream, int64_t step, int64_t micro_batch);

/* Batches of a validation on all rows; at most `maximum` of them, 0 is no bound. */
int64_t kp_packed_stream_batches(const kp_packed_stream *stream, int64_t maximum);

/* Batch `number` of a validation of `batches` batches, which takes rows evenly from all that there are; in
 * the last some may be empty.  *scored is the number of targets that are not KP_IGNORE. */
kp_status kp_packed_stream_validation_fill(const kp_packed_stream *stream, int64_t batches, int64_t number,
                                           kp_batch *batch, int64_t *scored, kp_error *error);

/* Positions that begin at 0 in every run of equal document numbers, (rows, context). */
void kp_document_positions(const int32_t *documents, int64_t rows, int64_t context, int32_t *positions);

/* Numbers the documents in `rows` windows of a stream, (rows, context) from 0 in each: a separator opens one.
 */
void kp_number_documents(const int32_t *inputs, int64_t rows, int64_t context, int32_t separator,
                         int32_t *documents);

#endif
