#include "data/prepare.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/directory.h"
#include "core/file.h"
#include "core/lock.h"
#include "data/character_tokenizer.h"
#include "data/token_writer.h"
#include "data/utf8.h"
#include "data/word_tokenizer.h"

enum { WORD_VOCABULARY = 4096 };

/* A text in memory. */
typedef struct text {
  char *data; /* owned */
  size_t size;
  size_t characters;
} text;

/* The texts of a set: either `all` is split, or all of it is for training and `separate` for validation. */
typedef struct texts {
  text all, separate;
  size_t cut; /* bytes of `all` that are for training */
} texts;

static void free_texts(texts *loaded) {
  free(loaded->all.data);
  free(loaded->separate.data);
}

/* Appends a file to the text; it must be UTF-8 by itself, so that errors count from its own front. */
static kp_status append_file(text *joined, const char *path, kp_error *error) {
  char *data = NULL;
  size_t size = 0, characters = 0;
  KP_TRY(kp_file_read_all(path, SIZE_MAX / 4, &data, &size, error));
  kp_status status =
      size == 0 ? kp_fail(error, KP_ERR_INPUT, "it is empty") : kp_utf8_count(data, size, &characters, error);
  if (status != KP_OK) {
    free(data);
    return kp_context(error, "text %s", path);
  }
  char *grown = joined->size == 0 ? data : realloc(joined->data, joined->size + size);
  if (grown == NULL) {
    free(data);
    return kp_fail(error, KP_ERR_MEMORY, "no memory for the %zu bytes of text %s", size, path);
  }
  if (grown != data) {
    memcpy(grown + joined->size, data, size);
    free(data);
  }
  joined->data = grown;
  joined->size += size;
  joined->characters += characters;
  return KP_OK;
}

/* The byte at which character number `count` begins; the text is known to be valid. */
static size_t byte_of_character(const text *whole, size_t count) {
  size_t offset = 0;
  for (uint32_t code_point; count > 0; count--)
    offset += kp_utf8_read(whole->data + offset, whole->size - offset, &code_point);
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

static bool makes_words(const kp_prepare_options *options) {
  return strcmp(options->tokenizer, "word") == 0;
}

/* What is known before anything is written; vocabulary 0: as many as there are characters. */
static void describe(const kp_prepare_options *options, double fraction, const texts *loaded,
                     kp_prepared *prepared) {
  const char *source = options->source != NULL ? options->source : options->texts[0];
  const char *licence = options->licence != NULL ? options->licence : "unknown";
  memset(prepared, 0, sizeof *prepared);
  if (options->name != NULL)
    kp_utf8_copy(prepared->name, sizeof prepared->name, options->name);
  else
    name_of_folder(options->folder, prepared->name, sizeof prepared->name);
  kp_utf8_copy(prepared->source, sizeof prepared->source, source);
  kp_utf8_copy(prepared->licence, sizeof prepared->licence, licence);
  kp_sha256(loaded->all.data, loaded->all.size, prepared->text_sha256);
  if (options->validation != NULL)
    kp_sha256(loaded->separate.data, loaded->separate.size, prepared->separate_sha256);
  prepared->train_fraction = options->validation != NULL ? 1 : fraction;
  snprintf(prepared->tokenizer, sizeof prepared->tokenizer, "%s", options->tokenizer);
  prepared->vocabulary = makes_words(options) ? options->vocabulary : 0;
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
              (prepared->vocabulary == 0 || found.vocabulary == prepared->vocabulary) &&
              strcmp(found.name, prepared->name) == 0 && strcmp(found.source, prepared->source) == 0 &&
              strcmp(found.licence, prepared->licence) == 0;
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
  const text *all = &loaded->all, *separate = &loaded->separate;
  bool split = separate->data == NULL;
  prepared->vocabulary = tokenizer->vocabulary;
  prepared->fingerprint = tokenizer->fingerprint;
  KP_TRY(kp_prepared_begin(folder, error));
  KP_TRY(kp_path_join(path, folder, KP_TOKENIZER_FILE, error));
  KP_TRY(kp_tokenizer_save(tokenizer, path, error));
  KP_TRY(write_split(folder, KP_TRAIN_FILE, tokenizer, all->data, loaded->cut, &prepared->train, error));
  KP_TRY(write_split(folder, KP_VALIDATION_FILE, tokenizer, split ? all->data + loaded->cut : separate->data,
                     split ? all->size - loaded->cut : separate->size, &prepared->validation, error));
  return kp_prepared_write(folder, prepared, error);
}

/* The tokenizer of the training text, whose alphabet has the characters of the validation text too. */
static kp_status create_tokenizer(const texts *loaded, int32_t vocabulary, kp_tokenizer **tokenizer,
                                  kp_error *error) {
  const text *all = &loaded->all, *separate = &loaded->separate;
  const char *data[] = {all->data, all->data + loaded->cut, separate->data};
  const size_t sizes[] = {loaded->cut, all->size - loaded->cut, separate->size};
  return vocabulary == 0 ? kp_character_tokenizer_create(data, sizes, 3, tokenizer, error)
                         : kp_word_tokenizer_create(data, sizes, 3, 1, vocabulary, tokenizer, error);
}

/* With the folder's lock held. */
static kp_status prepare_locked(const char *folder, const texts *loaded, kp_prepared *prepared, bool *fresh,
                                kp_error *error) {
  *fresh = false;
  if (is_there(folder, prepared)) return KP_OK;
  if (kp_prepared_state_of(folder) == KP_PREPARED_FOREIGN)
    return kp_fail(
        error, KP_ERR_INPUT,
        "folder %s holds data that kappa did not write, which is never replaced: choose another folder",
        folder);
  KP_TRY(kp_directory_remove_temporaries(folder, error));
  kp_tokenizer *tokenizer;
  KP_TRY(create_tokenizer(loaded, prepared->vocabulary, &tokenizer, error));
  kp_status status = write_set(folder, tokenizer, loaded, prepared, error);
  kp_tokenizer_destroy(tokenizer);
  *fresh = status == KP_OK;
  return status;
}

static kp_status prepare_folder(const char *folder, const texts *loaded, kp_prepared *prepared, bool *fresh,
                                kp_error *error) {
  char path[KP_PATH_SIZE];
  kp_lock *lock = NULL;
  KP_TRY(kp_directory_create(folder, error));
  KP_TRY(kp_path_join(path, folder, ".prepare.lock", error));
  KP_TRY(kp_lock_acquire(path, &lock, error));
  kp_status status = prepare_locked(folder, loaded, prepared, fresh, error);
  kp_lock_release(lock);
  return status;
}

/* The options with what 0 and NULL mean in them. */
static kp_status complete(const kp_prepare_options *given, kp_prepare_options *options, kp_error *error) {
  *options = *given;
  if (options->train_fraction == 0) options->train_fraction = 0.9;
  if (options->tokenizer == NULL) options->tokenizer = "character";
  if (options->vocabulary == 0) options->vocabulary = WORD_VOCABULARY;
  if (options->text_count == 0) return kp_fail(error, KP_ERR_INPUT, "no text was named to prepare");
  if (!(options->train_fraction > 0 && options->train_fraction < 1))
    return kp_fail(error, KP_ERR_INPUT, "the train fraction is %g; it must lie between 0 and 1",
                   options->train_fraction);
  if (!makes_words(options) && strcmp(options->tokenizer, "character") != 0)
    return kp_fail(error, KP_ERR_INPUT, "there is no tokenizer '%s'; choose 'character' or 'word'",
                   options->tokenizer);
  if (options->vocabulary < 1)
    return kp_fail(error, KP_ERR_INPUT, "a vocabulary of %d holds nothing", options->vocabulary);
  return KP_OK;
}

kp_status kp_prepare(const kp_prepare_options *given, kp_prepared *prepared, bool *fresh, kp_error *error) {
  kp_prepare_options options;
  texts loaded = {0};
  KP_TRY(complete(given, &options, error));
  kp_status status = load_texts(&options, options.train_fraction, &loaded, error);
  if (status == KP_OK) {
    describe(&options, options.train_fraction, &loaded, prepared);
    status = prepare_folder(options.folder, &loaded, prepared, fresh, error);
  }
  free_texts(&loaded);
  return status;
}

kp_status kp_data_folder(char out[KP_PATH_SIZE], kp_error *error) {
  const char *named = getenv("KAPPA_DATA");
  return kp_path_join(out, "", named != NULL && named[0] != 0 ? named : "data", error);
}
