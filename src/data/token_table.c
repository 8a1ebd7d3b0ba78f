#include "data/token_table.h"

#include <stdlib.h>
#include <string.h>

kp_status kp_token_table_init(kp_token_table *table, const kp_text_view *tokens, int32_t vocabulary,
                              kp_error *error) {
  uint64_t capacity = 16;
  while (capacity < 2 * (uint64_t)vocabulary) capacity *= 2;
  *table = (kp_token_table){
      .tokens = tokens, .slots = malloc(capacity * sizeof *table->slots), .mask = capacity - 1};
  if (table->slots == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %d tokens", vocabulary);
  for (uint64_t i = 0; i < capacity; i++) table->slots[i] = -1;
  return KP_OK;
}

void kp_token_table_clear(kp_token_table *table) {
  free(table->slots);
  *table = (kp_token_table){0};
}

/* The place where these bytes are or belong. */
static uint64_t place_of(const kp_token_table *table, const char *bytes, size_t size) {
  uint64_t place = kp_fnv(KP_FNV_BASIS, bytes, size) & table->mask;
  for (;; place = (place + 1) & table->mask) {
    const int32_t id = table->slots[place];
    if (id < 0) return place;
    const kp_text_view *token = &table->tokens[id];
    if (token->size == size && memcmp(token->data, bytes, size) == 0) return place;
  }
}

int32_t kp_token_table_add(kp_token_table *table, int32_t id) {
  const uint64_t place = place_of(table, table->tokens[id].data, table->tokens[id].size);
  if (table->slots[place] < 0) table->slots[place] = id;
  return table->slots[place];
}

int32_t kp_token_table_find(const kp_token_table *table, const char *bytes, size_t size) {
  return table->slots[place_of(table, bytes, size)];
}
