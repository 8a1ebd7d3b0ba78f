/* Pairs of neighbouring tokens, counted: a hash table from (left, right) to a record. */
#ifndef KAPPA_DATA_BPE_PAIRS_H
#define KAPPA_DATA_BPE_PAIRS_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

typedef struct kp_bpe_pair {
  int32_t left, right;
  int64_t count;      /* how often the pair stands in the text */
  uint32_t fresh;     /* words in which it came up in this round */
  uint32_t last_word; /* the last of them; without meaning when fresh is 0 */
  size_t place;       /* where their list is being written */
} kp_bpe_pair;

typedef struct kp_bpe_pairs {
  kp_bpe_pair *list;
  uint32_t count, capacity;
  uint32_t *slots; /* 1 + index by hash, 0: free; a power of two, at least twice `capacity` */
  size_t slot_count;
} kp_bpe_pairs;

kp_status kp_bpe_pairs_init(kp_bpe_pairs *pairs, kp_error *error);
void kp_bpe_pairs_clear(kp_bpe_pairs *pairs);

/* The index of a pair, which is added with count 0 if it is new.  Adding moves the records. */
kp_status kp_bpe_pairs_add(kp_bpe_pairs *pairs, int32_t left, int32_t right, uint32_t *index,
                           kp_error *error);

#endif
