/* Labelled texts to tokens: the token stream and the index of one split, and their files. */
#ifndef KAPPA_DATA_LABELLED_ENCODE_H
#define KAPPA_DATA_LABELLED_ENCODE_H

#include "data/labelled.h"
#include "data/labelled_text.h"
#include "data/prepared.h"

/* Zero-initialise; kp_labelled_stream_clear frees what it holds. */
typedef struct kp_labelled_stream {
  int32_t *ids;
  int32_t *tags; /* one a token; KP_IGNORE where none stands */
  size_t count, capacity;
  int64_t *offsets; /* (examples + 1) */
  int32_t *labels;  /* (examples) */
  size_t examples, example_capacity;
  int64_t truncated, longest;
  uint64_t text_bytes;
} kp_labelled_stream;

void kp_labelled_stream_clear(kp_labelled_stream *stream);

/* Appends one example of the texts, at most labelling->length tokens of it. */
kp_status kp_labelled_encode(kp_labelled_stream *stream, const kp_labelled_texts *texts,
                             const kp_labelled_example *example, const kp_labelling *labelling,
                             const kp_tokenizer *tokenizer, kp_error *error);

/* Writes the files `tokens` and `index` of the folder and says what they hold. */
kp_status kp_labelled_stream_write(const kp_labelled_stream *stream, const kp_labelling *labelling,
                                   const kp_tokenizer *tokenizer, const char *folder, const char *tokens,
                                   const char *index, kp_prepared_split *split, kp_labelled_counts *counts,
                                   kp_error *error);

#endif
