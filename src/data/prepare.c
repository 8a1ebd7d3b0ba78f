#include "data/prepare.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/byte_buffer.h"
#include "data/byte_source.h"
#include "data/character_tokenizer.h"
#include "data/prepare_private.h"
#include "data/prepare_tokenizer.h"
#include "data/token_writer.h"
#include "data/utf8.h"
#include "data/word_tokenizer.h"

enum { WORD_VOCABULARY = 4096, BPE_VOCABULARY = 32768, SHARD_TOKENS = 100000000 };

/* A text in memory. */
typedef struct text {
  kp_byte_buffer bytes; /* owned */
  size_t characters;
} text;

/* The texts of a set: either `all` is split, or all of it is for training and `separate` for validation. */
typedef struct texts {
  text all, separate;
  size_t cut; /* bytes of `all` that are for training */
} texts;

static void free_texts(texts *loaded) {
  kp_byte_buffer_clear(&loaded->all.bytes);
  kp_byte_buffer_clear(&loaded->separate.bytes);
}

/* Appends a file to the text; it must be UTF-8 by itself, so that errors count from its own front. */
static kp_status append_file(text *joined, const char *path, kp_error *error) {
  const size_t before = joined->bytes.size;
  size_t characters = 0;
  KP_TRY(kp_byte_source_read(path, SIZE_MAX / 4, &joined->bytes, error));
  const size_t size = joined->bytes.size - before;
  const kp_status status = size == 0 ? kp_fail(error, KP_ERR_INPUT, "it is empty")
                                     : kp_utf8_count(joined->bytes.data + before, size, &characters, error);
  if (status != KP_OK) return kp_context(error, "text %s", path);
  joined->characters += characters;
  return KP_OK;
}

/* The byte at which character number `count` begins; the text is known to be valid. */
static size_t byte_of_character(const text *whole, size_t count) {
  size_t offset = 0;
  for (uint32_t code_point; count > 0; count--)
    offset += kp_utf8_read(whole->bytes.data + offset, whole->bytes.size - offset, &code_point);
  return offset;
}

static kp_status load_texts(const kp_prepare_options *options, double fraction, texts *loaded,
                            kp_error *error) {
  for (size_t i = 0; i < options->text_count; i++)
    KP_TRY(append_file(&loaded->all, options->texts[i], error));
  size_t train = loaded->all.characters, validation;
  if (options->validation != NULL) {
    KP_TRY(append_file(&loaded->separate, options->validation, error));
    validation = loaded->separate.characters;
  } else {
    train = (size_t)(fraction * (double)loaded->all.characters);
    validation = loaded->all.characters - train;
  }
  if (train < 2 || validation < 2)
    return kp_fail(error, KP_ERR_INPUT,
                   "the text leaves %zu characters for training and %zu for validation; each needs two: use "
                   "more text",
                   train, validation);
  loaded->cut = byte_of_character(&loaded->all, train);
  return KP_OK;
}

/* The last name of a folder's path, without the slashes that may close it. */
static void name_of_folder(const char *folder, char *out, size_t room) {
  size_t end = strlen(folder);
  while (end > 1 && folder[end - 1] == '/') end--;
  size_t begin = end;
  while (begin > 0 && folder[begin - 1] != '/') begin--;
  char last[KP_PATH_SIZE];
  snprintf(last, sizeof last, "%.*s", (int)(end - begin), folder + begin);
  kp_utf8_copy(out, room, last);
}

bool kp_prepare_learns(const kp_prepare_options *options) {
  return strcmp(options->tokenizer, "bpe") == 0;
}

static bool makes_words(const kp_prepare_options *options) {
  return strcmp(options->tokenizer, "word") == 0;
}

void kp_prepare_describe(const kp_prepare_options *options, kp_prepared *prepared) {
  const char *source = options->source != NULL ? options->source : options->texts[0];
  const char *licence = options->licence != NULL ? options->licence : "unknown";
  if (options->name != NULL)
    kp_utf8_copy(prepared->name, sizeof prepared->name, options->name);
  else
    name_of_folder(options->folder, prepared->name, sizeof prepared->name);
  kp_utf8_copy(prepared->source, sizeof prepared->source, source);
  kp_utf8_copy(prepared->licence, sizeof prepared->licence, licence);
}

/* What is known before anything is written; vocabulary 0: as many as there are characters. */
static void describe(const kp_prepare_options *options, double fraction, const texts *loaded,
                     const kp_tokenizer *given, kp_prepared *prepared) {
  const kp_byte_buffer *all = &loaded->all.bytes, *separate = &loaded->separate.bytes;
  memset(prepared, 0, sizeof *prepared);
  kp_prepare_describe(options, prepared);
  kp_sha256(all->data, all->size, prepared->text_sha256);
  if (options->validation != NULL) kp_sha256(separate->data, separate->size, prepared->separate_sha256);
  prepared->train_fraction = options->validation != NULL ? 1 : fraction;
  snprintf(prepared->tokenizer, sizeof prepared->tokenizer, "%s",
           given != NULL ? kp_tokenizer_name(given) : options->tokenizer);
  if (kp_prepare_learns(options)) {
    char request[32];
    const int length = snprintf(request, sizeof request, "bpe %d", options->vocabulary);
    kp_sha256(request, (size_t)length, prepared->request_sha256);
  }
  prepared->vocabulary = given != NULL ? given->vocabulary : makes_words(options) ? options->vocabulary : 0;
  prepared->fingerprint = given != NULL ? given->fingerprint : 0;
}

/* Whether the folder holds just this set; then *prepared becomes what its data.json says. */
static bool is_there(const char *folder, kp_prepared *prepared) {
  kp_prepared found;
  if (kp_prepared_state_of(folder) != KP_PREPARED_COMPLETE) return false;
  if (kp_prepared_read(folder, &found, NULL) != KP_OK) return false;
  /* data.json has 15 digits of the fraction. */
  bool same = strcmp(found.text_sha256, prepared->text_sha256) == 0 &&
              strcmp(found.separate_sha256, prepared->separate_sha256) == 0 &&
              fabs(found.train_fraction - prepared->train_fraction) < 1e-12 &&
              strcmp(found.tokenizer, prepared->tokenizer) == 0 &&
              strcmp(found.request_sha256, prepared->request_sha256) == 0 &&
              (prepared->vocabulary == 0 || found.vocabulary == prepared->vocabulary) &&
              (prepared->fingerprint == 0 || found.fingerprint == prepared->fingerprint) &&
              found.train.shards == 0 && strcmp(found.name, prepared->name) == 0 &&
              strcmp(found.source, prepared->source) == 0 && strcmp(found.licence, prepared->licence) == 0;
  if (!same || kp_prepared_verify(folder, &found, NULL) != KP_OK) return false;
  *prepared = found;
  return true;
}

static kp_status write_tokens(kp_token_writer *writer, const kp_tokenizer *tokenizer, const char *data,
                              size_t size, int64_t *tokens, kp_error *error) {
  enum { CHUNK = 1 << 24 };
  const kp_text_view view = {.data = data, .size = size};
  kp_ids ids = {0};
  kp_status status = KP_OK;
  *tokens = 0;
  for (size_t offset = 0; offset < size && status == KP_OK; ids.count = 0) {
    status = kp_tokenizer_append_part(tokenizer, view, &offset, CHUNK, 0, &ids, error);
    if (status == KP_OK) status = kp_token_writer_append(writer, ids.list, ids.count, error);
    *tokens += (int64_t)ids.count;
  }
  kp_ids_clear(&ids);
  return status;
}

static kp_status write_split(const char *folder, const char *name, const kp_tokenizer *tokenizer,
                             const char *data, size_t size, kp_prepared_split *split, kp_error *error) {
  char path[KP_PATH_SIZE];
  struct stat information;
  kp_token_writer *writer;
  KP_TRY(kp_path_join(path, folder, name, error));
  KP_TRY(kp_token_writer_create(path, tokenizer->vocabulary, tokenizer->fingerprint, &writer, error));
  kp_status status = write_tokens(writer, tokenizer, data, size, &split->tokens, error);
  if (status != KP_OK) {
    kp_token_writer_abort(writer);
    return status;
  }
  KP_TRY(kp_token_writer_finish(writer, size, error));
  KP_TRY(kp_sha256_file(path, split->sha256, error));
  if (stat(path, &information) != 0) return kp_fail_errno(error, KP_ERR_IO, "cannot read %s", path);
  split->file_bytes = information.st_size;
  split->text_bytes = (int64_t)size;
  return KP_OK;
}

static kp_status write_set(const char *folder, const kp_tokenizer *tokenizer, const texts *loaded,
                           kp_prepared *prepared, kp_error *error) {
  char path[KP_PATH_SIZE];
  const kp_byte_buffer *all = &loaded->all.bytes, *separate = &loaded->separate.bytes;
  bool split = separate->data == NULL;
  prepared->vocabulary = tokenizer->vocabulary;
  prepared->fingerprint = tokenizer->fingerprint;
  snprintf(prepared->tokenizer, sizeof prepared->tokenizer, "%s", kp_tokenizer_name(tokenizer));
  KP_TRY(kp_prepared_begin(folder, error));
  KP_TRY(kp_path_join(path, folder, KP_TOKENIZER_FILE, error));
  KP_TRY(kp_tokenizer_save(tokenizer, path, error));
  KP_TRY(write_split(folder, KP_TRAIN_FILE, tokenizer, all->data, loaded->cut, &prepared->train, error));
  KP_TRY(write_split(folder, KP_VALIDATION_FILE, tokenizer, split ? all->data + loaded->cut : separate->data,
                     split ? all->size - loaded->cut : separate->size, &prepared->validation, error));
  return kp_prepared_write(folder, prepared, error);
}

/* The tokenizer of the training text; of characters and words the alphabet has those of the validation text
 * too. */
static kp_status create_tokenizer(const kp_prepare_options *options, const texts *loaded,
                                  kp_tokenizer **tokenizer, kp_error *error) {
  const kp_byte_buffer *all = &loaded->all.bytes, *separate = &loaded->separate.bytes;
  const char *data[] = {all->data, all->data + loaded->cut, separate->data};
  const size_t sizes[] = {loaded->cut, all->size - loaded->cut, separate->size};
  if (kp_prepare_learns(options)) {
    KP_TRY(kp_prepared_begin(options->folder, error));
    return kp_prepare_learn_text(options, (kp_text_view){all->data, loaded->cut}, tokenizer, error);
  }
  return makes_words(options)
             ? kp_word_tokenizer_create(data, sizes, 3, 1, options->vocabulary, tokenizer, error)
             : kp_character_tokenizer_create(data, sizes, 3, tokenizer, error);
}

/* With the folder's lock held. */
static kp_status prepare_locked(const kp_prepare_options *options, const texts *loaded,
                                const kp_tokenizer *given, kp_prepared *prepared, bool *fresh,
                                kp_error *error) {
  const char *folder = options->folder;
  *fresh = false;
  if (is_there(folder, prepared)) return KP_OK;
  KP_TRY(kp_prepared_claim(folder, error));
  kp_tokenizer *made = NULL;
  if (given == NULL) KP_TRY(create_tokenizer(options, loaded, &made, error));
  kp_status status = write_set(folder, given == NULL ? made : given, loaded, prepared, error);
  kp_tokenizer_destroy(made);
  *fresh = status == KP_OK;
  return status;
}

static kp_status prepare_folder(const kp_prepare_options *options, const texts *loaded,
                                const kp_tokenizer *given, kp_prepared *prepared, bool *fresh,
                                kp_error *error) {
  kp_lock *lock = NULL;
  KP_TRY(kp_prepared_lock(options->folder, &lock, error));
  kp_status status = prepare_locked(options, loaded, given, prepared, fresh, error);
  kp_lock_release(lock);
  return status;
}

/* Whether the vocabulary is the text's own, which must therefore be whole. */
static bool makes_tokenizer(const kp_prepare_options *options) {
  return makes_words(options) || strcmp(options->tokenizer, "character") == 0;
}

/* Whether the inputs are files of plain text, nothing else: neither JSON, nor folders, patterns or pipes. */
static bool are_plain_files(const kp_prepare_options *o) {
  for (size_t i = 0; i < o->text_count; i++) {
    const char *path = o->texts[i];
    const kp_path_kind kind = kp_path_kind_of(path);
    const bool pattern = kind == KP_PATH_MISSING && strpbrk(path, "*?[") != NULL;
    if (kind == KP_PATH_FOLDER || pattern || strcmp(path, KP_STANDARD_INPUT) == 0 ||
        kp_document_format_of(path) != KP_DOCUMENTS_TEXT)
      return false;
  }
  return true;
}

/* Of a single text nobody says where its documents end; several are documents for a tokenizer with an end. */
static kp_prepare_split split_by_input(const kp_prepare_options *o) {
  const bool whole = are_plain_files(o) && o->separator == NULL && o->format == KP_DOCUMENTS_BY_NAME;
  return whole && (makes_tokenizer(o) || o->text_count == 1) ? KP_PREPARE_CHARACTERS : KP_PREPARE_DOCUMENTS;
}

/* The options with what 0 and NULL mean in them. */
static kp_status complete(const kp_prepare_options *given, kp_prepare_options *options, kp_error *error) {
  *options = *given;
  if (options->train_fraction == 0) options->train_fraction = 0.9;
  if (options->tokenizer == NULL) options->tokenizer = "character";
  if (options->vocabulary == 0)
    options->vocabulary = kp_prepare_learns(options) ? BPE_VOCABULARY : WORD_VOCABULARY;
  if (options->shard_tokens == 0) options->shard_tokens = SHARD_TOKENS;
  if (options->text_count == 0) return kp_fail(error, KP_ERR_INPUT, "no text was named to prepare");
  if (!(options->train_fraction > 0 && options->train_fraction < 1))
    return kp_fail(error, KP_ERR_INPUT, "the train fraction is %g; it must lie between 0 and 1",
                   options->train_fraction);
  if (options->vocabulary < 1)
    return kp_fail(error, KP_ERR_INPUT, "a vocabulary of %d holds nothing", options->vocabulary);
  const bool made = makes_tokenizer(options) || kp_prepare_learns(options);
  if (!made && kp_path_kind_of(options->tokenizer) == KP_PATH_MISSING)
    return kp_fail(
        error, KP_ERR_INPUT,
        "there is no tokenizer '%s'; choose 'character', 'word', 'bpe', or the file or folder of one",
        options->tokenizer);
  if (options->split == KP_PREPARE_BY_INPUT) options->split = split_by_input(options);
  if (options->split == KP_PREPARE_DOCUMENTS && makes_tokenizer(options))
    return kp_fail(
        error, KP_ERR_INPUT,
        "the tokenizer '%s' is for whole texts; for documents give the file or folder of one, or 'bpe'",
        options->tokenizer);
  return KP_OK;
}

static kp_status prepare_characters(const kp_prepare_options *options, kp_prepared *prepared, bool *fresh,
                                    kp_error *error) {
  texts loaded = {0};
  kp_tokenizer *given = NULL;
  kp_status status = KP_OK;
  if (!makes_tokenizer(options) && !kp_prepare_learns(options))
    status = kp_tokenizer_open(options->tokenizer, &given, error);
  if (status == KP_OK) status = load_texts(options, options->train_fraction, &loaded, error);
  if (status == KP_OK) {
    describe(options, options->train_fraction, &loaded, given, prepared);
    status = prepare_folder(options, &loaded, given, prepared, fresh, error);
  }
  free_texts(&loaded);
  kp_tokenizer_destroy(given);
  return status;
}

kp_status kp_prepare(const kp_prepare_options *given, kp_prepared *prepared, bool *fresh, kp_error *error) {
  kp_prepare_options options;
  KP_TRY(complete(given, &options, error));
  *fresh = false;
  return (options.split == KP_PREPARE_DOCUMENTS ? kp_prepare_documents
                                                : prepare_characters)(&options, prepared, fresh, error);
}

kp_status kp_data_folder(char out[KP_PATH_SIZE], kp_error *error) {
  const char *named = getenv("KAPPA_DATA");
  return kp_path_join(out, "", named != NULL && named[0] != 0 ? named : "data", error);
}
