#include "data/character_tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/utf8.h"

/* One character of the vocabulary. */
typedef struct character {
  uint32_t code_point;
  char bytes[KP_UTF8_LONGEST];
  unsigned char size;
} character;

typedef struct character_tokenizer {
  kp_tokenizer base;
  character *characters; /* (V), by code point; owned */
  int32_t *ids;          /* (last + 1), id of a code point or -1; owned */
  uint32_t last;         /* the largest code point */
} character_tokenizer;

static void destroy(kp_tokenizer *base) {
  character_tokenizer *tokenizer = (character_tokenizer *)base;
  free(tokenizer->characters);
  free(tokenizer->ids);
  free(tokenizer);
}

static kp_status unknown_character(const char *text, size_t offset, uint32_t code_point, size_t length,
                                   kp_error *error) {
  size_t line = kp_text_line(text, offset);
  if (code_point < 0x20 || code_point == 0x7F)
    return kp_fail(error, KP_ERR_INPUT, "character U+%04X at byte %zu (line %zu) is not in the vocabulary",
                   code_point, offset, line);
  return kp_fail(error, KP_ERR_INPUT,
                 "character '%.*s' (U+%04X) at byte %zu (line %zu) is not in the vocabulary", (int)length,
                 text + offset, code_point, offset, line);
}

static kp_status append(const kp_tokenizer *base, const char *text, size_t begin, size_t end, kp_ids *ids,
                        kp_error *error) {
  const character_tokenizer *tokenizer = (const character_tokenizer *)base;
  KP_TRY(kp_ids_reserve(ids, end - begin, error));
  for (size_t at = begin; at < end;) {
    uint32_t code_point;
    size_t length = kp_utf8_read(text + at, end - at, &code_point);
    if (length == 0) return kp_utf8_fail(text, at, error);
    int32_t id = code_point <= tokenizer->last ? tokenizer->ids[code_point] : -1;
    if (id < 0) return unknown_character(text, at, code_point, length, error);
    ids->list[ids->count++] = id;
    at += length;
  }
  return KP_OK;
}

/* A character may stand apart from all others. */
static size_t cut(const kp_tokenizer *base, const char *text, size_t size, size_t from) {
  (void)base;
  size_t at = from < size ? from + 1 : size;
  while (at < size && ((unsigned char)text[at] & 0xC0) == 0x80) at++;
  return at;
}

static void token_bytes(const kp_tokenizer *base, int32_t id, const char **bytes, size_t *size) {
  const character *chosen = &((const character_tokenizer *)base)->characters[id];
  *bytes = chosen->bytes;
  *size = chosen->size;
}

json_t *kp_character_tokenizer_to_json(const kp_tokenizer *base) {
  const character_tokenizer *tokenizer = (const character_tokenizer *)base;
  char fingerprint[17];
  snprintf(fingerprint, sizeof fingerprint, "%016llx", (unsigned long long)base->fingerprint);
  json_t *characters = json_array();
  for (int32_t id = 0; id < base->vocabulary; id++) {
    const character *one = &tokenizer->characters[id];
    if (json_array_append_new(characters, json_stringn(one->bytes, one->size)) != 0) {
      json_decref(characters);
      return NULL;
    }
  }
  return json_pack("{s:s, s:o, s:s}", "type", "character", "characters", characters, "fingerprint",
                   fingerprint);
}

static kp_status save(const kp_tokenizer *base, const char *path, kp_error *error) {
  return kp_tokenizer_write_json(kp_character_tokenizer_to_json(base), path, error);
}

static const kp_tokenizer_kind character_kind = {
    .name = "character",
    .append = append,
    .cut = cut,
    .token_bytes = token_bytes,
    .save = save,
    .destroy = destroy,
};

/* A set of code points. */
typedef struct character_set {
  unsigned char *present; /* (KP_UTF8_LAST_CODE_POINT + 1), 1 for those in the set; owned */
  uint32_t last;          /* the largest in the set */
  int32_t count;
} character_set;

static kp_status create_set(character_set *set, kp_error *error) {
  *set = (character_set){.present = calloc((size_t)KP_UTF8_LAST_CODE_POINT + 1, 1)};
  return set->present == NULL ? kp_fail(error, KP_ERR_MEMORY, "no memory to collect a vocabulary") : KP_OK;
}

static void add_to_set(character_set *set, uint32_t code_point) {
  set->count += !set->present[code_point];
  set->present[code_point] = 1;
  if (code_point > set->last) set->last = code_point;
}

/* Fills the table of characters, ids and the fingerprint. */
static void fill_characters(character_tokenizer *tokenizer, const unsigned char *present) {
  uint64_t fingerprint = KP_FNV_BASIS;
  int32_t id = 0;
  for (uint32_t c = 0; c <= tokenizer->last; c++) {
    tokenizer->ids[c] = present[c] ? id : -1;
    if (!present[c]) continue;
    character *one = &tokenizer->characters[id++];
    one->code_point = c;
    one->size = (unsigned char)kp_utf8_write(c, one->bytes);
    fingerprint = kp_fnv(fingerprint, one->bytes, one->size);
  }
  tokenizer->base.fingerprint = fingerprint == 0 ? 1 : fingerprint;
}

static kp_status create_from_set(const character_set *set, kp_tokenizer **result, kp_error *error) {
  if (set->count == 0)
    return kp_fail(error, KP_ERR_INPUT, "the text is empty: a vocabulary needs characters");
  character_tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
  if (tokenizer == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for a tokenizer");
  tokenizer->base.kind = &character_kind;
  tokenizer->base.vocabulary = set->count;
  tokenizer->base.begin = tokenizer->base.end = -1;
  tokenizer->last = set->last;
  tokenizer->characters = calloc((size_t)set->count, sizeof *tokenizer->characters);
  tokenizer->ids = calloc((size_t)set->last + 1, sizeof *tokenizer->ids);
  if (tokenizer->characters == NULL || tokenizer->ids == NULL) {
    destroy(&tokenizer->base);
    return kp_fail(error, KP_ERR_MEMORY, "no memory for a vocabulary of %d characters", set->count);
  }
  fill_characters(tokenizer, set->present);
  *result = &tokenizer->base;
  return KP_OK;
}

static kp_status collect_text(const char *text, size_t size, character_set *set, kp_error *error) {
  for (size_t offset = 0; offset < size;) {
    uint32_t code_point;
    size_t length = kp_utf8_read(text + offset, size - offset, &code_point);
    if (length == 0) return kp_utf8_fail(text, offset, error);
    add_to_set(set, code_point);
    offset += length;
  }
  return KP_OK;
}

kp_status kp_character_tokenizer_create(const char *const *texts, const size_t *sizes, size_t count,
                                        kp_tokenizer **tokenizer, kp_error *error) {
  character_set set;
  KP_TRY(create_set(&set, error));
  kp_status status = KP_OK;
  for (size_t i = 0; i < count && status == KP_OK; i++)
    status = collect_text(texts[i], sizes[i], &set, error);
  if (status == KP_OK) status = create_from_set(&set, tokenizer, error);
  free(set.present);
  return status;
}

/* The characters of the file must be single and in ascending order: their place is their id. */
static kp_status collect_json(const json_t *characters, character_set *set, kp_error *error) {
  int64_t previous = -1;
  for (size_t i = 0; i < json_array_size(characters); i++) {
    const json_t *entry = json_array_get(characters, i);
    const char *bytes = json_string_value(entry);
    size_t size = json_string_length(entry);
    uint32_t code_point = 0;
    if (bytes == NULL || size == 0 || kp_utf8_read(bytes, size, &code_point) != size)
      return kp_fail(error, KP_ERR_INPUT, "entry %zu of \"characters\" is not a string of one character", i);
    if ((int64_t)code_point <= previous)
      return kp_fail(error, KP_ERR_INPUT, "entry %zu of \"characters\" (U+%04X) is not in ascending order", i,
                     code_point);
    add_to_set(set, code_point);
    previous = code_point;
  }
  return KP_OK;
}

kp_status kp_character_tokenizer_from_json(const json_t *document, kp_tokenizer **tokenizer,
                                           kp_error *error) {
  const json_t *characters = json_object_get(document, "characters");
  if (!json_is_array(characters)) return kp_fail(error, KP_ERR_INPUT, "it has no array \"characters\"");
  character_set set;
  KP_TRY(create_set(&set, error));
  kp_tokenizer *made = NULL;
  kp_status status = collect_json(characters, &set, error);
  if (status == KP_OK) status = create_from_set(&set, &made, error);
  free(set.present);
  if (status == KP_OK) status = kp_tokenizer_check_fingerprint(document, made, error);
  if (status != KP_OK) {
    kp_tokenizer_destroy(made);
    return status;
  }
  *tokenizer = made;
  return KP_OK;
}
