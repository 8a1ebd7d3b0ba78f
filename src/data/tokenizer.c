#include "data/tokenizer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/atomic_file.h"

void kp_tokenizer_destroy(kp_tokenizer *tokenizer) {
  if (tokenizer != NULL) tokenizer->kind->destroy(tokenizer);
}

kp_status kp_tokenizer_save(const kp_tokenizer *tokenizer, const char *path, kp_error *error) {
  return tokenizer->kind->save(tokenizer, path, error);
}

const char *kp_tokenizer_name(const kp_tokenizer *tokenizer) {
  return tokenizer->kind->name;
}

void kp_ids_clear(kp_ids *ids) {
  free(ids->list);
  *ids = (kp_ids){0};
}

kp_status kp_ids_reserve(kp_ids *ids, size_t more, kp_error *error) {
  if (more <= ids->capacity - ids->count) return KP_OK;
  size_t capacity = ids->capacity + ids->capacity / 2 + 1024;
  if (capacity - ids->count < more) capacity = ids->count + more;
  int32_t *grown = capacity > SIZE_MAX / sizeof *grown ? NULL : realloc(ids->list, capacity * sizeof *grown);
  if (grown == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %zu tokens", capacity);
  ids->list = grown;
  ids->capacity = capacity;
  return KP_OK;
}

kp_status kp_ids_append(kp_ids *ids, const int32_t *list, size_t count, kp_error *error) {
  KP_TRY(kp_ids_reserve(ids, count, error));
  if (count > 0) memcpy(ids->list + ids->count, list, count * sizeof *list);
  ids->count += count;
  return KP_OK;
}

int32_t kp_tokenizer_special(const kp_tokenizer *tokenizer, const char *text) {
  for (size_t i = 0; i < tokenizer->special_count; i++)
    if (strcmp(tokenizer->specials[i].text, text) == 0) return tokenizer->specials[i].id;
  return -1;
}

kp_status kp_tokenizer_encode(const kp_tokenizer *tokenizer, const char *text, size_t size, int32_t **ids,
                              size_t *count, kp_error *error) {
  kp_ids all = {0};
  kp_status status = kp_ids_reserve(&all, 1, error);
  if (status == KP_OK) status = tokenizer->kind->append(tokenizer, text, 0, size, &all, error);
  if (status != KP_OK) {
    kp_ids_clear(&all);
    return status;
  }
  *ids = all.list;
  *count = all.count;
  return KP_OK;
}

/* The bytes of all ids: counted when `out` is NULL, else written. */
static kp_status join_tokens(const kp_tokenizer *tokenizer, const int32_t *ids, size_t count, char *out,
                             size_t *size, kp_error *error) {
  size_t total = 0;
  for (size_t i = 0; i < count; i++) {
    const char *bytes;
    size_t length;
    if (ids[i] < 0 || ids[i] >= tokenizer->vocabulary)
      return kp_fail(error, KP_ERR_INPUT, "token %d at position %zu is outside the vocabulary of %d", ids[i],
                     i, tokenizer->vocabulary);
    tokenizer->kind->token_bytes(tokenizer, ids[i], &bytes, &length);
    if (out != NULL) memcpy(out + total, bytes, length);
    total += length;
  }
  *size = total;
  return KP_OK;
}

kp_status kp_tokenizer_decode(const kp_tokenizer *tokenizer, const int32_t *ids, size_t count, char **bytes,
                              size_t *size, kp_error *error) {
  KP_TRY(join_tokens(tokenizer, ids, count, NULL, size, error));
  char *text = malloc(*size + 1);
  if (text == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %zu bytes of text", *size);
  kp_status status = join_tokens(tokenizer, ids, count, text, size, error);
  if (status != KP_OK) {
    free(text);
    return status;
  }
  text[*size] = 0;
  *bytes = text;
  return KP_OK;
}

kp_status kp_tokenizer_write_json(json_t *document, const char *path, kp_error *error) {
  char *text = document == NULL ? NULL : json_dumps(document, JSON_COMPACT);
  json_decref(document);
  if (text == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory to write tokenizer %s", path);
  kp_status status = kp_file_write_atomic(path, text, strlen(text), error);
  free(text);
  return status;
}

kp_status kp_tokenizer_check_fingerprint(const json_t *document, const kp_tokenizer *tokenizer,
                                         kp_error *error) {
  const json_t *entry = json_object_get(document, "fingerprint");
  if (entry == NULL) return KP_OK;
  char expected[17];
  snprintf(expected, sizeof expected, "%016" PRIx64, tokenizer->fingerprint);
  const char *found = json_string_value(entry);
  if (found == NULL || strcmp(found, expected) != 0)
    return kp_fail(error, KP_ERR_INPUT, "its fingerprint is %s but its %ss give %s: the file was changed",
                   found == NULL ? "not a string" : found, tokenizer->kind->name, expected);
  return KP_OK;
}

uint64_t kp_fnv(uint64_t hash, const void *bytes, size_t size) {
  const unsigned char *at = bytes;
  for (size_t i = 0; i < size; i++) hash = (hash ^ at[i]) * UINT64_C(0x100000001b3);
  return hash;
}
