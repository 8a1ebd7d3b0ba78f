#define _GNU_SOURCE /* memmem */
#include "data/tokenizer.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "core/atomic_file.h"
#include "core/path.h"
#include "data/character_tokenizer.h"
#include "data/word_tokenizer.h"

kp_status kp_tokenizer_open(const char *path, kp_tokenizer **tokenizer, kp_error *error) {
  char file[KP_PATH_SIZE];
  bool folder = kp_path_kind_of(path) == KP_PATH_FOLDER;
  KP_TRY(kp_path_join(file, folder ? path : "", folder ? KP_TOKENIZER_FILE : path, error));
  json_error_t fault;
  json_t *document = json_load_file(file, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &fault);
  if (document == NULL)
    return kp_fail(error, KP_ERR_INPUT, "cannot read tokenizer %s: line %d: %s", file, fault.line,
                   fault.text);
  const char *type = json_string_value(json_object_get(document, "type"));
  kp_status status;
  if (type == NULL)
    status = kp_fail(error, KP_ERR_INPUT, "it has no \"type\"; is this a tokenizer that kappa wrote?");
  else if (strcmp(type, "character") == 0)
    status = kp_character_tokenizer_from_json(document, tokenizer, error);
  else if (strcmp(type, "word") == 0)
    status = kp_word_tokenizer_from_json(document, tokenizer, error);
  else
    status = kp_fail(error, KP_ERR_UNSUPPORTED, "its type '%s' is unknown; 'character' and 'word' are known",
                     type);
  json_decref(document);
  return status == KP_OK ? KP_OK : kp_context(error, "tokenizer %s", file);
}

void kp_tokenizer_destroy(kp_tokenizer *tokenizer) {
  if (tokenizer != NULL) tokenizer->kind->destroy(tokenizer);
}

kp_status kp_tokenizer_save(const kp_tokenizer *tokenizer, const char *path, kp_error *error) {
  return tokenizer->kind->save(tokenizer, path, error);
}

const char *kp_tokenizer_name(const kp_tokenizer *tokenizer) {
  return tokenizer->kind->name;
}

kp_status kp_tokenizer_encode_part(const kp_tokenizer *tokenizer, const char *text, size_t size,
                                   size_t *offset, int32_t *ids, size_t capacity, size_t *count,
                                   kp_error *error) {
  kp_assert(*offset <= size && capacity > 0, "offset %zu of a text of %zu bytes", *offset, size);
  return tokenizer->kind->encode_part(tokenizer, text, size, offset, ids, capacity, count, error);
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

/* The first special token in the text from `begin` on, the longest where several begin; NULL: none. */
static const kp_special_token *next_special(const kp_tokenizer *tokenizer, kp_text_view text, size_t begin,
                                            size_t *at) {
  const kp_special_token *found = NULL;
  size_t first = text.size;
  for (size_t i = 0; i < tokenizer->special_count; i++) {
    const kp_special_token *special = &tokenizer->specials[i];
    const size_t length = strlen(special->text);
    const char *where = memmem(text.data + begin, text.size - begin, special->text, length);
    if (where == NULL) continue;
    const size_t place = (size_t)(where - text.data);
    if (found != NULL && (place > first || (place == first && length <= strlen(found->text)))) continue;
    found = special;
    first = place;
  }
  *at = first;
  return found;
}

static kp_status append_plain(const kp_tokenizer *tokenizer, const char *text, size_t size, kp_ids *ids,
                              kp_error *error) {
  size_t offset = 0, count;
  while (offset < size) {
    KP_TRY(kp_ids_reserve(ids, (size - offset) / 4 + 2 * KP_TOKENIZER_PIECE, error));
    KP_TRY(kp_tokenizer_encode_part(tokenizer, text, size, &offset, ids->list + ids->count,
                                    ids->capacity - ids->count, &count, error));
    ids->count += count;
  }
  return KP_OK;
}

kp_status kp_tokenizer_append(const kp_tokenizer *tokenizer, kp_text_view text, bool with_specials,
                              kp_ids *ids, kp_error *error) {
  size_t begin = 0;
  while (with_specials && begin < text.size) {
    size_t at;
    const kp_special_token *special = next_special(tokenizer, text, begin, &at);
    if (special == NULL) break;
    KP_TRY(append_plain(tokenizer, text.data + begin, at - begin, ids, error));
    KP_TRY(kp_ids_append(ids, &special->id, 1, error));
    begin = at + strlen(special->text);
  }
  return append_plain(tokenizer, text.data + begin, text.size - begin, ids, error);
}

kp_status kp_tokenizer_append_all(const kp_tokenizer *tokenizer, const kp_text_view *texts, size_t count,
                                  bool with_specials, int threads, kp_ids *ids, size_t *offsets,
                                  kp_error *error) {
  (void)threads;
  for (size_t i = 0; i < count; i++) {
    offsets[i] = ids->count;
    KP_TRY(kp_tokenizer_append(tokenizer, texts[i], with_specials, ids, error));
  }
  offsets[count] = ids->count;
  return KP_OK;
}

kp_status kp_tokenizer_encode(const kp_tokenizer *tokenizer, const char *text, size_t size, int32_t **ids,
                              size_t *count, kp_error *error) {
  size_t offset = 0;
  size_t capacity = size + 1; /* a token has at least one byte */
  int32_t *all = malloc(capacity * sizeof *all);
  if (all == NULL)
    return kp_fail(error, KP_ERR_MEMORY, "no memory for the tokens of %zu bytes of text", size);
  kp_status status = kp_tokenizer_encode_part(tokenizer, text, size, &offset, all, capacity, count, error);
  if (status != KP_OK) {
    free(all);
    return status;
  }
  kp_assert(offset == size, "%zu of %zu bytes were encoded", offset, size);
  *ids = all;
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
