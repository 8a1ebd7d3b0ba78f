/* Counts the pieces that a pre-tokenizer cuts texts into: the words that byte-pair encoding learns from.
 *
 * Texts are given in batches and not kept: only the distinct pieces are.  Threads share a batch, and a long
 * text is shared too, at places where the pre-tokenizer cuts in any case.  The counts do not depend on the
 * number of threads; the order of the words in their table does. */
#ifndef KAPPA_DATA_BPE_COUNT_H
#define KAPPA_DATA_BPE_COUNT_H

#include <stddef.h>

#include "core/error.h"
#include "data/bpe_learn.h"
#include "data/pretokenizer.h"
#include "data/tokenizer.h"
#include "data/word_table.h"

typedef struct kp_bpe_counter kp_bpe_counter;

typedef struct kp_bpe_count_options {
  const kp_pretokenizer *pretokenizer;
  const char *const *specials; /* their texts are not counted: a text is two texts where one stands */
  size_t special_count;
  int threads;              /* 0: all */
  kp_bpe_progress progress; /* done: bytes of the batch; may be NULL */
  void *context;
} kp_bpe_count_options;

/* The options are copied; what they point to must outlive the counter. */
kp_status kp_bpe_counter_create(const kp_bpe_count_options *options, kp_bpe_counter **counter,
                                kp_error *error);
void kp_bpe_counter_destroy(kp_bpe_counter *counter); /* NULL is allowed */

/* Counts more texts.  One that is not UTF-8 is an error that names its number when there are several, and the
 * offset and line of the first invalid byte; what was counted is then of no use. */
kp_status kp_bpe_counter_add(kp_bpe_counter *counter, const kp_text_view *texts, size_t count,
                             kp_error *error);

/* The words, with their counts; the counter's.  Nothing may be added afterwards. */
kp_status kp_bpe_counter_words(kp_bpe_counter *counter, const kp_word_table **words, kp_error *error);

#endif
