#include "data/bpe_pairs.h"

#include <stdlib.h>

enum { FIRST_PAIRS = 1 << 14 };

static kp_status no_memory(const kp_bpe_pairs *pairs, kp_error *error) {
  return kp_fail(error, KP_ERR_MEMORY, "no memory for more than %u pairs of tokens", pairs->count);
}

kp_status kp_bpe_pairs_init(kp_bpe_pairs *pairs, kp_error *error) {
  *pairs = (kp_bpe_pairs){.capacity = FIRST_PAIRS, .slot_count = 2 * FIRST_PAIRS};
  pairs->list = malloc(FIRST_PAIRS * sizeof *pairs->list);
  pairs->slots = calloc(pairs->slot_count, sizeof *pairs->slots);
  if (pairs->list != NULL && pairs->slots != NULL) return KP_OK;
  kp_bpe_pairs_clear(pairs);
  return no_memory(pairs, error);
}

void kp_bpe_pairs_clear(kp_bpe_pairs *pairs) {
  free(pairs->list);
  free(pairs->slots);
  *pairs = (kp_bpe_pairs){0};
}

/* The slot where the pair stands, or where it would. */
static size_t slot_of(const kp_bpe_pairs *pairs, int32_t left, int32_t right) {
  uint64_t hash = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * UINT64_C(0x9e3779b97f4a7c15);
  size_t slot = (size_t)(hash ^ hash >> 32) & (pairs->slot_count - 1);
  while (pairs->slots[slot] != 0) {
    const kp_bpe_pair *pair = &pairs->list[pairs->slots[slot] - 1];
    if (pair->left == left && pair->right == right) break;
    slot = (slot + 1) & (pairs->slot_count - 1);
  }
  return slot;
}

static kp_status grow(kp_bpe_pairs *pairs, kp_error *error) {
  if (pairs->capacity > UINT32_MAX / 4) return no_memory(pairs, error);
  const uint32_t capacity = 2 * pairs->capacity;
  kp_bpe_pair *list = realloc(pairs->list, capacity * sizeof *list);
  if (list != NULL) pairs->list = list;
  uint32_t *slots = list == NULL ? NULL : calloc(2 * (size_t)capacity, sizeof *slots);
  if (slots == NULL) return no_memory(pairs, error);
  free(pairs->slots);
  pairs->slots = slots;
  pairs->slot_count = 2 * (size_t)capacity;
  pairs->capacity = capacity;
  for (uint32_t i = 0; i < pairs->count; i++)
    pairs->slots[slot_of(pairs, list[i].left, list[i].right)] = i + 1;
  return KP_OK;
}

kp_status kp_bpe_pairs_add(kp_bpe_pairs *pairs, int32_t left, int32_t right, uint32_t *index,
                           kp_error *error) {
  size_t slot = slot_of(pairs, left, right);
  if (pairs->slots[slot] == 0) {
    if (pairs->count == pairs->capacity) {
      KP_TRY(grow(pairs, error));
      slot = slot_of(pairs, left, right);
    }
    pairs->list[pairs->count] = (kp_bpe_pair){.left = left, .right = right};
    pairs->slots[slot] = ++pairs->count;
  }
  *index = pairs->slots[slot] - 1;
  return KP_OK;
}
