#include "data/word_tokenizer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/atomic_file.h"
#include "data/character_tokenizer.h"
#include "data/utf8.h"
#include "data/word_pieces.h"
#include "data/word_table.h"

typedef struct word_tokenizer {
  kp_tokenizer base;
  kp_tokenizer *alphabet; /* owned; ids 0 .. its vocabulary - 1 */
  kp_word_table words;    /* word i has id alphabet->vocabulary + i */
} word_tokenizer;

static void destroy(kp_tokenizer *base) {
  word_tokenizer *tokenizer = (word_tokenizer *)base;
  kp_tokenizer_destroy(tokenizer->alphabet);
  kp_word_table_clear(&tokenizer->words);
  free(tokenizer);
}

static kp_status append(const kp_tokenizer *base, const char *text, size_t begin, size_t end, kp_ids *ids,
                        kp_error *error) {
  const word_tokenizer *tokenizer = (const word_tokenizer *)base;
  const kp_tokenizer *alphabet = tokenizer->alphabet;
  for (size_t at = begin; at < end;) {
    size_t bytes, characters;
    kp_word_piece(text + at, end - at, &bytes, &characters);
    const int32_t word = characters < 2 ? -1 : kp_word_table_find(&tokenizer->words, text + at, bytes);
    const int32_t id = alphabet->vocabulary + word;
    if (characters == 0) bytes = end - at; /* invalid bytes: the alphabet names them */
    if (word >= 0)
      KP_TRY(kp_ids_append(ids, &id, 1, error));
    else
      KP_TRY(alphabet->kind->append(alphabet, text, at, at + bytes, ids, error));
    at += bytes;
  }
  return KP_OK;
}

/* Line breaks are pieces by themselves, and a space begins one. */
static size_t cut(const kp_tokenizer *base, const char *text, size_t size, size_t from) {
  (void)base;
  size_t at = from < size ? from + 1 : size;
  while (at < size && text[at] != ' ' && text[at] != '\n') at++;
  return at;
}

static void token_bytes(const kp_tokenizer *base, int32_t id, const char **bytes, size_t *size) {
  const word_tokenizer *tokenizer = (const word_tokenizer *)base;
  const int32_t letters = tokenizer->alphabet->vocabulary;
  if (id < letters) {
    tokenizer->alphabet->kind->token_bytes(tokenizer->alphabet, id, bytes, size);
    return;
  }
  *bytes = tokenizer->words.words[id - letters].bytes;
  *size = tokenizer->words.words[id - letters].size;
}

static json_t *to_json(const word_tokenizer *tokenizer) {
  char fingerprint[17];
  snprintf(fingerprint, sizeof fingerprint, "%016" PRIx64, tokenizer->base.fingerprint);
  json_t *words = json_array();
  for (int32_t i = 0; i < tokenizer->words.count; i++)
    json_array_append_new(words,
                          json_stringn(tokenizer->words.words[i].bytes, tokenizer->words.words[i].size));
  if (json_array_size(words) == (size_t)tokenizer->words.count)
    return json_pack("{s:s, s:o, s:o, s:s}", "type", "word", "alphabet",
                     kp_character_tokenizer_to_json(tokenizer->alphabet), "words", words, "fingerprint",
                     fingerprint);
  json_decref(words);
  return NULL;
}

static kp_status save(const kp_tokenizer *base, const char *path, kp_error *error) {
  return kp_tokenizer_write_json(to_json((const word_tokenizer *)base), path, error);
}

static const kp_tokenizer_kind word_kind = {
    .name = "word",
    .append = append,
    .cut = cut,
    .token_bytes = token_bytes,
    .save = save,
    .destroy = destroy,
};

/* Takes over the words and, on success, the alphabet. */
static kp_status create(kp_tokenizer *alphabet, kp_word_table *words, kp_tokenizer **result,
                        kp_error *error) {
  word_tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
  if (tokenizer == NULL) {
    kp_word_table_clear(words);
    return kp_fail(error, KP_ERR_MEMORY, "no memory for a tokenizer");
  }
  uint64_t fingerprint = kp_fnv(KP_FNV_BASIS, &alphabet->fingerprint, sizeof alphabet->fingerprint);
  for (int32_t i = 0; i < words->count; i++) {
    fingerprint = kp_fnv(fingerprint, words->words[i].bytes, words->words[i].size);
    fingerprint = kp_fnv(fingerprint, "", 1);
  }
  *tokenizer = (word_tokenizer){.base = {.kind = &word_kind,
                                         .vocabulary = alphabet->vocabulary + words->count,
                                         .fingerprint = fingerprint == 0 ? 1 : fingerprint,
                                         .begin = -1,
                                         .end = -1},
                                .alphabet = alphabet,
                                .words = *words};
  *result = &tokenizer->base;
  return KP_OK;
}

/* ---- from texts ---- */

static kp_status count_words(const char *text, size_t size, kp_word_table *words, kp_error *error) {
  for (size_t at = 0, bytes, characters; at < size; at += bytes) {
    int32_t number;
    kp_word_piece(text + at, size - at, &bytes, &characters);
    if (characters == 0) return kp_utf8_fail(text, at, error);
    if (characters < 2) continue;
    KP_TRY(kp_word_table_add(words, text + at, bytes, &number, error));
    words->words[number].count++;
  }
  return KP_OK;
}

/* Leaves as many words as the vocabulary has room for. */
static kp_status choose_words(kp_word_table *words, int32_t letters, int32_t vocabulary, kp_error *error) {
  if (vocabulary < letters)
    return kp_fail(error, KP_ERR_INPUT,
                   "a vocabulary of %d has no room for the %d characters of the text; allow more", vocabulary,
                   letters);
  if (vocabulary - letters > words->count)
    return kp_fail(
        error, KP_ERR_INPUT,
        "the text has %d characters and %d words of more than one, which fill no vocabulary of %d; "
        "ask for %d",
        letters, words->count, vocabulary, letters + words->count);
  kp_word_table_keep(words, vocabulary - letters);
  return KP_OK;
}

kp_status kp_word_tokenizer_create(const char *const *texts, const size_t *sizes, size_t count,
                                   size_t counted, int32_t vocabulary, kp_tokenizer **tokenizer,
                                   kp_error *error) {
  kp_tokenizer *alphabet = NULL;
  kp_word_table words;
  KP_TRY(kp_character_tokenizer_create(texts, sizes, count, &alphabet, error));
  kp_status status = kp_word_table_init(&words, error);
  for (size_t i = 0; i < counted && status == KP_OK; i++)
    status = count_words(texts[i], sizes[i], &words, error);
  if (status == KP_OK) status = choose_words(&words, alphabet->vocabulary, vocabulary, error);
  if (status == KP_OK)
    status = create(alphabet, &words, tokenizer, error);
  else
    kp_word_table_clear(&words);
  if (status != KP_OK) kp_tokenizer_destroy(alphabet);
  return status;
}

/* ---- from a file ---- */

static kp_status read_words(const json_t *list, kp_word_table *words, kp_error *error) {
  if (!json_is_array(list)) return kp_fail(error, KP_ERR_INPUT, "it has no array \"words\"");
  for (size_t i = 0; i < json_array_size(list); i++) {
    const json_t *entry = json_array_get(list, i);
    const size_t size = json_string_length(entry);
    size_t bytes = 0, characters = 0;
    int32_t number;
    if (size > 0) kp_word_piece(json_string_value(entry), size, &bytes, &characters);
    if (characters < 2 || bytes != size)
      return kp_fail(error, KP_ERR_INPUT, "entry %zu of \"words\" is not a word of two characters or more",
                     i);
    KP_TRY(kp_word_table_add(words, json_string_value(entry), size, &number, error));
    if ((size_t)number != i)
      return kp_fail(error, KP_ERR_INPUT, "entry %zu of \"words\" repeats entry %d", i, number);
  }
  return KP_OK;
}

kp_status kp_word_tokenizer_from_json(const json_t *document, kp_tokenizer **tokenizer, kp_error *error) {
  const json_t *letters = json_object_get(document, "alphabet");
  if (!json_is_object(letters)) return kp_fail(error, KP_ERR_INPUT, "it has no object \"alphabet\"");
  kp_tokenizer *alphabet = NULL, *made = NULL;
  kp_word_table words;
  KP_TRY(kp_character_tokenizer_from_json(letters, &alphabet, error));
  kp_status status = kp_word_table_init(&words, error);
  if (status == KP_OK) status = read_words(json_object_get(document, "words"), &words, error);
  if (status == KP_OK)
    status = create(alphabet, &words, &made, error);
  else
    kp_word_table_clear(&words);
  if (made == NULL) kp_tokenizer_destroy(alphabet);
  if (status == KP_OK) status = kp_tokenizer_check_fingerprint(document, made, error);
  if (status == KP_OK)
    *tokenizer = made;
  else
    kp_tokenizer_destroy(made);
  return status;
}
