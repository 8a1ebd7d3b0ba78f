#include "data/catalogue_shards.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/directory.h"
#include "data/catalogue_files.h"
#include "data/token_file.h"

/* A set at work. */
typedef struct shards {
  const kp_data_set *set;
  const kp_catalogue_options *options;
  const char *folder;
  int32_t count; /* for training */
} shards;

/* Address of a shard: number 0 is that for validation. */
static void shard_url(const kp_data_set *set, int32_t number, char url[1024]) {
  if (number == 0)
    snprintf(url, 1024, "%s", set->files[0].url);
  else
    snprintf(url, 1024, "%s%06d.bin", set->shard_url, number);
}

static kp_status fetch(const shards *s, kp_error *error) {
  char folder[KP_PATH_SIZE], path[KP_PATH_SIZE], url[1024];
  KP_TRY(kp_path_join(folder, s->folder, KP_SOURCE_FOLDER, error));
  KP_TRY(kp_directory_create(folder, error));
  for (int32_t i = 0; i <= s->count; i++) {
    shard_url(s->set, i, url);
    KP_TRY(kp_path_join(path, folder, kp_path_last_name(url), error));
    const kp_data_file file = {.url = url};
    KP_TRY(kp_catalogue_fetch(&file, s->options, path, error));
  }
  return KP_OK;
}

/* Number i of a split, as a link that stays right when the folder is moved. */
static kp_status link_shard(const shards *s, bool validation, int32_t i, kp_error *error) {
  char name[KP_PREPARED_NAME_SIZE], path[KP_PATH_SIZE], target[KP_PATH_SIZE], url[1024];
  shard_url(s->set, validation ? 0 : i + 1, url);
  kp_prepared_file_name(validation, validation ? 1 : s->count, i, name);
  KP_TRY(kp_path_join(path, s->folder, name, error));
  KP_TRY(kp_path_join(target, KP_SOURCE_FOLDER, kp_path_last_name(url), error));
  return symlink(target, path) == 0 ? KP_OK
                                    : kp_fail_errno(error, KP_ERR_IO, "cannot make the link %s", path);
}

/* Reads the tokens of a split whole, once. */
static kp_status describe_split(const shards *s, bool validation, int32_t vocabulary,
                                kp_prepared_split *split, kp_error *error) {
  kp_tokens *tokens;
  *split = (kp_prepared_split){.shards = validation ? 1 : s->count};
  for (int32_t i = 0; i < split->shards; i++) KP_TRY(link_shard(s, validation, i, error));
  KP_TRY(kp_tokens_open(&s->folder, 1, validation ? "val" : "train", &tokens, error));
  split->tokens = kp_tokens_count(tokens);
  split->file_bytes = (int64_t)kp_tokens_file_bytes(tokens);
  const kp_status status = kp_tokens_check(tokens, vocabulary, error);
  kp_tokens_destroy(tokens);
  if (status != KP_OK) return status;
  return kp_prepared_hash(s->folder, validation, split->shards, split->sha256, error);
}

static kp_status write_set(const shards *s, const kp_tokenizer *tokenizer, kp_prepared *prepared,
                           kp_error *error) {
  char path[KP_PATH_SIZE];
  *prepared = (kp_prepared){
      .vocabulary = tokenizer->vocabulary, .fingerprint = tokenizer->fingerprint, .train_fraction = 1};
  snprintf(prepared->name, sizeof prepared->name, "%s", s->set->name);
  snprintf(prepared->source, sizeof prepared->source, "%s", s->set->source);
  snprintf(prepared->licence, sizeof prepared->licence, "%s", s->set->licence);
  snprintf(prepared->text_sha256, sizeof prepared->text_sha256, "unknown");
  snprintf(prepared->tokenizer, sizeof prepared->tokenizer, "%s", kp_tokenizer_name(tokenizer));
  KP_TRY(kp_prepared_claim(s->folder, error));
  KP_TRY(kp_prepared_begin(s->folder, error));
  KP_TRY(kp_path_join(path, s->folder, KP_TOKENIZER_FILE, error));
  KP_TRY(kp_tokenizer_save(tokenizer, path, error));
  KP_TRY(describe_split(s, false, tokenizer->vocabulary, &prepared->train, error));
  KP_TRY(describe_split(s, true, tokenizer->vocabulary, &prepared->validation, error));
  return kp_prepared_write(s->folder, prepared, error);
}

/* With the folder's lock held. */
static kp_status prepare_locked(const shards *s, const kp_tokenizer *tokenizer, kp_catalogue_report *report,
                                kp_error *error) {
  KP_TRY(fetch(s, error));
  report->fresh = kp_prepared_read(s->folder, &report->prepared, NULL) != KP_OK ||
                  report->prepared.train.shards != s->count ||
                  report->prepared.fingerprint != tokenizer->fingerprint;
  return report->fresh ? write_set(s, tokenizer, &report->prepared, error) : KP_OK;
}

kp_status kp_catalogue_prepare_shards(const kp_data_set *set, const kp_catalogue_options *options,
                                      const char *tokenizer, kp_catalogue_report *report, kp_error *error) {
  const int32_t usual = set->shards < KP_CATALOGUE_SHARDS ? set->shards : KP_CATALOGUE_SHARDS;
  const shards s = {.set = set,
                    .options = options,
                    .folder = report->folder,
                    .count = options->shards > 0 ? options->shards : usual};
  kp_tokenizer *opened;
  kp_lock *lock;
  if (s.count > set->shards)
    return kp_fail(error, KP_ERR_INPUT, "%s has %d shards for training, %d are asked for", set->name,
                   set->shards, s.count);
  KP_TRY(kp_tokenizer_open(tokenizer, &opened, error));
  kp_status status = kp_prepared_lock(s.folder, &lock, error);
  if (status == KP_OK) {
    status = prepare_locked(&s, opened, report, error);
    kp_lock_release(lock);
  }
  kp_tokenizer_destroy(opened);
  return status;
}
