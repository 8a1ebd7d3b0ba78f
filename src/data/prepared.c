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
#include "core/directory.h"
#include "core/path.h"
#include "data/conversation_index.h"
#include "data/labelled.h"
#include "data/tokenizer.h"

enum { format_version = 1, SHARDS_MOST = 999999 };

void kp_prepared_file_name(bool validation, int32_t shards, int32_t shard, char name[KP_PREPARED_NAME_SIZE]) {
  if (shards == 0)
    snprintf(name, KP_PREPARED_NAME_SIZE, "%s", validation ? KP_VALIDATION_FILE : KP_TRAIN_FILE);
  else
    snprintf(name, KP_PREPARED_NAME_SIZE, "%s_%06d.bin", validation ? "val" : "train", shard + 1);
}

/* Whether a file's name is one of those above. */
static bool is_token_file(const char *name) {
  static const char *const splits[] = {"train", "val"};
  for (int i = 0; i < 2; i++) {
    const size_t size = strlen(splits[i]);
    if (strncmp(name, splits[i], size) != 0) continue;
    const char *rest = name + size;
    if (strcmp(rest, ".bin") == 0) return true;
    if (rest[0] == '_' && strspn(rest + 1, "0123456789") == 6 && strcmp(rest + 7, ".bin") == 0) return true;
  }
  return false;
}

/* Whether the folder holds token files; they are removed when `removed`. */
static kp_status find_token_files(const char *folder, bool removed, bool *found, kp_error *error) {
  kp_directory_listing listing;
  *found = false;
  if (kp_path_kind_of(folder) != KP_PATH_FOLDER) return KP_OK;
  KP_TRY(kp_directory_list(folder, &listing, error));
  kp_status status = KP_OK;
  for (size_t i = 0; i < listing.count && status == KP_OK; i++) {
    char path[KP_PATH_SIZE];
    if (!is_token_file(listing.names[i])) continue;
    *found = true;
    if (!removed) continue;
    status = kp_path_join(path, folder, listing.names[i], error);
    if (status == KP_OK && unlink(path) != 0)
      status = kp_fail_errno(error, KP_ERR_IO, "cannot remove %s", path);
  }
  kp_directory_listing_clear(&listing);
  return status;
}

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
    bool tokens;
    if (find_token_files(folder, false, &tokens, NULL) != KP_OK) return KP_PREPARED_FOREIGN;
    return tokens || stands_in(folder, KP_TOKENIZER_FILE) ? KP_PREPARED_FOREIGN : KP_PREPARED_NOTHING;
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

/* 0 where it is missing. */
static bool take_optional(const json_t *object, const char *key, int64_t *out) {
  return json_object_get(object, key) == NULL || take_integer(object, key, out);
}

static bool take_split(const json_t *object, kp_prepared_split *split) {
  const json_t *files = json_object_get(object, "files");
  if (json_array_size(files) > SHARDS_MOST) return false;
  split->shards = (int32_t)json_array_size(files);
  return take_optional(object, "documents", &split->documents) &&
         take_integer(object, "tokens", &split->tokens) &&
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

/* What only sets of documents say. */
static bool take_documents(const json_t *document, kp_prepared *prepared) {
  int64_t separator = 0;
  prepared->separated = json_object_get(document, "separator") != NULL;
  if (!take_optional(document, "separator", &separator) || separator > INT32_MAX) return false;
  prepared->separator = (int32_t)separator;
  if (json_object_get(document, "request_sha256") != NULL &&
      !take_text(document, "request_sha256", prepared->request_sha256, sizeof prepared->request_sha256))
    return false;
  return take_optional(document, "duplicates", &prepared->duplicates) &&
         take_optional(document, "empty_documents", &prepared->empty);
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
         take_documents(document, prepared) &&
         take_split(json_object_get(document, "train"), &prepared->train) &&
         take_split(json_object_get(document, "validation"), &prepared->validation);
}

static kp_status check_size(const char *folder, bool validation, const kp_prepared_split *split,
                            kp_error *error) {
  char path[KP_PATH_SIZE], name[KP_PREPARED_NAME_SIZE];
  struct stat information;
  int64_t bytes = 0;
  for (int32_t i = 0; i < split->shards || i == 0; i++) {
    kp_prepared_file_name(validation, split->shards, i, name);
    KP_TRY(kp_path_join(path, folder, name, error));
    if (stat(path, &information) != 0) return kp_fail_errno(error, KP_ERR_IO, "cannot read %s", path);
    bytes += information.st_size;
  }
  if (bytes == split->file_bytes) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "%s%s has %lld bytes, %s says %lld: prepare the data again", path,
                 split->shards > 1 ? " and those before it" : "", (long long)bytes, KP_PREPARED_FILE,
                 (long long)split->file_bytes);
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
  KP_TRY(check_size(folder, false, &prepared->train, error));
  return check_size(folder, true, &prepared->validation, error);
}

kp_status kp_prepared_hash(const char *folder, bool validation, int32_t shards,
                           char sha256[KP_SHA256_HEX_SIZE], kp_error *error) {
  enum { DIGITS = KP_SHA256_HEX_SIZE - 1 };
  char path[KP_PATH_SIZE], name[KP_PREPARED_NAME_SIZE];
  char *digits = malloc((size_t)(shards + 1) * DIGITS + 1);
  kp_status status = digits == NULL ? kp_fail(error, KP_ERR_MEMORY, "no memory for checksums") : KP_OK;
  for (int32_t i = 0; status == KP_OK && (i < shards || i == 0); i++) {
    kp_prepared_file_name(validation, shards, i, name);
    status = kp_path_join(path, folder, name, error);
    if (status == KP_OK) status = kp_sha256_file(path, digits + (size_t)i * DIGITS, error);
  }
  if (status == KP_OK && shards == 0) memcpy(sha256, digits, KP_SHA256_HEX_SIZE);
  if (status == KP_OK && shards > 0) kp_sha256(digits, (size_t)shards * DIGITS, sha256);
  free(digits);
  return status;
}

static kp_status verify_files(const char *folder, bool validation, const kp_prepared_split *split,
                              kp_error *error) {
  char found[KP_SHA256_HEX_SIZE], name[KP_PREPARED_NAME_SIZE];
  KP_TRY(kp_prepared_hash(folder, validation, split->shards, found, error));
  if (strcmp(found, split->sha256) == 0) return KP_OK;
  kp_prepared_file_name(validation, split->shards, 0, name);
  return kp_fail(error, KP_ERR_INPUT, "%s/%s%s has sha256 %s, %s says %s: prepare the data again", folder,
                 name, split->shards > 1 ? " to the last" : "", found, KP_PREPARED_FILE, split->sha256);
}

kp_status kp_prepared_verify(const char *folder, const kp_prepared *prepared, kp_error *error) {
  KP_TRY(verify_files(folder, false, &prepared->train, error));
  KP_TRY(verify_files(folder, true, &prepared->validation, error));
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

kp_status kp_prepared_lock(const char *folder, kp_lock **lock, kp_error *error) {
  char path[KP_PATH_SIZE];
  KP_TRY(kp_directory_create(folder, error));
  KP_TRY(kp_path_join(path, folder, ".prepare.lock", error));
  return kp_lock_acquire(path, lock, error);
}

kp_status kp_prepared_claim(const char *folder, kp_error *error) {
  if (kp_prepared_state_of(folder) != KP_PREPARED_FOREIGN)
    return kp_directory_remove_temporaries(folder, error);
  return kp_fail(
      error, KP_ERR_INPUT,
      "folder %s holds data that kappa did not write, which is never replaced: choose another folder",
      folder);
}

kp_status kp_prepared_begin(const char *folder, kp_error *error) {
  char path[KP_PATH_SIZE];
  bool found;
  KP_TRY(store(folder, json_pack("{s:i, s:b}", "kappa_data", format_version, "complete", false), error));
  KP_TRY(find_token_files(folder, true, &found, error));
  static const char *const others[] = {KP_TASK_FILE, KP_TRAIN_DOCUMENTS_FILE, KP_VALIDATION_DOCUMENTS_FILE,
                                       KP_PROGRESS_FILE};
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
    KP_TRY(kp_path_join(path, folder, others[i], error));
    if (unlink(path) != 0 && errno != ENOENT)
      return kp_fail_errno(error, KP_ERR_IO, "cannot remove %s", path);
  }
  return KP_OK;
}

static json_t *split_to_json(bool validation, const kp_prepared_split *split) {
  char name[KP_PREPARED_NAME_SIZE];
  json_t *object = json_pack("{s:I, s:I, s:I, s:s}", "tokens", (json_int_t)split->tokens, "text_bytes",
                             (json_int_t)split->text_bytes, "file_bytes", (json_int_t)split->file_bytes,
                             "sha256", split->sha256);
  if (split->shards == 0) {
    kp_prepared_file_name(validation, 0, 0, name);
    json_object_set_new(object, "file", json_string(name));
    return object;
  }
  json_t *files = json_array();
  for (int32_t i = 0; i < split->shards; i++) {
    kp_prepared_file_name(validation, split->shards, i, name);
    json_array_append_new(files, json_string(name));
  }
  json_object_set_new(object, "documents", json_integer(split->documents));
  json_object_set_new(object, "files", files);
  return object;
}

static void add_documents(json_t *document, const kp_prepared *prepared) {
  json_object_set_new(document, "documents",
                      json_integer(prepared->train.documents + prepared->validation.documents));
  json_object_set_new(document, "duplicates", json_integer(prepared->duplicates));
  json_object_set_new(document, "empty_documents", json_integer(prepared->empty));
  if (prepared->separated) json_object_set_new(document, "separator", json_integer(prepared->separator));
}

kp_status kp_prepared_write(const char *folder, const kp_prepared *prepared, kp_error *error) {
  char fingerprint[17];
  snprintf(fingerprint, sizeof fingerprint, "%016" PRIx64, prepared->fingerprint);
  json_t *tokenizer =
      json_pack("{s:s, s:s, s:i, s:s}", "file", KP_TOKENIZER_FILE, "type", prepared->tokenizer, "vocabulary",
                (int)prepared->vocabulary, "fingerprint", fingerprint);
  json_t *document = json_pack(
      "{s:i, s:b, s:s, s:s, s:s, s:s, s:s, s:f, s:o, s:o, s:o}", "kappa_data", format_version, "complete",
      true, "name", prepared->name, "source", prepared->source, "licence", prepared->licence, "text_sha256",
      prepared->text_sha256, "separate_validation_sha256", prepared->separate_sha256, "train_fraction",
      prepared->train_fraction, "tokenizer", tokenizer, "train", split_to_json(false, &prepared->train),
      "validation", split_to_json(true, &prepared->validation));
  if (document != NULL && prepared->request_sha256[0] != 0)
    json_object_set_new(document, "request_sha256", json_string(prepared->request_sha256));
  if (document != NULL && prepared->train.documents > 0) add_documents(document, prepared);
  return store(folder, document, error);
}
