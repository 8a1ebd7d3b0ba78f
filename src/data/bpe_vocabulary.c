/* vocab.json with merges.txt, encoder.json with vocab.bpe. */
#include <stdlib.h>
#include <string.h>

#include "data/bpe_draft.h"
#include "data/bpe_files.h"
#include "data/byte_alphabet.h"

/* Tokens that are not in the alphabet of bytes can only be special ones. */
static kp_status read_words(kp_bpe_draft *draft, const json_t *vocabulary, kp_error *error) {
  const char *word;
  json_t *value;
  json_object_foreach((json_t *)vocabulary, word, value) {
    const int32_t id = (int32_t)json_integer_value(value);
    const size_t size = strlen(word);
    char *bytes = malloc(size + 1);
    if (bytes == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for its vocabulary");
    const size_t length = kp_alphabet_read(word, size, bytes);
    kp_status status = length == SIZE_MAX ? kp_bpe_draft_add(draft, word, id, true, error)
                                          : kp_bpe_draft_token(draft, bytes, length, id, error);
    free(bytes);
    KP_TRY(status);
  }
  return KP_OK;
}

static kp_status read_line(kp_bpe_draft *draft, const char *line, size_t size, kp_error *error) {
  const char *space = memchr(line, ' ', size);
  if (space == NULL || memchr(space + 1, ' ', size - (size_t)(space + 1 - line)) != NULL)
    return kp_fail(error, KP_ERR_INPUT, "'%.*s' is not two tokens with a space between them",
                   (int)(size < 80 ? size : 80), line);
  const kp_text_view left = {.data = line, .size = (size_t)(space - line)};
  const kp_text_view right = {.data = space + 1, .size = size - left.size - 1};
  return kp_bpe_draft_merge(draft, left, right, error);
}

static kp_status read_merges(kp_bpe_draft *draft, const char *merges, size_t size, kp_error *error) {
  static const char version[] = "#version";
  size_t number = 0;
  for (size_t at = 0; at < size;) {
    const char *line = merges + at;
    const char *end = memchr(line, '\n', size - at);
    size_t length = end == NULL ? size - at : (size_t)(end - line);
    at += length + 1;
    number++;
    if (length > 0 && line[length - 1] == '\r') length--;
    if (length == 0) continue;
    if (length >= sizeof version - 1 && memcmp(line, version, sizeof version - 1) == 0) continue;
    if (read_line(draft, line, length, error) != KP_OK)
      return kp_context(error, "line %zu of the merges", number);
  }
  return KP_OK;
}

/* True for a token that is written as itself, like <|endoftext|>, and that plain text cannot give. */
static bool is_special(const kp_bpe_draft *draft, const bool *made, int32_t id) {
  const kp_text_view token = draft->tokens[id];
  if (token.size < 2 || made[id] || draft->is_added[id]) return false;
  for (size_t i = 0; i < token.size; i++)
    if (token.data[i] <= ' ' || token.data[i] > '~') return false;
  return true;
}

/* The tokenizer without its special tokens among the ordinary ones: a second draft, for a token is the one or
 * the other from the beginning. */
static kp_status separate(const kp_bpe_draft *from, const bool *made, kp_bpe_draft *to, kp_error *error) {
  for (int32_t id = 0; id < from->vocabulary; id++) {
    const kp_text_view token = from->tokens[id];
    if (token.size == 0) continue;
    KP_TRY(from->is_added[id] || is_special(from, made, id)
               ? kp_bpe_draft_add(to, token.data, id, true, error)
               : kp_bpe_draft_token(to, token.data, token.size, id, error));
  }
  for (size_t i = 0; i < from->merge_count; i++) KP_TRY(kp_bpe_draft_merge_ids(to, from->merges[i], error));
  to->patterns[to->pattern_count++] = KP_PATTERN_GPT2;
  return KP_OK;
}

static kp_status finish(const kp_bpe_draft *draft, size_t count, kp_tokenizer **tokenizer, kp_error *error) {
  kp_bpe_draft separated = {0};
  bool *made = calloc((size_t)draft->vocabulary, sizeof *made);
  if (made == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for its vocabulary");
  for (size_t i = 0; i < draft->merge_count; i++) made[draft->merges[i].id] = true;
  kp_status status = kp_bpe_draft_init(&separated, count, draft->vocabulary - 1, draft->used, error);
  if (status == KP_OK) status = separate(draft, made, &separated, error);
  if (status == KP_OK) status = kp_bpe_draft_finish(&separated, tokenizer, error);
  kp_bpe_draft_clear(&separated);
  free(made);
  return status;
}

kp_status kp_bpe_read_vocabulary(const json_t *vocabulary, const char *merges, size_t size,
                                 kp_tokenizer **tokenizer, kp_error *error) {
  kp_bpe_draft draft = {0};
  size_t count = 0, bytes = 0;
  int64_t largest = -1;
  KP_TRY(kp_bpe_measure(vocabulary, &count, &largest, &bytes, error));
  kp_status status = kp_bpe_draft_init(&draft, count, largest, bytes, error);
  if (status == KP_OK) status = read_words(&draft, vocabulary, error);
  if (status == KP_OK) status = read_merges(&draft, merges, size, error);
  if (status == KP_OK) status = finish(&draft, count, tokenizer, error);
  kp_bpe_draft_clear(&draft);
  return status;
}
