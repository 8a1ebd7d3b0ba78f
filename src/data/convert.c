#include "data/convert.h"

#include <stdlib.h>
#include <string.h>

#include "core/directory.h"
#include "data/token_file.h"
#include "data/token_paths.h"
#include "data/token_writer.h"

/* Bytes of text that each token stands for, special tokens none; the caller frees the table. */
static kp_status measure_tokens(const kp_tokenizer *tokenizer, uint32_t **lengths, kp_error *error) {
  uint32_t *table = calloc((size_t)tokenizer->vocabulary, sizeof *table);
  *lengths = table;
  if (table == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %d tokens", tokenizer->vocabulary);
  for (int32_t id = 0; id < tokenizer->vocabulary; id++) {
    const char *bytes;
    size_t size;
    tokenizer->kind->token_bytes(tokenizer, id, &bytes, &size);
    table[id] = (uint32_t)size;
  }
  for (size_t i = 0; i < tokenizer->special_count; i++) table[tokenizer->specials[i].id] = 0;
  return KP_OK;
}

/* The layout of the output; the vocabulary is also the bound of its tokens. */
static kp_status choose_layout(const kp_convert_options *o, const kp_tokens *tokens, kp_token_layout *layout,
                               int32_t *vocabulary, kp_error *error) {
  *vocabulary = o->tokenizer != NULL ? o->tokenizer->vocabulary : kp_tokens_vocabulary(tokens);
  if (*vocabulary == 0) *vocabulary = o->vocabulary;
  const bool known = *vocabulary > 0;
  const size_t width = known ? (*vocabulary <= UINT16_MAX + 1 ? 2 : 4) : kp_tokens_width(tokens);
  *layout = (kp_token_layout){.begin = o->to == KP_CONVERT_NANOGPT ? 0 : KP_SHARD_HEADER_BYTES,
                              .token_size = o->to == KP_CONVERT_NANOGPT ? 2 : width};
  if (o->to == KP_CONVERT_KAPPA) {
    if (!known)
      return kp_fail(error, KP_ERR_INPUT,
                     "%s does not say which vocabulary its tokens have: name the tokenizer that made them "
                     "(--tokenizer), or their vocabulary (--vocabulary)",
                     kp_tokens_path(tokens, 0));
    layout->vocabulary = *vocabulary;
    layout->fingerprint = o->tokenizer != NULL ? o->tokenizer->fingerprint : kp_tokens_fingerprint(tokens);
  }
  if (!known) *vocabulary = layout->token_size == 2 ? UINT16_MAX + 1 : INT32_MAX;
  if (layout->token_size == 2 && *vocabulary > UINT16_MAX + 1) *vocabulary = UINT16_MAX + 1;
  return KP_OK;
}

static kp_status fail_range(const kp_convert_options *o, const kp_tokens *tokens, int64_t offset,
                            int32_t vocabulary, kp_error *error) {
  kp_tokens_fail_range(tokens, offset, vocabulary, error);
  if (o->to == KP_CONVERT_NANOGPT && vocabulary == UINT16_MAX + 1)
    return kp_context(error, "nanoGPT's files hold 16 bits a token (--to llmc holds more)");
  return KP_ERR_INPUT;
}

/* Tokens without a header whose first two are the number that opens one would be read as another file. */
static kp_status check_front(const kp_token_layout *layout, const kp_tokens *tokens, kp_error *error) {
  int32_t front[2];
  if (layout->begin > 0 || kp_tokens_count(tokens) < 2) return KP_OK;
  kp_tokens_copy(tokens, 0, 2, front);
  const int64_t number = (int64_t)front[1] << 16 | front[0];
  if (number != KP_SHARD_MAGIC_16 && number != KP_SHARD_MAGIC_32) return KP_OK;
  return kp_fail(error, KP_ERR_UNSUPPORTED,
                 "%s begins with the tokens %d and %d: without a header they would be read as one",
                 kp_tokens_path(tokens, 0), front[0], front[1]);
}

static kp_status copy_tokens(const kp_convert_options *o, const kp_tokens *tokens, int32_t vocabulary,
                             const uint32_t *lengths, kp_token_writer *writer, uint64_t *text_bytes,
                             kp_error *error) {
  enum { CHUNK = 8192 };
  int32_t ids[CHUNK] = {0};
  const int64_t all = kp_tokens_count(tokens);
  *text_bytes = 0;
  for (int64_t offset = 0; offset < all; offset += CHUNK) {
    const int64_t count = all - offset < CHUNK ? all - offset : CHUNK;
    kp_tokens_copy(tokens, offset, count, ids);
    for (int64_t i = 0; i < count; i++) {
      if ((uint32_t)ids[i] >= (uint32_t)vocabulary)
        return fail_range(o, tokens, offset + i, vocabulary, error);
      if (lengths != NULL) *text_bytes += lengths[ids[i]];
    }
    KP_TRY(kp_token_writer_append(writer, ids, (size_t)count, error));
  }
  return KP_OK;
}

static kp_status write_tokens(const kp_convert_options *o, const kp_tokens *tokens, const uint32_t *lengths,
                              const char *path, kp_error *error) {
  kp_token_layout layout;
  kp_token_writer *writer;
  int32_t vocabulary;
  uint64_t text_bytes;
  if (kp_path_kind_of(path) != KP_PATH_MISSING)
    return kp_fail(error, KP_ERR_INPUT, "%s is there already: remove it, or choose another name", path);
  if (o->tokenizer != NULL) KP_TRY(kp_tokens_check_tokenizer(tokens, o->tokenizer, error));
  KP_TRY(choose_layout(o, tokens, &layout, &vocabulary, error));
  KP_TRY(check_front(&layout, tokens, error));
  KP_TRY(kp_token_writer_create_as(path, &layout, &writer, error));
  const kp_status status = copy_tokens(o, tokens, vocabulary, lengths, writer, &text_bytes, error);
  if (status != KP_OK) {
    kp_token_writer_abort(writer);
    return status;
  }
  return kp_token_writer_finish(writer, lengths != NULL ? text_bytes : kp_tokens_text_bytes(tokens), error);
}

static kp_status convert_files(const kp_convert_options *o, const char *const *paths, size_t count,
                               const uint32_t *lengths, const char *output, kp_convert_written written,
                               void *context, kp_error *error) {
  kp_converted file;
  kp_tokens *tokens;
  KP_TRY(kp_path_join(file.path, "", output, error));
  KP_TRY(kp_tokens_open(paths, count, NULL, &tokens, error));
  const kp_status status = write_tokens(o, tokens, lengths, output, error);
  file.tokens = kp_tokens_count(tokens);
  kp_tokens_destroy(tokens);
  if (status == KP_OK && written != NULL) written(context, &file);
  return status;
}

static kp_status convert_each(const kp_convert_options *o, const kp_path_list *paths, const uint32_t *lengths,
                              kp_convert_written written, void *context, kp_error *error) {
  char output[KP_PATH_SIZE], folder[KP_PATH_SIZE];
  KP_TRY(kp_directory_create(o->output, error));
  for (size_t i = 0; i < paths->count; i++) {
    const char *const path = paths->list[i], *name;
    KP_TRY(kp_path_split(path, folder, &name, error));
    KP_TRY(kp_path_join(output, o->output, name, error));
    KP_TRY(convert_files(o, &path, 1, lengths, output, written, context, error));
  }
  if (o->tokenizer == NULL) return KP_OK;
  KP_TRY(kp_path_join(output, o->output, KP_TOKENIZER_FILE, error));
  return kp_path_kind_of(output) == KP_PATH_MISSING ? kp_tokenizer_save(o->tokenizer, output, error) : KP_OK;
}

static bool is_folder(const char *path) {
  const size_t length = strlen(path);
  return kp_path_kind_of(path) == KP_PATH_FOLDER || (length > 0 && path[length - 1] == '/');
}

kp_status kp_convert(const kp_convert_options *o, kp_convert_written written, void *context,
                     kp_error *error) {
  kp_path_list paths = {0};
  uint32_t *lengths = NULL;
  const bool each = kp_path_kind_of(o->input) == KP_PATH_FOLDER || is_folder(o->output);
  kp_status status = kp_token_paths_add_mixed(&paths, o->input, error);
  if (status == KP_OK && o->tokenizer != NULL) status = measure_tokens(o->tokenizer, &lengths, error);
  if (status == KP_OK && each) status = convert_each(o, &paths, lengths, written, context, error);
  if (status == KP_OK && !each)
    status = convert_files(o, (const char *const *)paths.list, paths.count, lengths, o->output, written,
                           context, error);
  free(lengths);
  kp_path_list_clear(&paths);
  return status;
}
