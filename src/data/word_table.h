/* A hash table of words: strings of bytes, numbered in the order of their first coming. */
#ifndef KAPPA_DATA_WORD_TABLE_H
#define KAPPA_DATA_WORD_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

typedef struct kp_word {
  char *bytes; /* owned by the table; not closed by a zero */
  size_t size;
  int64_t count; /* for the user */
} kp_word;

typedef struct kp_word_table {
  kp_word *words;
  int32_t count, capacity;
  int32_t *slots; /* word numbers by hash, -1: free; a power of two, at least twice the words */
  size_t slot_count;
} kp_word_table;

kp_status kp_word_table_init(kp_word_table *table, kp_error *error);
void kp_word_table_clear(kp_word_table *table);

/* The number of a word, or -1. */
int32_t kp_word_table_find(const kp_word_table *table, const char *bytes, size_t size);

/* The number of a word, which is copied into the table with count 0 if it is new. */
kp_status kp_word_table_add(kp_word_table *table, const char *bytes, size_t size, int32_t *number,
                            kp_error *error);

/* Orders the words by falling count, equal ones by their bytes, keeps the first `keep` and numbers them
 * anew. */
void kp_word_table_keep(kp_word_table *table, int32_t keep);

#endif
