#include "data/digest_set.h"

#include <stdlib.h>
#include <string.h>

enum { SLOTS_FIRST = 1024 };

void kp_digest_set_clear(kp_digest_set *set) {
  free(set->slots);
  *set = (kp_digest_set){0};
}

/* The slot of the key, or the free one that it belongs in.  The number of slots is a power of two, and the
 * key as good as random. */
static uint64_t *find(uint64_t (*slots)[2], size_t slot_count, const uint64_t key[2]) {
  for (size_t at = key[0] & (slot_count - 1);; at = (at + 1) & (slot_count - 1)) {
    uint64_t *slot = slots[at];
    if ((slot[0] == key[0] && slot[1] == key[1]) || (slot[0] == 0 && slot[1] == 0)) return slot;
  }
}

static kp_status grow(kp_digest_set *set, kp_error *error) {
  const size_t slot_count = set->slot_count == 0 ? SLOTS_FIRST : 2 * set->slot_count;
  if (slot_count > KP_DIGEST_SLOTS_MOST)
    return kp_fail(error, KP_ERR_UNSUPPORTED,
                   "more than %zu different documents: remove the duplicates in parts, beforehand",
                   set->count);
  uint64_t(*slots)[2] = calloc(slot_count, sizeof *slots);
  if (slots == NULL)
    return kp_fail(error, KP_ERR_MEMORY,
                   "no memory to remember %zu documents: without --dedupe none is needed", set->count);
  for (size_t i = 0; i < set->slot_count; i++)
    if (set->slots[i][0] != 0 || set->slots[i][1] != 0)
      memcpy(find(slots, slot_count, set->slots[i]), set->slots[i], sizeof *slots);
  free(set->slots);
  set->slots = slots;
  set->slot_count = slot_count;
  return KP_OK;
}

kp_status kp_digest_set_add(kp_digest_set *set, const unsigned char digest[KP_SHA256_SIZE], bool *added,
                            kp_error *error) {
  uint64_t key[2];
  memcpy(key, digest, sizeof key);
  if (key[0] == 0 && key[1] == 0) key[0] = 1; /* both 0 mean a free slot */
  if (set->count >= set->slot_count / 4 * 3) KP_TRY(grow(set, error));
  uint64_t *slot = find(set->slots, set->slot_count, key);
  *added = slot[0] == 0 && slot[1] == 0;
  if (*added) {
    memcpy(slot, key, sizeof key);
    set->count++;
  }
  return KP_OK;
}
