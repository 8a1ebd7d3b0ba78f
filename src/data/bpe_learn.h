/* Learning the merges of byte-pair encoding from counted words.
 *
 * Sennrich, Haddow, Birch 2016 (arXiv 1508.07909), over bytes (Radford et al. 2019): every word begins as its
 * bytes; the most frequent pair of neighbours becomes a token, again and again.  Of pairs that are equally
 * frequent the one with the lowest ids goes first: the lowest left id, then the lowest right id.  This is the
 * rule of the BpeTrainer of Hugging Face's tokenizers, and the merges are the same.
 *
 * The result depends on the words and their counts only, not on their order.  After the first round a merge
 * costs time in proportion to the words that it changes. */
#ifndef KAPPA_DATA_BPE_LEARN_H
#define KAPPA_DATA_BPE_LEARN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "data/merge_table.h"
#include "data/word_table.h"

enum { KP_BPE_BYTES = 256 };

/* Is told how much is done; false stops the work with KP_ERR_INTERRUPTED.  May be NULL. */
typedef bool (*kp_bpe_progress)(void *context, int64_t done, int64_t total);

typedef struct kp_bpe_learn_options {
  const unsigned char *alphabet; /* the byte of each id, ids 0 .. 255 */
  int32_t tokens;                /* to end with, the 256 bytes included; fewer when no pair is left */
  int64_t minimum_count;         /* rarer pairs are not merged */
  const kp_word_table *reserved; /* tokens of these bytes are never made; may be NULL */
  kp_bpe_progress progress;      /* done: tokens */
  void *context;
} kp_bpe_learn_options;

/* What was learned; kp_bpe_learned_clear frees it. */
typedef struct kp_bpe_learned {
  kp_word_table tokens; /* token i has id i */
  kp_merge *merges;     /* the first that applies goes first */
  size_t merge_count;
} kp_bpe_learned;

kp_status kp_bpe_learn(const kp_word_table *words, const kp_bpe_learn_options *options,
                       kp_bpe_learned *learned, kp_error *error);
void kp_bpe_learned_clear(kp_bpe_learned *learned);

#endif
