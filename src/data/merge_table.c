#include "data/merge_table.h"

#include <stdlib.h>

kp_status kp_merge_table_init(kp_merge_table *table, const kp_merge *merges, size_t count, kp_error *error) {
  uint64_t capacity = 16;
  while (capacity < 2 * (uint64_t)count) capacity *= 2;
  *table = (kp_merge_table){.slots = malloc(capacity * sizeof *table->slots), .mask = capacity - 1};
  if (table->slots == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %zu merges", count);
  for (uint64_t i = 0; i < capacity; i++) table->slots[i] = (kp_merge_slot){.rank = KP_NO_MERGE, .id = -1};
  for (size_t i = 0; i < count; i++) {
    const uint64_t pair = (uint64_t)(uint32_t)merges[i].left << 32 | (uint32_t)merges[i].right;
    uint64_t place = kp_merge_hash(pair) & table->mask;
    while (table->slots[place].rank != KP_NO_MERGE && table->slots[place].pair != pair)
      place = (place + 1) & table->mask;
    table->slots[place] = (kp_merge_slot){.pair = pair, .rank = (uint32_t)i, .id = merges[i].id};
  }
  return KP_OK;
}

void kp_merge_table_clear(kp_merge_table *table) {
  free(table->slots);
  *table = (kp_merge_table){0};
}
