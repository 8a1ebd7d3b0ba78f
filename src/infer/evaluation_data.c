/* Where the tokens of an evaluation come from. */
#define _POSIX_C_SOURCE 200809L /* mkdtemp */

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/file.h"
#include "data/prepare.h"
#include "data/token_writer.h"
#include "infer/evaluate.h"
#include "train/data_source.h"

/* The validation tokens that the run was trained beside. */
static kp_status open_own(const kp_trained *trained, kp_tokens **tokens, kp_error *error) {
  kp_data_source source;
  if (kp_data_source_open(trained->config, &source, error) != KP_OK)
    return kp_context(error, "the data of run %s (name other data with --data or --file)", trained->run);
  *tokens = source.validation;
  source.validation = NULL;
  kp_data_source_close(&source);
  return KP_OK;
}

static kp_status open_named(const char *data, kp_tokens **tokens, kp_error *error) {
  char path[KP_PATH_SIZE];
  KP_TRY(kp_path_check(data, error));
  snprintf(path, sizeof path, "%s", data);
  if (kp_path_kind_of(path) == KP_PATH_MISSING) {
    KP_TRY(kp_data_folder(path, error));
    KP_TRY(kp_path_join(path, path, data, error));
  }
  if (kp_path_kind_of(path) == KP_PATH_MISSING)
    return kp_fail(
        error, KP_ERR_INPUT,
        "there is no folder or token file %s and no data set %s; a plain text is given with --file", data,
        path);
  const char *const paths[] = {path};
  return kp_tokens_open(paths, 1, "val", tokens, error);
}

kp_status kp_evaluation_data_open(const kp_trained *trained, const char *data, kp_tokens **tokens,
                                  kp_error *error) {
  *tokens = NULL;
  KP_TRY(data == NULL ? open_own(trained, tokens, error) : open_named(data, tokens, error));
  if (trained->tokenizer == NULL) return KP_OK;
  kp_status status = kp_tokens_check_tokenizer(*tokens, trained->tokenizer, error);
  if (status == KP_OK) return KP_OK;
  kp_tokens_destroy(*tokens);
  *tokens = NULL;
  return status;
}

/* ---- a text ---- */

static kp_status append_text(kp_token_writer *writer, const kp_tokenizer *tokenizer, const kp_file_map *text,
                             kp_error *error) {
  enum { CHUNK = 1 << 24 };
  const kp_text_view view = {.data = (const char *)text->data, .size = text->size};
  kp_ids ids = {0};
  kp_status status = KP_OK;
  for (size_t offset = 0; status == KP_OK && offset < text->size; ids.count = 0) {
    status = kp_tokenizer_append_part(tokenizer, view, &offset, CHUNK, 0, &ids, error);
    if (status == KP_OK) status = kp_token_writer_append(writer, ids.list, ids.count, error);
  }
  kp_ids_clear(&ids);
  return status;
}

static kp_status write_tokens(const kp_tokenizer *tokenizer, const kp_file_map *text, const char *path,
                              kp_error *error) {
  kp_token_writer *writer;
  KP_TRY(kp_token_writer_create(path, tokenizer->vocabulary, tokenizer->fingerprint, &writer, error));
  kp_status status = append_text(writer, tokenizer, text, error);
  if (status == KP_OK) return kp_token_writer_finish(writer, text->size, error);
  kp_token_writer_abort(writer);
  return status;
}

/* Token streams are mapped files, so the tokens go through a file, which is removed as soon as it is mapped:
 * nothing stays behind however the program ends afterwards. */
static kp_status open_text(const kp_tokenizer *tokenizer, const kp_file_map *text, kp_tokens **tokens,
                           kp_error *error) {
  char folder[KP_PATH_SIZE], file[KP_PATH_SIZE];
  const char *base = getenv("TMPDIR");
  KP_TRY(kp_path_join(folder, base == NULL || base[0] == 0 ? "/tmp" : base, "kappa-eval-XXXXXX", error));
  if (mkdtemp(folder) == NULL)
    return kp_fail_errno(error, KP_ERR_IO, "cannot make a temporary folder %s", folder);
  const char *const paths[] = {file};
  kp_status status = kp_path_join(file, folder, "text.bin", error);
  if (status == KP_OK) status = write_tokens(tokenizer, text, file, error);
  if (status == KP_OK) status = kp_tokens_open(paths, 1, NULL, tokens, error);
  unlink(file);
  rmdir(folder);
  return status;
}

kp_status kp_evaluation_text_open(const kp_trained *trained, const char *path, kp_tokens **tokens,
                                  kp_error *error) {
  kp_file_map text = {0};
  *tokens = NULL;
  if (trained->tokenizer == NULL)
    return kp_fail(error, KP_ERR_INPUT,
                   "run %s has no tokenizer.json, so a text cannot become tokens: give token files with "
                   "--data, or put the tokenizer of its data into the run's folder",
                   trained->run);
  KP_TRY(kp_file_map_open(path, KP_EMPTY_REFUSED, &text, error));
  kp_status status = open_text(trained->tokenizer, &text, tokens, error);
  kp_file_map_close(&text);
  if (status == KP_OK && kp_tokens_count(*tokens) < 2) {
    kp_tokens_destroy(*tokens);
    *tokens = NULL;
    return kp_fail(error, KP_ERR_INPUT, "text %s has one token; scoring needs two", path);
  }
  return status == KP_OK ? KP_OK : kp_context(error, "text %s", path);
}
