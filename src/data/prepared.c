#include "data/prepared.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "core/atomic_file.h"
#include "core/path.h"
#include "data/labelled.h"
#include "data/tokenizer.h"

enum { format_version = 1 };

static json_t *load(const char *folder, char path[KP_PATH_SIZE], kp_error *error) {
  json_error_t fault;
  if (kp_path_join(path, folder, KP_PREPARED_FILE, error) != KP_OK) return NULL;
  json_t *document = json_load_file(path, JSON_REJECT_DUPLICATES, &fault);
  if (document == NULL)
    kp_fail(error, KP_ERR_INPUT, "cannot read %s: line %d: %s", path, fault.line, fault.text);
  return document;
}

static bool stands_in(const char *folder, const char *name) {
  char path[KP_PATH_SIZE];
  return kp_path_join(path, folder, name, NULL) == KP_OK && kp_path_kind_of(path) != KP_PATH_MISSING;
}

kp_prepared_state kp_prepared_state_of(const char *folder) {
  char path[KP_PATH_SIZE];
  if (!stands_in(folder, KP_PREPARED_FILE)) {
    bool others = stands_in(folder, KP_TRAIN_FILE) || stands_in(folder, KP_VALIDATION_FILE) ||
                  stands_in(folder, KP_TOKENIZER_FILE);
    return others ? KP_PREPARED_FOREIGN : KP_PREPARED_NOTHING;
  }
  json_t *document = load(folder, path, NULL);
  bool ours = json_object_get(document, "kappa_data") != NULL;
  bool complete = json_is_true(json_object_get(document, "complete"));
  json_decref(document);
  return !ours ? KP_PREPARED_FOREIGN : complete ? KP_PREPARED_COMPLETE : KP_PREPARED_PARTIAL;
}

/* Copies a string that must be there and fit. */
static bool take_text(const json_t *object, const char *key, char *out, size_t size) {
  const char *text = json_string_value(json_object_get(object, key));
  if (text == NULL || strlen(text) >= size) return false;
  memcpy(out, text, strlen(text) + 1);
  return true;
}

static bool take_integer(const json_t *object, const char *key, int64_t *out) {
  const json_t *value = json_object_get(object, key);
  *out = json_integer_value(value);
  return json_is_integer(value) && *out >= 0;
}

static bool take_split(const json_t *object, kp_prepared_split *split) {
  return take_integer(object, "tokens", &split->tokens) &&
         take_integer(object, "text_bytes", &split->text_bytes) &&
         take_integer(object, "file_bytes", &split->file_bytes) &&
         take_text(object, "sha256", split->sha256, sizeof split->sha256);
}

static bool take_tokenizer(const json_t *object, kp_prepared *prepared) {
  char fingerprint[32];
  int64_t vocabulary;
  if (!take_text(object, "type", prepared->tokenizer, sizeof prepared->tokenizer)) return false;
  if (!take_integer(object, "vocabulary", &vocabulary) || vocabulary > INT32_MAX) return false;
  if (!take_text(object, "fingerprint", fingerprint, sizeof fingerprint)) return false;
  prepared->vocabulary = (int32_t)vocabulary;
  return sscanf(fingerprint, "%" SCNx64, &prepared->fingerprint) == 1;
}

static bool take_all(const json_t *document, kp_prepared *prepared) {
  memset(prepared, 0, sizeof *prepared);
  prepared->train_fraction = json_number_value(json_object_get(document, "train_fraction"));
  return take_text(document, "name", prepared->name, sizeof prepared->name) &&
         take_text(document, "source", prepared->source, sizeof prepared->source) &&
         take_text(document, "licence", prepared->licence, sizeof prepared->licence) &&
         take_text(document, "text_sha256", prepared->text_sha256, sizeof prepared->text_sha256) &&
         take_text(document, "separate_validation_sha256", prepared->separate_sha256,
                   sizeof prepared->separate_sha256) &&
         take_tokenizer(json_object_get(document, "tokenizer"), prepared) &&
         take_split(json_object_get(document, "train"), &prepared->train) &&
         take_split(json_object_get(document, "validation"), &prepared->validation);
}

static kp_status check_size(const char *folder, const char *name, int64_t expected, kp_error *error) {
  char path[KP_PATH_SIZE];
  struct stat information;
  KP_TRY(kp_path_join(path, folder, name, error));
  if (stat(path, &information) != 0) return kp_fail_errno(error, KP_ERR_IO, "cannot read %s", path);
  if (information.st_size == expected) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "%s has %lld bytes, %s says %lld: prepare the data again", path,
                 (long long)information.st_size, KP_PREPARED_FILE, (long long)expected);
}

kp_status kp_prepared_read(const char *folder, kp_prepared *prepared, kp_error *error) {
  char path[KP_PATH_SIZE];
  switch (kp_prepared_state_of(folder)) {
  case KP_PREPARED_NOTHING: return kp_fail(error, KP_ERR_INPUT, "folder %s holds no prepared data", folder);
  case KP_PREPARED_FOREIGN:
    return kp_fail(error, KP_ERR_INPUT, "kappa did not prepare the data in %s", folder);
  case KP_PREPARED_PARTIAL:
    return kp_fail(error, KP_ERR_INPUT, "the data in %s is prepared only in part: prepare it again", folder);
  case KP_PREPARED_COMPLETE: break;
  }
  json_t *document = load(folder, path, error);
  if (document == NULL) return kp_context(error, "prepared data");
  bool understood = take_all(document, prepared);
  json_decref(document);
  if (!understood)
    return kp_fail(error, KP_ERR_INPUT, "%s lacks what it must say: prepare the data again", path);
  KP_TRY(check_size(folder, KP_TRAIN_FILE, prepared->train.file_bytes, error));
  return check_size(folder, KP_VALIDATION_FILE, prepared->validation.file_bytes, error);
}

static kp_status verify_file(const char *folder, const char *name, const char *sha256, kp_error *error) {
  char path[KP_PATH_SIZE], found[KP_SHA256_HEX_SIZE];
  KP_TRY(kp_path_join(path, folder, name, error));
  KP_TRY(kp_sha256_file(path, found, error));
  if (strcmp(found, sha256) == 0) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "%s has sha256 %s, %s says %s: prepare the data again", path, found,
                 KP_PREPARED_FILE, sha256);
}

kp_status kp_prepared_verify(const char *folder, const kp_prepared *prepared, kp_error *error) {
  KP_TRY(verify_file(folder, KP_TRAIN_FILE, prepared->train.sha256, error));
  KP_TRY(verify_file(folder, KP_VALIDATION_FILE, prepared->validation.sha256, error));
  kp_tokenizer *tokenizer;
  KP_TRY(kp_tokenizer_open(folder, &tokenizer, error));
  bool same = tokenizer->fingerprint == prepared->fingerprint;
  kp_tokenizer_destroy(tokenizer);
  if (same) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "%s/%s is not the tokenizer that %s names: prepare the data again",
                 folder, KP_TOKENIZER_FILE, KP_PREPARED_FILE);
}

/* Writes the document and releases it; NULL means that there was no memory for it. */
static kp_status store(const char *folder, json_t *document, kp_error *error) {
  char path[KP_PATH_SIZE];
  char *text = document == NULL ? NULL : json_dumps(document, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
  json_decref(document);
  if (text == NULL)
    return kp_fail(error, KP_ERR_INPUT, "%s cannot be written: name, source and licence must be UTF-8",
                   KP_PREPARED_FILE);
  kp_status status = kp_path_join(path, folder, KP_PREPARED_FILE, error);
  if (status == KP_OK) status = kp_file_write_atomic(path, text, strlen(text), error);
  free(text);
  return status;
}

kp_status kp_prepared_begin(const char *folder, kp_error *error) {
  char path[KP_PATH_SIZE];
  KP_TRY(store(folder, json_pack("{s:i, s:b}", "kappa_data", format_version, "complete", false), error));
  KP_TRY(kp_path_join(path, folder, KP_TASK_FILE, error));
  if (unlink(path) == 0 || errno == ENOENT) return KP_OK;
  return kp_fail_errno(error, KP_ERR_IO, "cannot remove %s", path);
}

static json_t *split_to_json(const char *file, const kp_prepared_split *split) {
  return json_pack("{s:s, s:I, s:I, s:I, s:s}", "file", file, "tokens", (json_int_t)split->tokens,
                   "text_bytes", (json_int_t)split->text_bytes, "file_bytes", (json_int_t)split->file_bytes,
                   "sha256", split->sha256);
}

kp_status kp_prepared_write(const char *folder, const kp_prepared *prepared, kp_error *error) {
  char fingerprint[17];
  snprintf(fingerprint, sizeof fingerprint, "%016" PRIx64, prepared->fingerprint);
  json_t *tokenizer =
      json_pack("{s:s, s:s, s:i, s:s}", "file", KP_TOKENIZER_FILE, "type", prepared->tokenizer, "vocabulary",
                (int)prepared->vocabulary, "fingerprint", fingerprint);
  json_t *document =
      json_pack("{s:i, s:b, s:s, s:s, s:s, s:s, s:s, s:f, s:o, s:o, s:o}", "kappa_data", format_version,
                "complete", true, "name", prepared->name, "source", prepared->source, "licence",
                prepared->licence, "text_sha256", prepared->text_sha256, "separate_validation_sha256",
                prepared->separate_sha256, "train_fraction", prepared->train_fraction, "tokenizer", tokenizer,
                "train", split_to_json(KP_TRAIN_FILE, &prepared->train), "validation",
                split_to_json(KP_VALIDATION_FILE, &prepared->validation));
  return store(folder, document, error);
}
