/* Which tokenizer a path is. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/path.h"
#include "data/bpe_files.h"
#include "data/character_tokenizer.h"
#include "data/tokenizer.h"
#include "data/word_tokenizer.h"

/* No tokenizer's file is larger than this. */
enum { FILE_LARGEST = 1 << 29 };

/* Vocabularies and the merges that stand beside them. */
static const char *const pairs[][2] = {{"vocab.json", "merges.txt"}, {"encoder.json", "vocab.bpe"}};
enum { PAIRS = sizeof pairs / sizeof *pairs };

/* What a folder may hold, in the order in which it is looked for. */
static const char *const names[] = {KP_TOKENIZER_FILE, "vocab.json",    "encoder.json",
                                    "tokenizer.model", "gpt2.tiktoken", "r50k_base.tiktoken"};

static kp_status find_in_folder(const char *folder, char file[KP_PATH_SIZE], kp_error *error) {
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    KP_TRY(kp_path_join(file, folder, names[i], error));
    if (kp_path_kind_of(file) == KP_PATH_FILE) return KP_OK;
  }
  return kp_fail(
      error, KP_ERR_INPUT,
      "folder %s has no tokenizer: none of tokenizer.json, vocab.json with merges.txt, encoder.json with "
      "vocab.bpe, tokenizer.model, gpt2.tiktoken",
      folder);
}

/* The path of `name` beside `file`. */
static kp_status beside(const char *file, const char *name, char path[KP_PATH_SIZE], kp_error *error) {
  char folder[KP_PATH_SIZE];
  const char *slash = strrchr(file, '/');
  snprintf(folder, sizeof folder, "%.*s", slash == NULL ? 0 : (int)(slash - file) + 1, file);
  return kp_path_join(path, folder, name, error);
}

static kp_status parse(const char *text, size_t size, json_t **document, kp_error *error) {
  json_error_t fault;
  *document = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &fault);
  if (*document != NULL) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "line %d: %s", fault.line, fault.text);
}

/* ---- a vocabulary and its merges ---- */

static bool is_vocabulary(const json_t *document) {
  const char *word;
  json_t *value;
  if (json_object_size(document) == 0) return false;
  json_object_foreach((json_t *)document, word, value) {
    if (!json_is_integer(value)) return false;
  }
  return true;
}

static kp_status read_with_merges(const char *file, const json_t *vocabulary, kp_tokenizer **tokenizer,
                                  kp_error *error) {
  char path[KP_PATH_SIZE];
  for (size_t i = 0; i < PAIRS; i++) {
    KP_TRY(beside(file, pairs[i][1], path, error));
    if (kp_path_kind_of(path) != KP_PATH_FILE) continue;
    char *merges;
    size_t size;
    KP_TRY(kp_file_read_all(path, FILE_LARGEST, &merges, &size, error));
    kp_status status = kp_bpe_read_vocabulary(vocabulary, merges, size, tokenizer, error);
    free(merges);
    return status;
  }
  return kp_fail(error, KP_ERR_INPUT, "it is a vocabulary, but no merges.txt or vocab.bpe stands beside it");
}

/* A file of merges was named: its vocabulary stands beside it. */
static kp_status open_merges(const char *file, kp_tokenizer **tokenizer, kp_error *error) {
  char path[KP_PATH_SIZE];
  for (size_t i = 0; i < PAIRS; i++) {
    KP_TRY(beside(file, pairs[i][0], path, error));
    if (kp_path_kind_of(path) == KP_PATH_FILE) return kp_tokenizer_open(path, tokenizer, error);
  }
  return kp_fail(error, KP_ERR_INPUT, "it has merges, but no vocab.json or encoder.json stands beside it");
}

/* ---- by content ---- */

static kp_status read_document(const char *file, const json_t *document, kp_tokenizer **tokenizer,
                               kp_error *error) {
  const char *type = json_string_value(json_object_get(document, "type"));
  if (type != NULL && strcmp(type, "character") == 0)
    return kp_character_tokenizer_from_json(document, tokenizer, error);
  if (type != NULL && strcmp(type, "word") == 0)
    return kp_word_tokenizer_from_json(document, tokenizer, error);
  if (type != NULL)
    return kp_fail(error, KP_ERR_UNSUPPORTED, "its type '%.80s' is unknown; 'character' and 'word' are known",
                   type);
  if (json_is_object(json_object_get(document, "model"))) return kp_bpe_read_json(document, tokenizer, error);
  if (is_vocabulary(document)) return read_with_merges(file, document, tokenizer, error);
  return kp_fail(error, KP_ERR_INPUT,
                 "it has no \"type\" and no \"model\" and is no vocabulary: is this a tokenizer?");
}

static bool begins_with(const char *text, size_t size, const char *with) {
  return size >= strlen(with) && memcmp(text, with, strlen(with)) == 0;
}

static kp_status read_content(const char *file, const char *text, size_t size, kp_tokenizer **tokenizer,
                              kp_error *error) {
  const size_t blank = strspn(text, " \t\r\n\xEF\xBB\xBF"); /* and the mark of byte order */
  if (size == 0) return kp_fail(error, KP_ERR_INPUT, "it is empty");
  if (text[blank] == '{' || text[blank] == '[') {
    json_t *document;
    KP_TRY(parse(text + blank, size - blank, &document, error));
    kp_status status = read_document(file, document, tokenizer, error);
    json_decref(document);
    return status;
  }
  if (begins_with(text, size, "#version")) return open_merges(file, tokenizer, error);
  if (begins_with(text, size, "GGUF"))
    return kp_fail(error, KP_ERR_UNSUPPORTED,
                   "it is a GGUF file, which is not supported; use its tokenizer.json");
  if (memchr(text, 0, size) != NULL || text[0] == '\n')
    return kp_fail(
        error, KP_ERR_UNSUPPORTED,
        "it is not text: a SentencePiece model, perhaps, which is not supported; use its tokenizer.json");
  return kp_bpe_read_ranks(text, size, NULL, tokenizer, error);
}

kp_status kp_tokenizer_open(const char *path, kp_tokenizer **tokenizer, kp_error *error) {
  char file[KP_PATH_SIZE];
  char *text;
  size_t size;
  if (kp_path_kind_of(path) == KP_PATH_FOLDER)
    KP_TRY(find_in_folder(path, file, error));
  else
    KP_TRY(kp_path_join(file, "", path, error));
  if (kp_file_read_all(file, FILE_LARGEST, &text, &size, error) != KP_OK)
    return kp_context(error, "cannot read tokenizer %s", file);
  kp_status status = read_content(file, text, size, tokenizer, error);
  free(text);
  return status == KP_OK ? KP_OK : kp_context(error, "tokenizer %s", file);
}
