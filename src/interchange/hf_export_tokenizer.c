/* tokenizer.json and tokenizer_config.json of an export. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json_text.h"
#include "interchange/hf_export.h"

static kp_status write_json(json_t *json, const char *folder, const char *name, kp_error *error) {
  char path[KP_PATH_SIZE];
  if (json == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %s", name);
  kp_status status = kp_path_join(path, folder, name, error);
  if (status == KP_OK) status = kp_json_write_file(path, json, KP_JSON_DOUBLE_DIGITS, error);
  json_decref(json);
  return status;
}

/* The text of a token, or NULL where there is none. */
static json_t *token_text(const kp_tokenizer *tokenizer, int32_t id) {
  const char *bytes;
  size_t size;
  if (id < 0) return json_null();
  tokenizer->kind->token_bytes(tokenizer, id, &bytes, &size);
  return json_stringn(bytes, size);
}

/* A word a character: `tokenizers` cuts the text into characters and looks each up.  A character that the
 * vocabulary lacks is an error there too, since the unknown token is none of its words. */
static json_t *character_document(const kp_tokenizer *tokenizer) {
  json_t *vocabulary = json_object();
  for (int32_t id = 0; id < tokenizer->vocabulary; id++) {
    const char *bytes;
    size_t size;
    tokenizer->kind->token_bytes(tokenizer, id, &bytes, &size);
    json_object_setn_new(vocabulary, bytes, size, json_integer(id));
  }
  return json_pack("{s:s, s:n, s:n, s:[], s:n, s:{s:s, s:{s:s}, s:s, s:b}, s:n, s:{s:s}, s:{s:s, s:o, s:s}}",
                   "version", "1.0", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer",
                   "type", "Split", "pattern", "Regex", "[\\s\\S]", "behavior", "Isolated", "invert", false,
                   "post_processor", "decoder", "type", "Fuse", "model", "type", "WordLevel", "vocab",
                   vocabulary, "unk_token", "<unk>");
}

static kp_status write_settings(const kp_trained *model, const char *folder, kp_error *error) {
  const kp_tokenizer *t = model->tokenizer;
  return write_json(json_pack("{s:s, s:I, s:b, s:o, s:o}", "tokenizer_class", "PreTrainedTokenizerFast",
                              "model_max_length", (json_int_t)model->options.context,
                              "clean_up_tokenization_spaces", false, "bos_token", token_text(t, t->begin),
                              "eos_token", token_text(t, t->end)),
                    folder, "tokenizer_config.json", error);
}

kp_status kp_hf_write_tokenizer(const kp_trained *model, const char *folder, bool *written, kp_error *error) {
  const kp_tokenizer *t = model->tokenizer;
  const char *name = t == NULL ? "" : kp_tokenizer_name(t);
  char path[KP_PATH_SIZE];
  const bool characters = strcmp(name, "character") == 0, pieces = strcmp(name, "bpe") == 0;
  *written = characters || pieces;
  if (t == NULL) return KP_OK;
  KP_TRY(kp_path_join(path, folder, pieces ? "tokenizer.json" : KP_HF_OWN_TOKENIZER, error));
  KP_TRY(kp_tokenizer_save(t, path, error));
  if (!*written) return KP_OK;
  if (characters) KP_TRY(write_json(character_document(t), folder, "tokenizer.json", error));
  return write_settings(model, folder, error);
}
