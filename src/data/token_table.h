/* Finds tokens by their bytes. */
#ifndef KAPPA_DATA_TOKEN_TABLE_H
#define KAPPA_DATA_TOKEN_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "data/tokenizer.h"

typedef struct kp_token_table {
  const kp_text_view *tokens; /* by id; the caller's, must outlive the table */
  int32_t *slots;             /* ids by hash, -1: free; owned */
  uint64_t mask;
} kp_token_table;

/* A table for tokens of ids below `vocabulary`. */
kp_status kp_token_table_init(kp_token_table *table, const kp_text_view *tokens, int32_t vocabulary,
                              kp_error *error);
void kp_token_table_clear(kp_token_table *table);

/* Puts token `id` in; returns its id, or that of the token which has the same bytes and stays. */
int32_t kp_token_table_add(kp_token_table *table, int32_t id);

/* The id of the token of these bytes, or -1. */
int32_t kp_token_table_find(const kp_token_table *table, const char *bytes, size_t size);

#endif
