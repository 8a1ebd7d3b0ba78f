#include "data/word_table.h"

#include <stdlib.h>
#include <string.h>

#include "data/tokenizer.h"

enum { FIRST_WORDS = 1024 };

static kp_status no_memory(const kp_word_table *table, kp_error *error) {
  return kp_fail(error, KP_ERR_MEMORY, "no memory for a table of %d words", table->count);
}

kp_status kp_word_table_init(kp_word_table *table, kp_error *error) {
  *table = (kp_word_table){.capacity = FIRST_WORDS, .slot_count = 4 * FIRST_WORDS};
  table->words = calloc(FIRST_WORDS, sizeof *table->words);
  table->slots = malloc(table->slot_count * sizeof *table->slots);
  if (table->words == NULL || table->slots == NULL) {
    kp_word_table_clear(table);
    return no_memory(table, error);
  }
  memset(table->slots, 0xff, table->slot_count * sizeof *table->slots);
  return KP_OK;
}

void kp_word_table_clear(kp_word_table *table) {
  for (int32_t i = 0; i < table->count; i++) free(table->words[i].bytes);
  free(table->words);
  free(table->slots);
  *table = (kp_word_table){0};
}

/* The slot of a word: where it stands, or where it would. */
static size_t slot_of(const kp_word_table *table, const char *bytes, size_t size) {
  size_t slot = (size_t)kp_fnv(KP_FNV_BASIS, bytes, size) & (table->slot_count - 1);
  while (table->slots[slot] >= 0) {
    const kp_word *word = &table->words[table->slots[slot]];
    if (word->size == size && memcmp(word->bytes, bytes, size) == 0) break;
    slot = (slot + 1) & (table->slot_count - 1);
  }
  return slot;
}

static void fill_slots(kp_word_table *table) {
  memset(table->slots, 0xff, table->slot_count * sizeof *table->slots);
  for (int32_t i = 0; i < table->count; i++)
    table->slots[slot_of(table, table->words[i].bytes, table->words[i].size)] = i;
}

static kp_status grow(kp_word_table *table, kp_error *error) {
  if (table->capacity > INT32_MAX / 2)
    return kp_fail(error, KP_ERR_UNSUPPORTED, "the text has more than %d distinct words", table->count);
  kp_word *words = realloc(table->words, 2 * (size_t)table->capacity * sizeof *words);
  if (words != NULL) table->words = words;
  int32_t *slots = words == NULL ? NULL : realloc(table->slots, 2 * table->slot_count * sizeof *slots);
  if (slots == NULL) return no_memory(table, error);
  table->slots = slots;
  table->capacity *= 2;
  table->slot_count *= 2;
  fill_slots(table);
  return KP_OK;
}

int32_t kp_word_table_find(const kp_word_table *table, const char *bytes, size_t size) {
  return table->slots[slot_of(table, bytes, size)];
}

kp_status kp_word_table_add(kp_word_table *table, const char *bytes, size_t size, int32_t *number,
                            kp_error *error) {
  *number = kp_word_table_find(table, bytes, size);
  if (*number >= 0) return KP_OK;
  if (table->count == table->capacity) KP_TRY(grow(table, error));
  char *copy = malloc(size + 1);
  if (copy == NULL) return no_memory(table, error);
  memcpy(copy, bytes, size);
  *number = table->count++;
  table->words[*number] = (kp_word){.bytes = copy, .size = size};
  table->slots[slot_of(table, bytes, size)] = *number;
  return KP_OK;
}

static int most_frequent_first(const void *a, const void *b) {
  const kp_word *x = a, *y = b;
  if (x->count != y->count) return x->count < y->count ? 1 : -1;
  const int order = memcmp(x->bytes, y->bytes, x->size < y->size ? x->size : y->size);
  if (order != 0) return order;
  return (x->size > y->size) - (x->size < y->size);
}

void kp_word_table_keep(kp_word_table *table, int32_t keep) {
  qsort(table->words, (size_t)table->count, sizeof *table->words, most_frequent_first);
  for (int32_t i = keep; i < table->count; i++) free(table->words[i].bytes);
  if (keep < table->count) table->count = keep;
  fill_slots(table);
}
