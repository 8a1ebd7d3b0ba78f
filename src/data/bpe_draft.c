#include "data/bpe_draft.h"

#include <stdlib.h>
#include <string.h>

#include "data/byte_alphabet.h"

/* Ids that no token has: some vocabularies have a few. */
enum { GAPS = 65536, LARGEST_ID = 1 << 28 };

static kp_status no_memory(kp_error *error) {
  return kp_fail(error, KP_ERR_MEMORY, "no memory for its vocabulary");
}

kp_status kp_bpe_draft_init(kp_bpe_draft *draft, size_t count, int64_t largest, size_t bytes,
                            kp_error *error) {
  *draft = (kp_bpe_draft){.begin = -1, .end = -1};
  if (count == 0) return kp_fail(error, KP_ERR_INPUT, "its vocabulary is empty");
  if (largest >= LARGEST_ID || (uint64_t)largest > 2 * (uint64_t)count + GAPS)
    return kp_fail(error, KP_ERR_INPUT, "its vocabulary has %zu tokens but an id of %lld", count,
                   (long long)largest);
  draft->vocabulary = (int32_t)largest + 1;
  draft->room = bytes + count;
  draft->tokens = calloc((size_t)draft->vocabulary, sizeof *draft->tokens);
  draft->is_added = calloc((size_t)draft->vocabulary, sizeof *draft->is_added);
  draft->bytes = malloc(draft->room + 1);
  if (draft->tokens == NULL || draft->is_added == NULL || draft->bytes == NULL) return no_memory(error);
  return kp_token_table_init(&draft->table, draft->tokens, draft->vocabulary, error);
}

void kp_bpe_draft_clear(kp_bpe_draft *draft) {
  free(draft->tokens);
  free(draft->is_added);
  free(draft->bytes);
  kp_token_table_clear(&draft->table);
  free(draft->merges);
  free(draft->joined);
  free(draft->added);
  *draft = (kp_bpe_draft){0};
}

/* Copies the bytes; the room was counted beforehand. */
static kp_status set_token(kp_bpe_draft *draft, const char *bytes, size_t size, int32_t id, kp_error *error) {
  if (id < 0 || id >= draft->vocabulary)
    return kp_fail(error, KP_ERR_INPUT, "token id %d is outside the vocabulary of %d", id, draft->vocabulary);
  if (size == 0) return kp_fail(error, KP_ERR_INPUT, "token %d is empty", id);
  if (draft->tokens[id].size > 0) return kp_fail(error, KP_ERR_INPUT, "two tokens have id %d", id);
  if (draft->room - draft->used < size + 1) return no_memory(error);
  char *copy = draft->bytes + draft->used;
  memcpy(copy, bytes, size);
  copy[size] = 0;
  draft->used += size + 1;
  draft->tokens[id] = (kp_text_view){.data = copy, .size = size};
  return KP_OK;
}

kp_status kp_bpe_draft_add(kp_bpe_draft *draft, const char *text, int32_t id, bool special, kp_error *error) {
  KP_TRY(set_token(draft, text, strlen(text), id, error));
  if (draft->added_count == draft->added_capacity) {
    const size_t capacity = 2 * draft->added_capacity + 16;
    kp_bpe_added *grown = realloc(draft->added, capacity * sizeof *grown);
    if (grown == NULL) return no_memory(error);
    draft->added = grown;
    draft->added_capacity = capacity;
  }
  draft->is_added[id] = true;
  draft->added[draft->added_count++] =
      (kp_bpe_added){.text = draft->tokens[id].data, .id = id, .special = special};
  return KP_OK;
}

kp_status kp_bpe_draft_token(kp_bpe_draft *draft, const char *bytes, size_t size, int32_t id,
                             kp_error *error) {
  KP_TRY(set_token(draft, bytes, size, id, error));
  const int32_t first = kp_token_table_add(&draft->table, id);
  if (first == id) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "tokens %d and %d have the same bytes", first, id);
}

kp_status kp_bpe_draft_word(kp_bpe_draft *draft, const char *word, int32_t id, kp_error *error) {
  const size_t size = strlen(word);
  if (id >= 0 && id < draft->vocabulary && draft->is_added[id]) {
    if (strcmp(draft->tokens[id].data, word) == 0) return KP_OK;
    return kp_fail(error, KP_ERR_INPUT, "token '%.80s' has the id %d of the added token '%.80s'", word, id,
                   draft->tokens[id].data);
  }
  char *bytes = malloc(size + 1);
  if (bytes == NULL) return no_memory(error);
  const size_t length = kp_alphabet_read(word, size, bytes);
  kp_status status =
      length == SIZE_MAX
          ? kp_fail(error, KP_ERR_UNSUPPORTED,
                    "token '%.80s' is not written in the alphabet of bytes: only byte-level BPE is supported",
                    word)
          : kp_bpe_draft_token(draft, bytes, length, id, error);
  free(bytes);
  return status;
}

static kp_status read_id(const char *word, const json_t *value, int32_t *id, kp_error *error) {
  const json_int_t number = json_is_integer(value) ? json_integer_value(value) : -1;
  if (number < 0 || number >= LARGEST_ID)
    return kp_fail(error, KP_ERR_INPUT, "the id of token '%.80s' is not a number from 0 to %d", word,
                   LARGEST_ID - 1);
  *id = (int32_t)number;
  return KP_OK;
}

kp_status kp_bpe_measure(const json_t *vocabulary, size_t *count, int64_t *largest, size_t *bytes,
                         kp_error *error) {
  const char *word;
  json_t *value;
  if (!json_is_object(vocabulary)) return kp_fail(error, KP_ERR_INPUT, "its vocabulary is not an object");
  json_object_foreach((json_t *)vocabulary, word, value) {
    int32_t id = -1;
    KP_TRY(read_id(word, value, &id, error));
    if (id > *largest) *largest = id;
    *bytes += strlen(word);
    *count += 1;
  }
  return KP_OK;
}

kp_status kp_bpe_draft_vocabulary(kp_bpe_draft *draft, const json_t *vocabulary, kp_error *error) {
  const char *word;
  json_t *value;
  json_object_foreach((json_t *)vocabulary, word, value) {
    int32_t id = -1;
    KP_TRY(read_id(word, value, &id, error));
    KP_TRY(kp_bpe_draft_word(draft, word, id, error));
  }
  return KP_OK;
}

kp_status kp_bpe_draft_merge_ids(kp_bpe_draft *draft, kp_merge merge, kp_error *error) {
  if (draft->merge_count == draft->merge_capacity) {
    const size_t capacity = 2 * draft->merge_capacity + 256;
    kp_merge *grown = realloc(draft->merges, capacity * sizeof *grown);
    if (grown == NULL) return no_memory(error);
    draft->merges = grown;
    draft->merge_capacity = capacity;
  }
  draft->merges[draft->merge_count++] = merge;
  return KP_OK;
}

kp_status kp_bpe_draft_merge(kp_bpe_draft *draft, kp_text_view left, kp_text_view right, kp_error *error) {
  const size_t size = left.size + right.size;
  if (size > draft->joined_room) {
    char *grown = realloc(draft->joined, size);
    if (grown == NULL) return no_memory(error);
    draft->joined = grown;
    draft->joined_room = size;
  }
  kp_merge merge = {-1, -1, -1};
  const size_t first = kp_alphabet_read(left.data, left.size, draft->joined);
  const size_t second =
      first == SIZE_MAX ? SIZE_MAX : kp_alphabet_read(right.data, right.size, draft->joined + first);
  if (second != SIZE_MAX) {
    merge.left = kp_token_table_find(&draft->table, draft->joined, first);
    merge.right = kp_token_table_find(&draft->table, draft->joined + first, second);
    merge.id = kp_token_table_find(&draft->table, draft->joined, first + second);
  }
  if (merge.left < 0 || merge.right < 0 || merge.id < 0)
    return kp_fail(error, KP_ERR_INPUT, "merge %zu, '%.*s' with '%.*s': %s is not in the vocabulary",
                   draft->merge_count + 1, (int)(left.size < 80 ? left.size : 80), left.data,
                   (int)(right.size < 80 ? right.size : 80), right.data,
                   merge.left < 0    ? "the first"
                   : merge.right < 0 ? "the second"
                                     : "what they make");
  return kp_bpe_draft_merge_ids(draft, merge, error);
}

kp_status kp_bpe_draft_finish(const kp_bpe_draft *draft, kp_tokenizer **tokenizer, kp_error *error) {
  const kp_bpe_parts parts = {.tokens = draft->tokens,
                              .vocabulary = draft->vocabulary,
                              .merges = draft->merges,
                              .merge_count = draft->merge_count,
                              .added = draft->added,
                              .added_count = draft->added_count,
                              .patterns = draft->patterns,
                              .pattern_count = draft->pattern_count,
                              .ignore_merges = draft->ignore_merges,
                              .begin = draft->begin,
                              .end = draft->end};
  return kp_bpe_tokenizer_create(&parts, tokenizer, error);
}
