/* Trains a byte-level BPE tokenizer on texts: data/bpe_count.h counts their words, data/bpe_learn.h learns
 * the merges.
 *
 *   kp_bpe_trainer_create(&options, &trainer, error)
 *   kp_bpe_trainer_add(trainer, texts, count, error)   as often as there are texts
 *   kp_bpe_trainer_finish(trainer, &tokenizer, error)
 *
 * Ids: the special tokens in their order, then the 256 bytes in the order of their characters in GPT-2's
 * alphabet (data/byte_alphabet.h), then the merges: the ids of Hugging Face's BpeTrainer with the alphabet of
 * ByteLevel.  On the same texts the merges are the same too, except that here the texts of special tokens
 * are boundaries, not words to learn from. */
#ifndef KAPPA_DATA_BPE_TRAIN_H
#define KAPPA_DATA_BPE_TRAIN_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "data/bpe_learn.h"
#include "data/tokenizer.h"

typedef struct kp_bpe_train_options {
  int32_t vocabulary;          /* special tokens and bytes included */
  int64_t minimum_count;       /* a pair that is rarer is not merged; 0 and 1: every pair counts */
  const char *pattern;         /* NULL: KP_PATTERN_GPT2 (data/pretokenizer.h) */
  const char *const *specials; /* texts, for ids 0, 1, ...; must outlive the trainer */
  size_t special_count;
  int threads;              /* 0: all; the result does not depend on it */
  kp_bpe_progress counting; /* bytes of the texts of one call that are counted */
  kp_bpe_progress merging;  /* tokens */
  void *context;            /* for both */
} kp_bpe_train_options;

typedef struct kp_bpe_trainer kp_bpe_trainer;

/* Fails when the vocabulary has no room for the special tokens and the bytes, or a special token is empty,
 * repeated, or one character of the alphabet. */
kp_status kp_bpe_trainer_create(const kp_bpe_train_options *options, kp_bpe_trainer **trainer,
                                kp_error *error);

/* NULL is allowed. */
void kp_bpe_trainer_destroy(kp_bpe_trainer *trainer);

/* More texts, in any order; they are not kept.  Give many short ones at once: threads share the batch.  Text
 * that is not UTF-8 is an error. */
kp_status kp_bpe_trainer_add(kp_bpe_trainer *trainer, const kp_text_view *texts, size_t count,
                             kp_error *error);

/* A place near the end of a text, behind which more of it may follow, where it can be given in two parts
 * without changing the result; 0 when there is none.  The text is UTF-8, but for its last character. */
size_t kp_bpe_trainer_cut(const kp_bpe_trainer *trainer, const char *text, size_t size);

/* Learns the merges.  Texts with too few different pairs give a smaller vocabulary than was asked for, which
 * tokenizer->vocabulary says.  The caller destroys the tokenizer, and the trainer in any case. */
kp_status kp_bpe_trainer_finish(kp_bpe_trainer *trainer, kp_tokenizer **tokenizer, kp_error *error);

/* All in one, for texts that are in memory. */
kp_status kp_bpe_train(const kp_text_view *texts, size_t count, const kp_bpe_train_options *options,
                       kp_tokenizer **tokenizer, kp_error *error);

#endif
