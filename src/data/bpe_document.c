#include "data/bpe_document.h"

#include <stdlib.h>
#include <string.h>

#include "data/byte_alphabet.h"
#include "data/pretokenizer.h"

/* A token's bytes in GPT-2's alphabet, closed by a zero; the caller frees it. */
static char *written_token(const kp_word *token) {
  char *text = malloc(KP_ALPHABET_LONGEST * token->size + 1);
  if (text != NULL) text[kp_alphabet_write(token->bytes, token->size, text)] = 0;
  return text;
}

/* "left right": read by every version of tokenizers, and without doubt, as the alphabet has no space. */
static json_t *merge_text(const kp_bpe_learned *learned, const kp_bpe_merge *merge) {
  char *left = written_token(&learned->tokens.words[merge->left]);
  char *right = written_token(&learned->tokens.words[merge->right]);
  json_t *text = left == NULL || right == NULL ? NULL : json_sprintf("%s %s", left, right);
  free(left);
  free(right);
  return text;
}

/* NULL, here and below: no memory. */
static json_t *merges_json(const kp_bpe_learned *learned) {
  json_t *list = json_array();
  for (size_t i = 0; i < learned->merge_count; i++)
    if (json_array_append_new(list, merge_text(learned, &learned->merges[i])) != 0) {
      json_decref(list);
      return NULL;
    }
  return list;
}

static json_t *vocabulary_json(const kp_bpe_learned *learned, const char *const *specials,
                               size_t special_count) {
  json_t *vocabulary = json_object();
  int failed = 0;
  for (size_t i = 0; i < special_count; i++)
    failed |= json_object_set_new(vocabulary, specials[i], json_integer((json_int_t)i));
  for (int32_t i = 0; i < learned->tokens.count && !failed; i++) {
    char *text = written_token(&learned->tokens.words[i]);
    failed = text == NULL ||
             json_object_set_new(vocabulary, text, json_integer((json_int_t)special_count + i)) != 0;
    free(text);
  }
  if (!failed) return vocabulary;
  json_decref(vocabulary);
  return NULL;
}

static json_t *added_json(const char *const *specials, size_t special_count) {
  json_t *list = json_array();
  for (size_t i = 0; i < special_count; i++) {
    json_t *token =
        json_pack("{s:I, s:s, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)i, "content", specials[i],
                  "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special", 1);
    if (json_array_append_new(list, token) == 0) continue;
    json_decref(list);
    return NULL;
  }
  return list;
}

/* ByteLevel has GPT-2's pattern in it; another is a Split in front of it. */
static json_t *pretokenizer_json(const char *pattern) {
  const int own = strcmp(pattern, KP_PATTERN_GPT2) == 0;
  json_t *bytes = json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                            "trim_offsets", 1, "use_regex", own);
  if (own) return bytes;
  return json_pack("{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, o]}", "type", "Sequence", "pretokenizers", "type",
                   "Split", "pattern", "Regex", pattern, "behavior", "Isolated", "invert", 0, bytes);
}

kp_status kp_bpe_document(const kp_bpe_learned *learned, const char *pattern, const char *const *specials,
                          size_t special_count, json_t **document, kp_error *error) {
  json_t *model = json_pack(
      "{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout", "unk_token",
      "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0, "byte_fallback", 0, "ignore_merges",
      0, "vocab", vocabulary_json(learned, specials, special_count), "merges", merges_json(learned));
  json_t *decoder = json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 1,
                              "trim_offsets", 1, "use_regex", 1);
  *document =
      json_pack("{s:s, s:n, s:n, s:o, s:n, s:o, s:n, s:o, s:o}", "version", "1.0", "truncation", "padding",
                "added_tokens", added_json(specials, special_count), "normalizer", "pre_tokenizer",
                pretokenizer_json(pattern), "post_processor", "decoder", decoder, "model", model);
  if (*document != NULL) return KP_OK;
  return kp_fail(error, KP_ERR_MEMORY, "no memory for the file of a tokenizer of %d tokens",
                 learned->tokens.count);
}
