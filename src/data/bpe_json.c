/* tokenizer.json of Hugging Face's tokenizers. */
#include <stdlib.h>
#include <string.h>

#include "data/bpe_draft.h"
#include "data/bpe_files.h"

/* Sequences in sequences; no file has more than two. */
enum { DEEPEST = 8 };

static const char *type_of(const json_t *part) {
  const char *type = json_string_value(json_object_get(part, "type"));
  return type == NULL ? "(no type)" : type;
}

static bool has_type(const json_t *part, const char *type) {
  return strcmp(type_of(part), type) == 0;
}

static kp_status unsupported(const char *what, const char *which, kp_error *error) {
  return kp_fail(error, KP_ERR_UNSUPPORTED, "%s '%.80s' is not supported", what, which);
}

/* A flag that is missing is `missing`. */
static bool flag(const json_t *part, const char *key, bool missing) {
  const json_t *value = json_object_get(part, key);
  return json_is_boolean(value) ? json_is_true(value) : missing;
}

/* ---- the normalizer ---- */

static kp_status check_normalizer(const json_t *normalizer, kp_error *error) {
  if (normalizer == NULL || json_is_null(normalizer)) return KP_OK;
  if (has_type(normalizer, "Sequence") && json_array_size(json_object_get(normalizer, "normalizers")) == 0)
    return KP_OK;
  return unsupported("its normalizer", type_of(normalizer), error);
}

/* ---- the pre-tokenizer ---- */

static kp_status add_pattern(kp_bpe_draft *draft, const char *pattern, kp_error *error) {
  if (draft->pattern_count == KP_PRETOKENIZER_PATTERNS)
    return kp_fail(error, KP_ERR_UNSUPPORTED, "its pre-tokenizer has more than %d patterns",
                   KP_PRETOKENIZER_PATTERNS);
  draft->patterns[draft->pattern_count++] = pattern;
  return KP_OK;
}

/* Removing what is no match leaves the matches, and of the known patterns they are the whole text. */
static bool is_isolated(const json_t *split, const char *pattern) {
  const char *behavior = json_string_value(json_object_get(split, "behavior"));
  if (behavior == NULL) return false;
  if (strcmp(behavior, "Isolated") == 0) return true;
  const bool known = strcmp(pattern, KP_PATTERN_GPT2) == 0 || strcmp(pattern, KP_PATTERN_LLAMA3) == 0;
  return strcmp(behavior, "Removed") == 0 && flag(split, "invert", false) && known;
}

static kp_status read_split(kp_bpe_draft *draft, const json_t *split, kp_error *error) {
  const char *pattern = json_string_value(json_object_get(json_object_get(split, "pattern"), "Regex"));
  if (pattern == NULL) return unsupported("its pre-tokenizer Split by a", "pattern that is no Regex", error);
  if (json_string_length(json_object_get(json_object_get(split, "pattern"), "Regex")) != strlen(pattern))
    return kp_fail(error, KP_ERR_INPUT, "its pattern has a zero in it");
  if (!is_isolated(split, pattern)) {
    const char *behavior = json_string_value(json_object_get(split, "behavior"));
    return unsupported("its pre-tokenizer Split with behavior", behavior == NULL ? "(none)" : behavior,
                       error);
  }
  return add_pattern(draft, pattern, error);
}

static kp_status read_byte_level(kp_bpe_draft *draft, const json_t *part, kp_error *error) {
  if (flag(part, "add_prefix_space", false))
    return unsupported("its pre-tokenizer ByteLevel with", "add_prefix_space", error);
  return flag(part, "use_regex", true) ? add_pattern(draft, KP_PATTERN_GPT2, error) : KP_OK;
}

static kp_status read_pretokenizer(kp_bpe_draft *draft, const json_t *part, int depth, bool *bytes,
                                   kp_error *error) {
  if (*bytes) return unsupported("what its pre-tokenizer has behind ByteLevel,", type_of(part), error);
  if (has_type(part, "Split")) return read_split(draft, part, error);
  if (has_type(part, "Digits"))
    return add_pattern(draft, flag(part, "individual_digits", false) ? "\\p{N}" : "\\p{N}+", error);
  if (has_type(part, "ByteLevel")) {
    *bytes = true;
    return read_byte_level(draft, part, error);
  }
  if (!has_type(part, "Sequence") || depth == DEEPEST)
    return unsupported("its pre-tokenizer", type_of(part), error);
  const json_t *list = json_object_get(part, "pretokenizers");
  for (size_t i = 0; i < json_array_size(list); i++)
    KP_TRY(read_pretokenizer(draft, json_array_get(list, i), depth + 1, bytes, error));
  return KP_OK;
}

/* ---- the post-processor ---- */

static kp_status added_id(const kp_bpe_draft *draft, const char *text, int32_t *id, kp_error *error) {
  for (size_t i = 0; text != NULL && i < draft->added_count; i++) {
    if (strcmp(draft->added[i].text, text) != 0) continue;
    *id = draft->added[i].id;
    return KP_OK;
  }
  return kp_fail(error, KP_ERR_INPUT, "its post-processor adds '%.80s', which is no added token",
                 text == NULL ? "(nothing)" : text);
}

/* [special] A [special]. */
static kp_status read_template(kp_bpe_draft *draft, const json_t *processor, kp_error *error) {
  const json_t *single = json_object_get(processor, "single");
  bool behind = false;
  for (size_t i = 0; i < json_array_size(single); i++) {
    const json_t *part = json_array_get(single, i), *special = json_object_get(part, "SpecialToken");
    int32_t *end = behind ? &draft->end : &draft->begin;
    if (special != NULL && *end >= 0)
      return unsupported("its post-processor with several special tokens on", "one side of the text", error);
    if (special != NULL)
      KP_TRY(added_id(draft, json_string_value(json_object_get(special, "id")), end, error));
    else if (behind || json_object_get(part, "Sequence") == NULL)
      return unsupported("its post-processor's template", "for a single text", error);
    else
      behind = true;
  }
  return behind ? KP_OK : unsupported("its post-processor's template", "without the text", error);
}

static kp_status read_pair(kp_bpe_draft *draft, const json_t *processor, kp_error *error) {
  KP_TRY(added_id(draft, json_string_value(json_array_get(json_object_get(processor, "cls"), 0)),
                  &draft->begin, error));
  return added_id(draft, json_string_value(json_array_get(json_object_get(processor, "sep"), 0)), &draft->end,
                  error);
}

static kp_status read_processor(kp_bpe_draft *draft, const json_t *processor, int depth, kp_error *error) {
  if (processor == NULL || json_is_null(processor) || has_type(processor, "ByteLevel")) return KP_OK;
  if (has_type(processor, "TemplateProcessing")) return read_template(draft, processor, error);
  if (has_type(processor, "RobertaProcessing") || has_type(processor, "BertProcessing"))
    return read_pair(draft, processor, error);
  if (!has_type(processor, "Sequence") || depth == DEEPEST)
    return unsupported("its post-processor", type_of(processor), error);
  const json_t *list = json_object_get(processor, "processors");
  for (size_t i = 0; i < json_array_size(list); i++)
    KP_TRY(read_processor(draft, json_array_get(list, i), depth + 1, error));
  return KP_OK;
}

/* ---- added tokens ---- */

static kp_status check_added(const json_t *added, size_t number, kp_error *error) {
  static const char *const refused[] = {"single_word", "lstrip", "rstrip"};
  const json_t *content = json_object_get(added, "content");
  const json_int_t id =
      json_is_integer(json_object_get(added, "id")) ? json_integer_value(json_object_get(added, "id")) : -1;
  if (json_string_length(content) == 0 || strlen(json_string_value(content)) != json_string_length(content))
    return kp_fail(error, KP_ERR_INPUT, "added token %zu has no text in \"content\", or a zero in it",
                   number);
  if (id < 0 || id > INT32_MAX)
    return kp_fail(error, KP_ERR_INPUT, "the added token '%.80s' has no \"id\"", json_string_value(content));
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
    if (flag(added, refused[i], false))
      return kp_fail(error, KP_ERR_UNSUPPORTED, "the added token '%.80s' has %s, which is not supported",
                     json_string_value(content), refused[i]);
  return KP_OK;
}

static kp_status read_added(kp_bpe_draft *draft, const json_t *list, const json_t *vocabulary,
                            kp_error *error) {
  for (size_t i = 0; i < json_array_size(list); i++) {
    const json_t *added = json_array_get(list, i);
    const char *text = json_string_value(json_object_get(added, "content"));
    const int32_t id = (int32_t)json_integer_value(json_object_get(added, "id"));
    const json_t *known = json_object_get(vocabulary, text);
    if (known != NULL && json_integer_value(known) != id)
      return kp_fail(error, KP_ERR_INPUT, "the added token '%.80s' has id %d, but %lld in the vocabulary",
                     text, id, (long long)json_integer_value(known));
    KP_TRY(kp_bpe_draft_add(draft, text, id, flag(added, "special", false), error));
  }
  return KP_OK;
}

/* ---- the model ---- */

static kp_status check_model(const json_t *model, kp_error *error) {
  static const char *const refused[] = {"continuing_subword_prefix", "end_of_word_suffix"};
  if (!json_is_object(model)) return kp_fail(error, KP_ERR_INPUT, "it has no \"model\"");
  const json_t *type = json_object_get(model, "type");
  if (type != NULL && !has_type(model, "BPE")) return unsupported("its model", type_of(model), error);
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
    if (json_string_length(json_object_get(model, refused[i])) > 0)
      return unsupported("its model with", refused[i], error);
  if (flag(model, "byte_fallback", false)) return unsupported("its model with", "byte_fallback", error);
  if (json_number_value(json_object_get(model, "dropout")) > 0)
    return unsupported("its model with", "dropout", error);
  return KP_OK;
}

static kp_text_view view_of(const json_t *string) {
  return (kp_text_view){.data = json_string_value(string), .size = json_string_length(string)};
}

static kp_status read_merge(kp_bpe_draft *draft, const json_t *merge, kp_error *error) {
  kp_text_view left = view_of(json_array_get(merge, 0)), right = view_of(json_array_get(merge, 1));
  if (json_is_string(merge)) {
    const kp_text_view whole = view_of(merge);
    const char *space = memchr(whole.data, ' ', whole.size);
    if (space != NULL) {
      left = (kp_text_view){.data = whole.data, .size = (size_t)(space - whole.data)};
      right = (kp_text_view){.data = space + 1, .size = whole.size - left.size - 1};
    }
  }
  if (left.size == 0 || right.size == 0 || json_array_size(merge) > 2)
    return kp_fail(error, KP_ERR_INPUT, "merge %zu is neither \"left right\" nor [\"left\", \"right\"]",
                   draft->merge_count + 1);
  return kp_bpe_draft_merge(draft, left, right, error);
}

static kp_status read_model(kp_bpe_draft *draft, const json_t *model, kp_error *error) {
  const json_t *merges = json_object_get(model, "merges");
  if (!json_is_array(merges)) return kp_fail(error, KP_ERR_INPUT, "its model has no \"merges\"");
  KP_TRY(kp_bpe_draft_vocabulary(draft, json_object_get(model, "vocab"), error));
  for (size_t i = 0; i < json_array_size(merges); i++)
    KP_TRY(read_merge(draft, json_array_get(merges, i), error));
  draft->ignore_merges = flag(model, "ignore_merges", false);
  return KP_OK;
}

/* ---- all of it ---- */

static kp_status begin(kp_bpe_draft *draft, const json_t *vocabulary, const json_t *list, kp_error *error) {
  size_t count = 0, bytes = 0;
  int64_t largest = -1;
  KP_TRY(kp_bpe_measure(vocabulary, &count, &largest, &bytes, error));
  for (size_t i = 0; i < json_array_size(list); i++) {
    const json_t *added = json_array_get(list, i);
    KP_TRY(check_added(added, i, error));
    const json_int_t id = json_integer_value(json_object_get(added, "id"));
    if (id > largest) largest = id;
    bytes += json_string_length(json_object_get(added, "content"));
    count++;
  }
  return kp_bpe_draft_init(draft, count, largest, bytes, error);
}

static kp_status read_all(kp_bpe_draft *draft, const json_t *document, kp_error *error) {
  const json_t *model = json_object_get(document, "model"), *list = json_object_get(document, "added_tokens");
  const json_t *pretokenizer = json_object_get(document, "pre_tokenizer");
  bool bytes = false;
  KP_TRY(check_model(model, error));
  KP_TRY(check_normalizer(json_object_get(document, "normalizer"), error));
  KP_TRY(begin(draft, json_object_get(model, "vocab"), list, error));
  KP_TRY(read_added(draft, list, json_object_get(model, "vocab"), error));
  if (json_is_object(pretokenizer)) KP_TRY(read_pretokenizer(draft, pretokenizer, 0, &bytes, error));
  if (!bytes)
    return kp_fail(error, KP_ERR_UNSUPPORTED,
                   "its pre-tokenizer has no ByteLevel: only byte-level BPE is supported");
  KP_TRY(read_model(draft, model, error));
  return read_processor(draft, json_object_get(document, "post_processor"), 0, error);
}

kp_status kp_bpe_read_json(const json_t *document, kp_tokenizer **tokenizer, kp_error *error) {
  kp_bpe_draft draft = {.begin = -1, .end = -1};
  kp_status status = read_all(&draft, document, error);
  if (status == KP_OK) status = kp_bpe_draft_finish(&draft, tokenizer, error);
  kp_bpe_draft_clear(&draft);
  return status;
}
