#include "data/bpe_save.h"

#include <stdlib.h>
#include <string.h>

#include "data/bpe_tokenizer.h"
#include "data/byte_alphabet.h"

/* Values of jansson: NULL, which every function of it takes, means that memory ran out, and the whole is then
 * NULL. */

/* A token in the alphabet of bytes; the caller frees it. */
static char *write_word(kp_text_view token) {
  char *word = malloc(KP_ALPHABET_LONGEST * token.size + 1);
  if (word != NULL) word[kp_alphabet_write(token.data, token.size, word)] = 0;
  return word;
}

static bool add_vocabulary_word(const kp_bpe_parts *parts, int32_t id, bool is_added, json_t *vocabulary) {
  const kp_text_view token = parts->tokens[id];
  if (is_added) return json_object_set_new(vocabulary, token.data, json_integer(id)) == 0;
  char *word = write_word(token);
  const bool done = word != NULL && json_object_set_new(vocabulary, word, json_integer(id)) == 0;
  free(word);
  return done;
}

/* Added tokens stand in the vocabulary, too: so every reader gives them the same ids. */
static json_t *vocabulary_json(const kp_bpe_parts *parts) {
  json_t *vocabulary = json_object();
  size_t next_added = 0;
  for (int32_t id = 0; id < parts->vocabulary; id++) {
    const bool is_added = next_added < parts->added_count && parts->added[next_added].id == id;
    next_added += is_added;
    if (parts->tokens[id].size == 0) continue;
    if (!add_vocabulary_word(parts, id, is_added, vocabulary)) {
      json_decref(vocabulary);
      return NULL;
    }
  }
  return vocabulary;
}

static json_t *merge_json(kp_text_view left, kp_text_view right) {
  char *text = malloc(KP_ALPHABET_LONGEST * (left.size + right.size) + 2);
  if (text == NULL) return NULL;
  size_t used = kp_alphabet_write(left.data, left.size, text);
  text[used++] = ' ';
  used += kp_alphabet_write(right.data, right.size, text + used);
  json_t *merge = json_stringn(text, used);
  free(text);
  return merge;
}

/* As strings, which old versions of Hugging Face's tokenizers read, too. */
static json_t *merges_json(const kp_bpe_parts *parts) {
  json_t *merges = json_array();
  for (size_t i = 0; i < parts->merge_count; i++) {
    const kp_merge *merge = &parts->merges[i];
    if (json_array_append_new(merges, merge_json(parts->tokens[merge->left], parts->tokens[merge->right])) ==
        0)
      continue;
    json_decref(merges);
    return NULL;
  }
  return merges;
}

static json_t *model_json(const kp_bpe_parts *parts) {
  return json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout",
                   "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0,
                   "byte_fallback", 0, "ignore_merges", parts->ignore_merges, "vocab", vocabulary_json(parts),
                   "merges", merges_json(parts));
}

static json_t *added_json(const kp_bpe_parts *parts) {
  json_t *list = json_array();
  for (size_t i = 0; i < parts->added_count; i++) {
    const kp_bpe_added *added = &parts->added[i];
    json_t *one =
        json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", added->id, "content", added->text,
                  "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special", added->special);
    if (json_array_append_new(list, one) == 0) continue;
    json_decref(list);
    return NULL;
  }
  return list;
}

static json_t *byte_level_json(bool cuts) {
  return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1,
                   "use_regex", cuts);
}

/* ByteLevel alone has GPT-2's pattern; any other is a Split in front of it. */
static json_t *pretokenizer_json(const kp_bpe_parts *parts) {
  if (parts->pattern_count == 0) return byte_level_json(false);
  if (parts->pattern_count == 1 && strcmp(parts->patterns[0], KP_PATTERN_GPT2) == 0)
    return byte_level_json(true);
  json_t *list = json_array();
  for (size_t i = 0; i < parts->pattern_count; i++)
    json_array_append_new(list, json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex",
                                          parts->patterns[i], "behavior", "Isolated", "invert", 0));
  json_array_append_new(list, byte_level_json(false));
  if (json_array_size(list) == parts->pattern_count + 1)
    return json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", list);
  json_decref(list);
  return NULL;
}

/* Puts a special token into a template and into the list of its special tokens. */
static void add_to_template(const kp_bpe_parts *parts, int32_t id, json_t *single, json_t *pair,
                            json_t *specials) {
  if (id < 0) return;
  const char *text = parts->tokens[id].data;
  json_array_append_new(single, json_pack("{s:{s:s, s:i}}", "SpecialToken", "id", text, "type_id", 0));
  json_array_append_new(pair, json_pack("{s:{s:s, s:i}}", "SpecialToken", "id", text, "type_id", 0));
  json_object_set_new(specials, text,
                      json_pack("{s:s, s:[i], s:[s]}", "id", text, "ids", id, "tokens", text));
}

static json_t *template_json(const kp_bpe_parts *parts) {
  json_t *single = json_array(), *pair = json_array(), *specials = json_object();
  add_to_template(parts, parts->begin, single, pair, specials);
  json_array_append_new(single, json_pack("{s:{s:s, s:i}}", "Sequence", "id", "A", "type_id", 0));
  json_array_append_new(pair, json_pack("{s:{s:s, s:i}}", "Sequence", "id", "A", "type_id", 0));
  json_array_append_new(pair, json_pack("{s:{s:s, s:i}}", "Sequence", "id", "B", "type_id", 0));
  add_to_template(parts, parts->end, single, pair, specials);
  const size_t ends = (size_t)(parts->begin >= 0) + (size_t)(parts->end >= 0);
  if (json_array_size(single) == 1 + ends && json_array_size(pair) == 2 + ends)
    return json_pack("{s:s, s:o, s:o, s:o}", "type", "TemplateProcessing", "single", single, "pair", pair,
                     "special_tokens", specials);
  json_decref(single);
  json_decref(pair);
  json_decref(specials);
  return NULL;
}

static json_t *post_processor_json(const kp_bpe_parts *parts) {
  return parts->begin < 0 && parts->end < 0 ? byte_level_json(true) : template_json(parts);
}

json_t *kp_bpe_to_json(const kp_tokenizer *tokenizer) {
  const kp_bpe_parts *parts = kp_bpe_tokenizer_parts(tokenizer);
  return json_pack("{s:s, s:n, s:n, s:o, s:n, s:o, s:o, s:o, s:o}", "version", "1.0", "truncation", "padding",
                   "added_tokens", added_json(parts), "normalizer", "pre_tokenizer", pretokenizer_json(parts),
                   "post_processor", post_processor_json(parts), "decoder", byte_level_json(true), "model",
                   model_json(parts));
}

kp_status kp_bpe_save(const kp_tokenizer *tokenizer, const char *path, kp_error *error) {
  return kp_tokenizer_write_json(kp_bpe_to_json(tokenizer), path, error);
}
