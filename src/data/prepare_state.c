#include "data/prepare_state.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/json_text.h"
#include "core/path.h"

static json_t *shards_json(const kp_shard_writer *writer) {
  json_t *list = json_array();
  for (int32_t i = 0; i < writer->shard_count; i++) {
    const kp_shard *shard = &writer->shards[i];
    json_array_append_new(list, json_pack("{s:I, s:I, s:I, s:I, s:s}", "tokens", (json_int_t)shard->tokens,
                                          "text_bytes", (json_int_t)shard->text_bytes, "file_bytes",
                                          (json_int_t)shard->file_bytes, "documents",
                                          (json_int_t)shard->documents, "sha256", shard->sha256));
  }
  return list;
}

kp_status kp_prepare_state_write(const char *folder, const kp_prepare_state *state,
                                 const kp_shard_writer writers[2], kp_error *error) {
  char path[KP_PATH_SIZE];
  KP_TRY(kp_path_join(path, folder, KP_PROGRESS_FILE, error));
  json_t *document = json_pack("{s:s, s:I, s:s, s:o, s:o}", "request_sha256", state->request_sha256, "read",
                               (json_int_t)state->read, "chain_sha256", state->chain_sha256, "train",
                               shards_json(&writers[0]), "validation", shards_json(&writers[1]));
  if (document == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory to write %s", path);
  const kp_status status = kp_json_write_file(path, document, KP_JSON_DOUBLE_DIGITS, error);
  json_decref(document);
  return status;
}

/* More than zero, and sums of them do not overflow. */
static bool take_count(const json_t *object, const char *key, int64_t *out) {
  *out = json_integer_value(json_object_get(object, key));
  return *out > 0 && *out < (int64_t)1 << 42;
}

static bool take_digits(const json_t *object, const char *key, char out[KP_SHA256_HEX_SIZE]) {
  const char *digits = json_string_value(json_object_get(object, key));
  if (digits == NULL || strlen(digits) != KP_SHA256_HEX_SIZE - 1) return false;
  memcpy(out, digits, KP_SHA256_HEX_SIZE);
  return true;
}

/* A shard that the file names and the folder has. */
static bool take_shard(const json_t *object, const kp_shard_writer *writer, kp_shard *shard) {
  char path[KP_PATH_SIZE], name[KP_PREPARED_NAME_SIZE];
  struct stat information;
  kp_prepared_file_name(writer->validation, writer->shard_count + 1, writer->shard_count, name);
  return take_count(object, "tokens", &shard->tokens) &&
         take_count(object, "text_bytes", &shard->text_bytes) &&
         take_count(object, "file_bytes", &shard->file_bytes) &&
         take_count(object, "documents", &shard->documents) && take_digits(object, "sha256", shard->sha256) &&
         kp_path_join(path, writer->folder, name, NULL) == KP_OK && stat(path, &information) == 0 &&
         information.st_size == shard->file_bytes;
}

static kp_status take_shards(const json_t *list, kp_shard_writer *writer, bool *found, kp_error *error) {
  size_t i;
  const json_t *object;
  *found = json_is_array(list);
  json_array_foreach(list, i, object) {
    kp_shard shard;
    *found = *found && take_shard(object, writer, &shard);
    if (!*found) return KP_OK;
    KP_TRY(kp_shard_writer_add(writer, &shard, error));
  }
  return KP_OK;
}

static kp_status take_all(const json_t *document, kp_prepare_state *state, kp_shard_writer writers[2],
                          bool *found, kp_error *error) {
  *found = take_digits(document, "request_sha256", state->request_sha256);
  /* Before the first shard nothing is known of what was read. */
  if (take_count(document, "read", &state->read))
    *found = *found && take_digits(document, "chain_sha256", state->chain_sha256);
  else
    *found = *found && state->read == 0;
  if (!*found) return KP_OK;
  KP_TRY(take_shards(json_object_get(document, "train"), &writers[0], found, error));
  if (!*found) return KP_OK;
  return take_shards(json_object_get(document, "validation"), &writers[1], found, error);
}

kp_status kp_prepare_state_read(const char *folder, const char *request_sha256, kp_prepare_state *state,
                                kp_shard_writer writers[2], bool *found, kp_error *error) {
  char path[KP_PATH_SIZE];
  json_t *document;
  *state = (kp_prepare_state){0};
  *found = false;
  KP_TRY(kp_path_join(path, folder, KP_PROGRESS_FILE, error));
  if (kp_path_kind_of(path) != KP_PATH_FILE || kp_json_read_file(path, &document, NULL) != KP_OK)
    return KP_OK;
  const char *request = json_string_value(json_object_get(document, "request_sha256"));
  kp_status status = KP_OK;
  if (request != NULL && strcmp(request, request_sha256) == 0)
    status = take_all(document, state, writers, found, error);
  json_decref(document);
  if (!*found) {
    *state = (kp_prepare_state){0};
    kp_shard_writer_clear(&writers[0]);
    kp_shard_writer_clear(&writers[1]);
  }
  return status;
}

kp_status kp_prepare_state_remove(const char *folder, kp_error *error) {
  char path[KP_PATH_SIZE];
  KP_TRY(kp_path_join(path, folder, KP_PROGRESS_FILE, error));
  if (unlink(path) == 0 || errno == ENOENT) return KP_OK;
  return kp_fail_errno(error, KP_ERR_IO, "cannot remove %s", path);
}
