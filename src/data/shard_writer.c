#include "data/shard_writer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/path.h"

enum { SHARDS_MOST = 999999 }; /* as many as six digits number */

void kp_shard_writer_clear(kp_shard_writer *writer) {
  kp_token_writer_abort(writer->open);
  free(writer->shards);
  writer->open = NULL;
  writer->shards = NULL;
  writer->shard_count = 0;
}

static kp_status path_of(const kp_shard_writer *writer, char path[KP_PATH_SIZE], kp_error *error) {
  char name[KP_PREPARED_NAME_SIZE];
  kp_prepared_file_name(writer->validation, writer->shard_count + 1, writer->shard_count, name);
  return kp_path_join(path, writer->folder, name, error);
}

kp_status kp_shard_writer_add(kp_shard_writer *writer, const kp_shard *shard, kp_error *error) {
  if (writer->shard_count == SHARDS_MOST)
    return kp_fail(error, KP_ERR_UNSUPPORTED, "more than %d shards: make them larger (--shard-tokens)",
                   SHARDS_MOST);
  kp_shard *grown = realloc(writer->shards, ((size_t)writer->shard_count + 1) * sizeof *grown);
  if (grown == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for a list of shards");
  writer->shards = grown;
  grown[writer->shard_count++] = *shard;
  return KP_OK;
}

static kp_status close_shard(kp_shard_writer *writer, kp_error *error) {
  char path[KP_PATH_SIZE];
  struct stat information;
  kp_shard *shard = &writer->current;
  kp_token_writer *open = writer->open;
  writer->open = NULL;
  KP_TRY(path_of(writer, path, error));
  KP_TRY(kp_token_writer_finish(open, (uint64_t)shard->text_bytes, error));
  KP_TRY(kp_sha256_file(path, shard->sha256, error));
  if (stat(path, &information) != 0) return kp_fail_errno(error, KP_ERR_IO, "cannot read %s", path);
  shard->file_bytes = information.st_size;
  KP_TRY(kp_shard_writer_add(writer, shard, error));
  *shard = (kp_shard){0};
  return KP_OK;
}

kp_status kp_shard_writer_append(kp_shard_writer *writer, const int32_t *ids, size_t count, size_t text_bytes,
                                 bool *closed, kp_error *error) {
  kp_shard *shard = &writer->current;
  *closed = false;
  if (writer->open == NULL) {
    char path[KP_PATH_SIZE];
    KP_TRY(path_of(writer, path, error));
    KP_TRY(kp_token_writer_create(path, writer->tokenizer->vocabulary, writer->tokenizer->fingerprint,
                                  &writer->open, error));
  }
  KP_TRY(kp_token_writer_append(writer->open, ids, count, error));
  shard->tokens += (int64_t)count;
  shard->text_bytes += (int64_t)text_bytes;
  shard->documents++;
  *closed = shard->tokens >= writer->shard_tokens;
  return *closed ? close_shard(writer, error) : KP_OK;
}

kp_status kp_shard_writer_finish(kp_shard_writer *writer, bool *closed, kp_error *error) {
  *closed = writer->open != NULL;
  return *closed ? close_shard(writer, error) : KP_OK;
}

int64_t kp_shard_writer_documents(const kp_shard_writer *writer) {
  int64_t documents = 0;
  for (int32_t i = 0; i < writer->shard_count; i++) documents += writer->shards[i].documents;
  return documents;
}

kp_status kp_shard_writer_describe(const kp_shard_writer *writer, kp_prepared_split *split, kp_error *error) {
  enum { DIGITS = KP_SHA256_HEX_SIZE - 1 };
  char *digits = malloc((size_t)writer->shard_count * DIGITS + 1);
  if (digits == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for checksums");
  *split = (kp_prepared_split){.shards = writer->shard_count};
  for (int32_t i = 0; i < writer->shard_count; i++) {
    const kp_shard *shard = &writer->shards[i];
    split->tokens += shard->tokens;
    split->text_bytes += shard->text_bytes;
    split->file_bytes += shard->file_bytes;
    split->documents += shard->documents;
    memcpy(digits + (size_t)i * DIGITS, shard->sha256, DIGITS);
  }
  kp_sha256(digits, (size_t)writer->shard_count * DIGITS, split->sha256);
  free(digits);
  return KP_OK;
}
