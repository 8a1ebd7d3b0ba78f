#include "data/labelled_encode.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/path.h"
#include "core/safetensors.h"
#include "data/batches.h"
#include "data/token_writer.h"

void kp_labelled_stream_clear(kp_labelled_stream *stream) {
  free(stream->ids);
  free(stream->tags);
  free(stream->offsets);
  free(stream->labels);
  *stream = (kp_labelled_stream){0};
}

/* ---- room ---- */

static bool resize(void **array, size_t bytes) {
  void *grown = realloc(*array, bytes);
  if (grown != NULL) *array = grown;
  return grown != NULL;
}

static kp_status room_for_tokens(kp_labelled_stream *stream, size_t more, kp_error *error) {
  if (stream->capacity - stream->count >= more) return KP_OK;
  const size_t capacity = 2 * stream->capacity + more;
  if (!resize((void **)&stream->ids, capacity * sizeof *stream->ids) ||
      !resize((void **)&stream->tags, capacity * sizeof *stream->tags))
    return kp_fail(error, KP_ERR_MEMORY, "no memory for %zu tokens", capacity);
  stream->capacity = capacity;
  return KP_OK;
}

static kp_status room_for_example(kp_labelled_stream *stream, kp_error *error) {
  if (stream->examples < stream->example_capacity) return KP_OK;
  const size_t capacity = stream->example_capacity == 0 ? 256 : 2 * stream->example_capacity;
  if (!resize((void **)&stream->offsets, (capacity + 1) * sizeof *stream->offsets) ||
      !resize((void **)&stream->labels, capacity * sizeof *stream->labels))
    return kp_fail(error, KP_ERR_MEMORY, "no memory for %zu examples", capacity);
  stream->example_capacity = capacity;
  stream->offsets[0] = 0;
  return KP_OK;
}

/* ---- encoding ---- */

static kp_status append_token(kp_labelled_stream *stream, int32_t id, kp_error *error) {
  KP_TRY(room_for_tokens(stream, 1, error));
  stream->tags[stream->count] = KP_IGNORE;
  stream->ids[stream->count++] = id;
  return KP_OK;
}

/* Appends the tokens of a text without tags. */
static kp_status append_text(kp_labelled_stream *stream, const kp_tokenizer *tokenizer, const char *text,
                             size_t size, kp_error *error) {
  int32_t *ids;
  size_t count;
  KP_TRY(kp_tokenizer_encode(tokenizer, text, size, &ids, &count, error));
  kp_status status = room_for_tokens(stream, count, error);
  for (size_t i = 0; status == KP_OK && i < count; i++) {
    stream->tags[stream->count] = KP_IGNORE;
    stream->ids[stream->count++] = ids[i];
  }
  free(ids);
  stream->text_bytes += size;
  return status;
}

/* Cuts two sentences around a separator to `room` tokens: the longer one first. */
static void cut_pair(kp_labelled_stream *stream, size_t begin, size_t first, size_t room) {
  const size_t second = stream->count - begin - first - 1, half = (room - 1) / 2;
  const size_t left = room - 1 > second + half ? room - 1 - second : room - 1 - half;
  const size_t kept = first < left ? first : left;
  int32_t *ids = stream->ids + begin;
  memmove(ids + kept, ids + first, (second + 1) * sizeof *ids);
  stream->count = begin + room;
}

static kp_status append_sentences(kp_labelled_stream *stream, const kp_labelled_piece *pieces, size_t count,
                                  const kp_labelling *labelling, const kp_tokenizer *tokenizer, bool *cut,
                                  kp_error *error) {
  const size_t begin = stream->count, room = (size_t)labelling->length;
  KP_TRY(append_text(stream, tokenizer, pieces[0].text, pieces[0].size, error));
  const size_t first = stream->count - begin;
  if (count == 2) {
    KP_TRY(append_token(stream, kp_labelling_separator(labelling), error));
    KP_TRY(append_text(stream, tokenizer, pieces[1].text, pieces[1].size, error));
  }
  if (stream->count == begin) return kp_fail(error, KP_ERR_INPUT, "the tokenizer has no tokens for it");
  *cut = stream->count - begin > room;
  if (*cut && count == 2) cut_pair(stream, begin, first, room);
  if (*cut) stream->count = begin + room;
  return KP_OK;
}

/* Whether a token is a space and nothing else. */
static bool is_space(const kp_tokenizer *tokenizer, int32_t id) {
  const char *bytes;
  size_t size;
  tokenizer->kind->token_bytes(tokenizer, id, &bytes, &size);
  return size == 1 && bytes[0] == ' ';
}

/* Appends a word, behind a space unless it is the first: " word" is one token to tokenizers that have it, or
 * a space and the word's own tokens.  The tag stands at the first token that is more than the space. */
static kp_status append_word(kp_labelled_stream *stream, const kp_labelled_piece *word, bool first,
                             const kp_tokenizer *tokenizer, kp_error *error) {
  size_t begin = stream->count;
  char *spaced = malloc(word->size + 1);
  if (spaced == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for a word of %zu bytes", word->size);
  spaced[0] = ' ';
  memcpy(spaced + 1, word->text, word->size);
  kp_status status = append_text(stream, tokenizer, first ? spaced + 1 : spaced, word->size + !first, error);
  free(spaced);
  if (status != KP_OK) return status;
  if (!first && stream->count > begin && is_space(tokenizer, stream->ids[begin])) begin++;
  if (stream->count == begin)
    return kp_fail(error, KP_ERR_INPUT, "the tokenizer has no tokens for the word '%.*s'", (int)word->size,
                   word->text);
  stream->tags[begin] = word->label;
  return KP_OK;
}

static kp_status append_words(kp_labelled_stream *stream, const kp_labelled_piece *words, size_t count,
                              const kp_labelling *labelling, const kp_tokenizer *tokenizer, bool *cut,
                              kp_error *error) {
  const size_t end = stream->count + (size_t)labelling->length;
  size_t used = 0;
  for (; used < count && stream->count < end; used++)
    KP_TRY(append_word(stream, &words[used], used == 0, tokenizer, error));
  *cut = used < count || stream->count > end;
  if (stream->count > end) stream->count = end;
  return KP_OK;
}

kp_status kp_labelled_encode(kp_labelled_stream *stream, const kp_labelled_texts *texts,
                             const kp_labelled_example *example, const kp_labelling *labelling,
                             const kp_tokenizer *tokenizer, kp_error *error) {
  const kp_labelled_piece *pieces = texts->pieces + example->first;
  const size_t begin = stream->count;
  bool cut = false;
  KP_TRY(room_for_example(stream, error));
  kp_status status = (texts->task == KP_TASK_TAG ? append_words : append_sentences)(
      stream, pieces, example->count, labelling, tokenizer, &cut, error);
  if (status != KP_OK) return kp_context(error, "%s: the example at line %zu", example->path, example->line);
  const int64_t size = (int64_t)(stream->count - begin);
  stream->truncated += cut;
  if (size > stream->longest) stream->longest = size;
  stream->labels[stream->examples++] = example->label;
  stream->offsets[stream->examples] = (int64_t)stream->count;
  return KP_OK;
}

/* ---- files ---- */

static kp_status write_tokens(const kp_labelled_stream *stream, const kp_labelling *labelling,
                              const kp_tokenizer *tokenizer, const char *path, kp_error *error) {
  kp_token_writer *writer;
  KP_TRY(kp_token_writer_create(path, kp_labelling_vocabulary(labelling), tokenizer->fingerprint, &writer,
                                error));
  kp_status status = kp_token_writer_append(writer, stream->ids, stream->count, error);
  if (status == KP_OK) return kp_token_writer_finish(writer, stream->text_bytes, error);
  kp_token_writer_abort(writer);
  return status;
}

static kp_status fill_index(kp_safetensors_writer *writer, const kp_labelled_stream *stream, bool words,
                            kp_error *error) {
  const int64_t offsets = (int64_t)stream->examples + 1;
  const int64_t labels = (int64_t)(words ? stream->count : stream->examples);
  const int32_t *values = words ? stream->tags : stream->labels;
  KP_TRY(kp_safetensors_writer_declare(writer, "offsets", KP_I64, 1, &offsets, error));
  KP_TRY(kp_safetensors_writer_declare(writer, "labels", KP_I32, 1, &labels, error));
  KP_TRY(kp_safetensors_writer_write(writer, "offsets", stream->offsets,
                                     (size_t)offsets * sizeof *stream->offsets, error));
  KP_TRY(kp_safetensors_writer_write(writer, "labels", values, (size_t)labels * sizeof *values, error));
  return kp_safetensors_writer_commit(writer, error);
}

static kp_status write_index(const kp_labelled_stream *stream, bool words, const char *path,
                             kp_error *error) {
  kp_safetensors_writer *writer;
  KP_TRY(kp_safetensors_writer_create(path, &writer, error));
  kp_status status = fill_index(writer, stream, words, error);
  kp_safetensors_writer_destroy(writer);
  return status;
}

kp_status kp_labelled_stream_write(const kp_labelled_stream *stream, const kp_labelling *labelling,
                                   const kp_tokenizer *tokenizer, const char *folder, const char *tokens,
                                   const char *index, kp_prepared_split *split, kp_labelled_counts *counts,
                                   kp_error *error) {
  char path[KP_PATH_SIZE];
  struct stat information;
  KP_TRY(kp_path_join(path, folder, index, error));
  KP_TRY(write_index(stream, labelling->task == KP_TASK_TAG, path, error));
  KP_TRY(kp_sha256_file(path, counts->sha256, error));
  counts->examples = (int64_t)stream->examples;
  counts->truncated = stream->truncated;
  counts->longest = stream->longest;
  KP_TRY(kp_path_join(path, folder, tokens, error));
  KP_TRY(write_tokens(stream, labelling, tokenizer, path, error));
  KP_TRY(kp_sha256_file(path, split->sha256, error));
  if (stat(path, &information) != 0) return kp_fail_errno(error, KP_ERR_IO, "cannot read %s", path);
  split->tokens = (int64_t)stream->count;
  split->text_bytes = (int64_t)stream->text_bytes;
  split->file_bytes = information.st_size;
  return KP_OK;
}
