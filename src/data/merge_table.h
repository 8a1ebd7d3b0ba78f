/* The merges of byte-pair encoding: which pairs of tokens become one, and which first. */
#ifndef KAPPA_DATA_MERGE_TABLE_H
#define KAPPA_DATA_MERGE_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

/* Tokens `left` and `right` in a row become `id`. */
typedef struct kp_merge {
  int32_t left, right, id;
} kp_merge;

/* A place of the hash table. */
typedef struct kp_merge_slot {
  uint64_t pair; /* left in the upper half, right in the lower */
  uint32_t rank; /* KP_NO_MERGE: the place is free */
  int32_t id;
} kp_merge_slot;

#define KP_NO_MERGE UINT32_MAX

typedef struct kp_merge_table {
  kp_merge_slot *slots; /* (mask + 1), a power of two; owned */
  uint64_t mask;
} kp_merge_table;

/* Rank i is merge i; a pair that stands twice keeps its last rank, as in Hugging Face's tokenizers. */
kp_status kp_merge_table_init(kp_merge_table *table, const kp_merge *merges, size_t count, kp_error *error);
void kp_merge_table_clear(kp_merge_table *table);

static inline uint64_t kp_merge_hash(uint64_t pair) {
  pair *= UINT64_C(0x9E3779B97F4A7C15);
  return pair ^ pair >> 32;
}

/* The rank of a pair and its token; KP_NO_MERGE: it stays a pair. */
static inline uint32_t kp_merge_find(const kp_merge_table *table, int32_t left, int32_t right, int32_t *id) {
  const uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
  for (uint64_t place = kp_merge_hash(pair);; place++) {
    const kp_merge_slot *slot = &table->slots[place & table->mask];
    if (slot->rank != KP_NO_MERGE && slot->pair != pair) continue;
    *id = slot->id;
    return slot->rank;
  }
}

#endif
