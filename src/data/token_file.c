#include "data/token_file.h"

#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "core/file.h"
#include "core/path.h"
#include "data/conversation_index.h"
#include "data/token_layout.h"
#include "data/token_paths.h"

/* One mapped file. */
typedef struct shard {
  kp_file_map map;
  kp_token_layout layout;
  int64_t first; /* position in the stream of its first token */
} shard;

struct kp_tokens {
  kp_path_list paths;
  shard *shards; /* one for each path; owned */
  int64_t count;
  int32_t vocabulary;
  uint64_t fingerprint;
  uint64_t text_bytes;
  kp_conversation_index index; /* empty without one */
};

void kp_tokens_destroy(kp_tokens *tokens) {
  if (tokens == NULL) return;
  kp_conversation_index_close(&tokens->index);
  if (tokens->shards != NULL)
    for (size_t i = 0; i < tokens->paths.count; i++) kp_file_map_close(&tokens->shards[i].map);
  free(tokens->shards);
  kp_path_list_clear(&tokens->paths);
  free(tokens);
}

static kp_status open_shard(const char *path, shard *opened, kp_error *error) {
  KP_TRY(kp_file_map_open(path, KP_EMPTY_REFUSED, &opened->map, error));
  if (kp_token_layout_read(opened->map.data, opened->map.size, kp_token_path_is_bin(path), &opened->layout,
                           error) != KP_OK)
    return kp_context(error, "token file %s", path);
  return KP_OK;
}

/* Files of different vocabularies would train without complaint and learn nothing. */
static kp_status check_agreement(const kp_tokens *tokens, size_t file, kp_error *error) {
  const kp_token_layout *first = &tokens->shards[0].layout, *layout = &tokens->shards[file].layout;
  if (first->vocabulary != layout->vocabulary || first->fingerprint != layout->fingerprint)
    return kp_fail(error, KP_ERR_INPUT,
                   "token files %s and %s were made with different tokenizers (vocabulary %d and %d, "
                   "fingerprint %016llx and %016llx)",
                   tokens->paths.list[0], tokens->paths.list[file], first->vocabulary, layout->vocabulary,
                   (unsigned long long)first->fingerprint, (unsigned long long)layout->fingerprint);
  return KP_OK;
}

static kp_status open_shards(kp_tokens *tokens, kp_error *error) {
  size_t files = tokens->paths.count;
  tokens->shards = calloc(files, sizeof *tokens->shards);
  if (tokens->shards == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %zu token files", files);
  bool text_bytes_known = true;
  for (size_t i = 0; i < files; i++) {
    shard *one = &tokens->shards[i];
    KP_TRY(open_shard(tokens->paths.list[i], one, error));
    KP_TRY(check_agreement(tokens, i, error));
    one->first = tokens->count;
    tokens->count += one->layout.count;
    tokens->text_bytes += one->layout.text_bytes;
    text_bytes_known &= one->layout.text_bytes != 0;
  }
  tokens->vocabulary = tokens->shards[0].layout.vocabulary;
  tokens->fingerprint = tokens->shards[0].layout.fingerprint;
  if (!text_bytes_known) tokens->text_bytes = 0;
  return KP_OK;
}

static kp_status open_index(kp_tokens *tokens, kp_error *error) {
  char path[KP_PATH_SIZE];
  if (tokens->paths.count != 1) return KP_OK;
  KP_TRY(kp_conversation_index_path(tokens->paths.list[0], path, error));
  if (kp_path_kind_of(path) != KP_PATH_FILE) return KP_OK;
  return kp_conversation_index_open(path, tokens, &tokens->index, error);
}

kp_status kp_tokens_open(const char *const *paths, size_t count, const char *split, kp_tokens **tokens,
                         kp_error *error) {
  if (count == 0) return kp_fail(error, KP_ERR_INPUT, "no token files were named");
  kp_tokens *opened = calloc(1, sizeof *opened);
  if (opened == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for a token stream");
  kp_status status = KP_OK;
  for (size_t i = 0; i < count && status == KP_OK; i++)
    status = kp_token_paths_add(&opened->paths, paths[i], split, error);
  if (status == KP_OK) status = open_shards(opened, error);
  if (status == KP_OK) status = open_index(opened, error);
  if (status != KP_OK) {
    kp_tokens_destroy(opened);
    return status;
  }
  *tokens = opened;
  return KP_OK;
}

const kp_conversation_index *kp_tokens_index(const kp_tokens *tokens) {
  return tokens->index.count > 0 ? &tokens->index : NULL;
}
int64_t kp_tokens_count(const kp_tokens *tokens) {
  return tokens->count;
}
size_t kp_tokens_files(const kp_tokens *tokens) {
  return tokens->paths.count;
}
int32_t kp_tokens_vocabulary(const kp_tokens *tokens) {
  return tokens->vocabulary;
}
uint64_t kp_tokens_fingerprint(const kp_tokens *tokens) {
  return tokens->fingerprint;
}
uint64_t kp_tokens_text_bytes(const kp_tokens *tokens) {
  return tokens->text_bytes;
}

size_t kp_tokens_width(const kp_tokens *tokens) {
  size_t width = 2;
  for (size_t i = 0; i < tokens->paths.count; i++)
    if (tokens->shards[i].layout.token_size > width) width = tokens->shards[i].layout.token_size;
  return width;
}

uint64_t kp_tokens_file_bytes(const kp_tokens *tokens) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < tokens->paths.count; i++) bytes += tokens->shards[i].map.size;
  return bytes;
}

const char *kp_tokens_path(const kp_tokens *tokens, size_t file) {
  kp_assert(file < tokens->paths.count, "file %zu of %zu", file, tokens->paths.count);
  return tokens->paths.list[file];
}

/* The file that token `offset` of the stream lies in. */
static size_t find_shard(const kp_tokens *tokens, int64_t offset) {
  size_t low = 0, high = tokens->paths.count;
  while (high - low > 1) {
    size_t middle = low + (high - low) / 2;
    if (tokens->shards[middle].first <= offset)
      low = middle;
    else
      high = middle;
  }
  return low;
}

/* Tokens [begin, begin + count) of one file.  Maps begin at a page and headers have 1024 bytes, so tokens
 * are aligned. */
static void copy_shard(const shard *source, int64_t begin, int64_t count, int32_t *out) {
  const unsigned char *bytes =
      source->map.data + source->layout.begin + (size_t)begin * source->layout.token_size;
  if (source->layout.token_size == 4) {
    memcpy(out, bytes, (size_t)count * sizeof *out);
    return;
  }
  const uint16_t *narrow = (const uint16_t *)(const void *)bytes;
  for (int64_t i = 0; i < count; i++) out[i] = narrow[i];
}

void kp_tokens_copy(const kp_tokens *tokens, int64_t offset, int64_t count, int32_t *out) {
  kp_assert(offset >= 0 && count >= 0 && count <= tokens->count - offset, "tokens %lld + %lld of %lld",
            (long long)offset, (long long)count, (long long)tokens->count);
  for (size_t file = find_shard(tokens, offset); count > 0; file++) {
    const shard *source = &tokens->shards[file];
    int64_t begin = offset - source->first, left = source->layout.count - begin;
    int64_t taken = count < left ? count : left;
    copy_shard(source, begin, taken, out);
    out += taken;
    offset += taken;
    count -= taken;
  }
}

kp_status kp_tokens_fail_range(const kp_tokens *tokens, int64_t offset, int32_t vocabulary, kp_error *error) {
  size_t file = find_shard(tokens, offset);
  int32_t token = 0;
  kp_tokens_copy(tokens, offset, 1, &token);
  return kp_fail(
      error, KP_ERR_INPUT,
      "token file %s: token %u at position %lld is not below the vocabulary of %d; was it made with "
      "another tokenizer?",
      tokens->paths.list[file], (uint32_t)token, (long long)(offset - tokens->shards[file].first),
      vocabulary);
}

kp_status kp_tokens_check(const kp_tokens *tokens, int32_t vocabulary, kp_error *error) {
  enum { chunk = 4096 };
  int32_t values[chunk] = {0};
  for (int64_t offset = 0; offset < tokens->count; offset += chunk) {
    int64_t count = tokens->count - offset < chunk ? tokens->count - offset : chunk;
    kp_tokens_copy(tokens, offset, count, values);
    for (int64_t i = 0; i < count; i++)
      if ((uint32_t)values[i] >= (uint32_t)vocabulary)
        return kp_tokens_fail_range(tokens, offset + i, vocabulary, error);
  }
  return KP_OK;
}

kp_status kp_tokens_check_tokenizer(const kp_tokens *tokens, const kp_tokenizer *tokenizer, kp_error *error) {
  if (tokens->fingerprint == 0 || tokens->fingerprint == tokenizer->fingerprint) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT,
                 "token file %s was made with another tokenizer (fingerprint %016llx) than the one given "
                 "(%016llx, %s, vocabulary %d)",
                 tokens->paths.list[0], (unsigned long long)tokens->fingerprint,
                 (unsigned long long)tokenizer->fingerprint, kp_tokenizer_name(tokenizer),
                 tokenizer->vocabulary);
}
