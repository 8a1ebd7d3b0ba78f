#include "data/labelled_prepare.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/path.h"
#include "data/character_tokenizer.h"
#include "data/labelled_encode.h"
#include "data/utf8.h"
#include "data/word_tokenizer.h"

enum { WORD_VOCABULARY = 4096, LENGTH_DEFAULT = 256, LENGTH_LEAST = 4, LENGTH_MOST = 1 << 20 };

/* A request at work. */
typedef struct work {
  const kp_labelled_prepare_options *options;
  kp_labelled_texts all,
      separate; /* as in data/prepare.c: either `all` is split, or validation is separate */
  double fraction;
  kp_labelling *labelling;
  kp_prepared *prepared;
  kp_tokenizer *tokenizer;
} work;

/* ---- reading ---- */

static kp_status read_file(work *w, kp_labelled_texts *texts, const char *path, kp_error *error) {
  kp_labelled_format format = w->options->format;
  format.layout = kp_labelled_layout_of(w->options->task, path);
  return kp_labelled_texts_read(texts, &format, path, error);
}

/* Labels of `like` are all that there may be. */
static kp_status take_like(work *w, kp_error *error) {
  kp_labelling like;
  KP_TRY(kp_labelling_read(w->options->like, &like, error));
  if (like.task != w->options->task) {
    kp_labelling_clear(&like);
    return kp_fail(error, KP_ERR_INPUT, "%s is a set for another task than %s", w->options->like,
                   kp_task_name(w->options->task));
  }
  w->labelling->labels = like.labels;
  return kp_tokenizer_open(w->options->like, &w->tokenizer, error);
}

/* One that is there already, unless the tokenizer is to be made of the examples. */
static kp_status open_tokenizer(work *w, kp_error *error) {
  const char *which = w->options->tokenizer;
  const bool made = which == NULL || strcmp(which, "character") == 0 || strcmp(which, "word") == 0;
  return made ? KP_OK : kp_tokenizer_open(which, &w->tokenizer, error);
}

static void renumber(kp_labelled_texts *texts, const int32_t *renumbered) {
  for (size_t i = 0; i < texts->example_count; i++)
    if (texts->examples[i].label >= 0) texts->examples[i].label = renumbered[texts->examples[i].label];
  for (size_t i = 0; i < texts->piece_count; i++)
    if (texts->pieces[i].label >= 0) texts->pieces[i].label = renumbered[texts->pieces[i].label];
}

static kp_status read_files(work *w, kp_error *error) {
  int32_t renumbered[KP_LABELS_MOST];
  const kp_labelled_prepare_options *options = w->options;
  kp_label_set *labels = &w->labelling->labels;
  for (size_t i = 0; i < options->file_count; i++) KP_TRY(read_file(w, &w->all, options->files[i], error));
  if (options->validation != NULL) KP_TRY(read_file(w, &w->separate, options->validation, error));
  if (labels->count < 2)
    return kp_fail(error, KP_ERR_INPUT, "all examples have the label '%s'; learning needs two",
                   labels->names[0]);
  kp_label_set_sort(labels, renumbered);
  labels->closed = true;
  renumber(&w->all, renumbered);
  renumber(&w->separate, renumbered);
  return KP_OK;
}

/* ---- what is asked for ---- */

static void print_word(FILE *out, const char *word) {
  fprintf(out, "%zu:%s\n", word == NULL ? (size_t)0 : strlen(word), word == NULL ? "" : word);
}

static kp_status print_file(FILE *out, const char *path, kp_error *error) {
  char sha256[KP_SHA256_HEX_SIZE];
  KP_TRY(kp_sha256_file(path, sha256, error));
  print_word(out, sha256);
  return KP_OK;
}

/* Of the word tokenizer that is asked for; 0: characters. */
static int32_t word_vocabulary(const kp_labelled_prepare_options *options) {
  if (options->tokenizer == NULL || strcmp(options->tokenizer, "word") != 0) return 0;
  return options->vocabulary > 0 ? options->vocabulary : WORD_VOCABULARY;
}

/* The request: files, how they are read, and what is made of them. */
static kp_status print_request(FILE *out, const void *context, kp_error *error) {
  const work *w = context;
  const kp_labelled_prepare_options *o = w->options;
  fprintf(out, "%s %lld %.15g %d %d %016llx\n", kp_task_name(o->task), (long long)w->labelling->length,
          w->fraction, o->format.header, word_vocabulary(o),
          (unsigned long long)(w->tokenizer == NULL ? 0 : w->tokenizer->fingerprint));
  print_word(out, o->format.text);
  print_word(out, o->format.second);
  print_word(out, o->format.label);
  for (int32_t i = 0; o->like != NULL && i < w->labelling->labels.count; i++)
    print_word(out, w->labelling->labels.names[i]);
  for (size_t i = 0; i < o->file_count; i++) KP_TRY(print_file(out, o->files[i], error));
  return o->validation == NULL ? KP_OK : print_file(out, o->validation, error);
}

static kp_status describe(work *w, kp_error *error) {
  const kp_labelled_prepare_options *o = w->options;
  kp_prepared *prepared = w->prepared;
  *prepared = (kp_prepared){.train_fraction = w->fraction};
  kp_utf8_copy(prepared->name, sizeof prepared->name, o->name);
  kp_utf8_copy(prepared->source, sizeof prepared->source, o->source != NULL ? o->source : o->files[0]);
  kp_utf8_copy(prepared->licence, sizeof prepared->licence, o->licence != NULL ? o->licence : "unknown");
  if (o->validation != NULL) KP_TRY(kp_sha256_file(o->validation, prepared->separate_sha256, error));
  return kp_sha256_printed(print_request, w, prepared->text_sha256, error);
}

/* ---- tokenizer and split ---- */

/* Uniform in [0, 1): a hash of the first sentence, or of all words. */
static double place_of(const kp_labelled_texts *texts, const kp_labelled_example *example) {
  const size_t count = texts->task == KP_TASK_TAG ? example->count : 1;
  uint64_t hash = KP_FNV_BASIS;
  for (size_t i = 0; i < count; i++) {
    const kp_labelled_piece *piece = &texts->pieces[example->first + i];
    hash = kp_fnv(kp_fnv(hash, piece->text, piece->size), "\n", 1);
  }
  /* The last bytes barely reach the upper bits: two rounds of multiplication spread them. */
  hash = (hash ^ hash >> 32) * UINT64_C(0x9E3779B97F4A7C15);
  hash = (hash ^ hash >> 29) * UINT64_C(0xBF58476D1CE4E5B9);
  return (double)(hash >> 11) * 0x1p-53;
}

/* Whether an example is for training (0) or validation (1). */
static int side_of(const work *w, const kp_labelled_texts *texts, const kp_labelled_example *example) {
  if (texts == &w->separate) return 1;
  return w->options->validation == NULL && place_of(texts, example) >= w->fraction;
}

/* The texts that a tokenizer is made for: sentences, or the words of a sentence with spaces in between. */
typedef struct corpus {
  char *words; /* owned; NULL for sentences, which stand in the files' bytes */
  const char **texts;
  size_t *sizes;
  size_t count, training; /* those of training stand in front */
} corpus;

static void free_corpus(corpus *c) {
  free(c->words);
  free(c->texts);
  free(c->sizes);
}

static kp_status create_corpus(const work *w, corpus *c, kp_error *error) {
  const size_t most = w->all.piece_count + w->separate.piece_count;
  size_t bytes = most;
  for (size_t i = 0; i < w->all.piece_count; i++) bytes += w->all.pieces[i].size;
  for (size_t i = 0; i < w->separate.piece_count; i++) bytes += w->separate.pieces[i].size;
  *c = (corpus){.texts = malloc(most * sizeof *c->texts), .sizes = malloc(most * sizeof *c->sizes)};
  if (w->options->task == KP_TASK_TAG) c->words = malloc(bytes);
  if (c->texts != NULL && c->sizes != NULL && (c->words != NULL || w->options->task != KP_TASK_TAG))
    return KP_OK;
  free_corpus(c);
  return kp_fail(error, KP_ERR_MEMORY, "no memory to collect %zu texts", most);
}

static void add_text(corpus *c, const char *text, size_t size) {
  c->texts[c->count] = text;
  c->sizes[c->count++] = size;
}

/* Adds an example; *end is where the words written so far end. */
static void add_example(corpus *c, const kp_labelled_texts *texts, const kp_labelled_example *example,
                        char **end) {
  const kp_labelled_piece *pieces = texts->pieces + example->first;
  char *begin = *end;
  for (size_t i = 0; i < example->count; i++) {
    if (c->words == NULL) {
      add_text(c, pieces[i].text, pieces[i].size);
      continue;
    }
    if (i > 0) *(*end)++ = ' ';
    memcpy(*end, pieces[i].text, pieces[i].size);
    *end += pieces[i].size;
  }
  if (c->words != NULL) add_text(c, begin, (size_t)(*end - begin));
}

static void fill_corpus(const work *w, corpus *c) {
  const kp_labelled_texts *parts[] = {&w->all, &w->separate};
  char *end = c->words;
  for (int side = 0; side < 2; side++) {
    for (int part = 0; part < 2; part++)
      for (size_t i = 0; i < parts[part]->example_count; i++)
        if (side_of(w, parts[part], &parts[part]->examples[i]) == side)
          add_example(c, parts[part], &parts[part]->examples[i], &end);
    if (side == 0) c->training = c->count;
  }
}

static kp_status create_tokenizer(work *w, kp_error *error) {
  corpus c;
  KP_TRY(create_corpus(w, &c, error));
  fill_corpus(w, &c);
  const int32_t words = word_vocabulary(w->options);
  kp_status status =
      words == 0
          ? kp_character_tokenizer_create(c.texts, c.sizes, c.count, &w->tokenizer, error)
          : kp_word_tokenizer_create(c.texts, c.sizes, c.count, c.training, words, &w->tokenizer, error);
  free_corpus(&c);
  return status;
}

static kp_status encode_texts(const work *w, const kp_labelled_texts *texts, kp_labelled_stream streams[2],
                              kp_error *error) {
  for (size_t i = 0; i < texts->example_count; i++) {
    const kp_labelled_example *example = &texts->examples[i];
    KP_TRY(kp_labelled_encode(&streams[side_of(w, texts, example)], texts, example, w->labelling,
                              w->tokenizer, error));
  }
  return KP_OK;
}

static kp_status encode_all(const work *w, kp_labelled_stream streams[2], kp_error *error) {
  KP_TRY(encode_texts(w, &w->all, streams, error));
  KP_TRY(encode_texts(w, &w->separate, streams, error));
  if (streams[0].examples > 0 && streams[1].examples > 0) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT,
                 "there are %zu examples for training and %zu for validation: give more examples, or a file "
                 "for validation",
                 streams[0].examples, streams[1].examples);
}

/* ---- the folder ---- */

static kp_status write_set(const work *w, const kp_labelled_stream streams[2], kp_error *error) {
  char path[KP_PATH_SIZE];
  const char *folder = w->options->folder;
  kp_prepared *prepared = w->prepared;
  prepared->vocabulary = kp_labelling_vocabulary(w->labelling);
  prepared->fingerprint = w->tokenizer->fingerprint;
  snprintf(prepared->tokenizer, sizeof prepared->tokenizer, "%s", kp_tokenizer_name(w->tokenizer));
  KP_TRY(kp_prepared_begin(folder, error));
  KP_TRY(kp_path_join(path, folder, KP_TOKENIZER_FILE, error));
  KP_TRY(kp_tokenizer_save(w->tokenizer, path, error));
  KP_TRY(kp_labelled_stream_write(&streams[0], w->labelling, w->tokenizer, folder, KP_TRAIN_FILE,
                                  KP_TRAIN_EXAMPLES_FILE, &prepared->train, &w->labelling->train, error));
  KP_TRY(kp_labelled_stream_write(&streams[1], w->labelling, w->tokenizer, folder, KP_VALIDATION_FILE,
                                  KP_VALIDATION_EXAMPLES_FILE, &prepared->validation,
                                  &w->labelling->validation, error));
  KP_TRY(kp_labelling_write(folder, w->labelling, error));
  return kp_prepared_write(folder, prepared, error);
}

static bool file_is(const char *folder, const char *name, const char *sha256) {
  char path[KP_PATH_SIZE], found[KP_SHA256_HEX_SIZE];
  return kp_path_join(path, folder, name, NULL) == KP_OK && kp_sha256_file(path, found, NULL) == KP_OK &&
         strcmp(found, sha256) == 0;
}

/* Whether the folder holds just this set; then *prepared and *labelling become what it says. */
static bool is_there(const work *w) {
  const char *folder = w->options->folder;
  kp_prepared found;
  kp_labelling labelling;
  if (kp_prepared_state_of(folder) != KP_PREPARED_COMPLETE) return false;
  if (kp_prepared_read(folder, &found, NULL) != KP_OK) return false;
  const bool same = strcmp(found.text_sha256, w->prepared->text_sha256) == 0 &&
                    strcmp(found.name, w->prepared->name) == 0 &&
                    strcmp(found.source, w->prepared->source) == 0 &&
                    strcmp(found.licence, w->prepared->licence) == 0;
  if (!same || kp_prepared_verify(folder, &found, NULL) != KP_OK) return false;
  if (kp_labelling_read(folder, &labelling, NULL) != KP_OK) return false;
  const bool whole = file_is(folder, KP_TRAIN_EXAMPLES_FILE, labelling.train.sha256) &&
                     file_is(folder, KP_VALIDATION_EXAMPLES_FILE, labelling.validation.sha256);
  kp_labelling_clear(whole ? w->labelling : &labelling);
  if (!whole) return false;
  *w->labelling = labelling;
  *w->prepared = found;
  return true;
}

/* With the folder's lock held. */
static kp_status prepare_locked(work *w, bool *fresh, kp_error *error) {
  const char *folder = w->options->folder;
  *fresh = false;
  if (is_there(w)) return KP_OK;
  KP_TRY(kp_prepared_claim(folder, error));
  if (w->tokenizer == NULL) KP_TRY(create_tokenizer(w, error));
  w->labelling->vocabulary = w->tokenizer->vocabulary;
  kp_labelled_stream streams[2] = {0};
  kp_status status = encode_all(w, streams, error);
  if (status == KP_OK) status = write_set(w, streams, error);
  kp_labelled_stream_clear(&streams[0]);
  kp_labelled_stream_clear(&streams[1]);
  *fresh = status == KP_OK;
  return status;
}

static kp_status prepare_folder(work *w, bool *fresh, kp_error *error) {
  kp_lock *lock = NULL;
  KP_TRY(kp_prepared_lock(w->options->folder, &lock, error));
  kp_status status = prepare_locked(w, fresh, error);
  kp_lock_release(lock);
  return status;
}

static kp_status check(const work *w, kp_error *error) {
  if (w->options->file_count == 0) return kp_fail(error, KP_ERR_INPUT, "no file was named to prepare");
  if (w->options->validation == NULL && !(w->fraction > 0 && w->fraction < 1))
    return kp_fail(error, KP_ERR_INPUT, "the train fraction is %g; it must lie between 0 and 1", w->fraction);
  if (w->labelling->length < LENGTH_LEAST || w->labelling->length > LENGTH_MOST)
    return kp_fail(error, KP_ERR_INPUT, "a length of %lld tokens is outside %d to %d",
                   (long long)w->labelling->length, LENGTH_LEAST, LENGTH_MOST);
  return KP_OK;
}

kp_status kp_prepare_labelled(const kp_labelled_prepare_options *options, kp_prepared *prepared,
                              kp_labelling *labelling, bool *fresh, kp_error *error) {
  *labelling = (kp_labelling){.task = options->task,
                              .length = options->length == 0 ? LENGTH_DEFAULT : options->length};
  work w = {.options = options,
            .all = {.task = options->task, .labels = &labelling->labels},
            .separate = {.task = options->task, .labels = &labelling->labels},
            .fraction = options->validation != NULL    ? 1
                        : options->train_fraction == 0 ? 0.9
                                                       : options->train_fraction,
            .labelling = labelling,
            .prepared = prepared};
  kp_status status = check(&w, error);
  if (status == KP_OK) status = options->like != NULL ? take_like(&w, error) : open_tokenizer(&w, error);
  if (status == KP_OK) status = describe(&w, error);
  if (status == KP_OK) status = read_files(&w, error);
  if (status == KP_OK) status = prepare_folder(&w, fresh, error);
  kp_labelled_texts_clear(&w.all);
  kp_labelled_texts_clear(&w.separate);
  kp_tokenizer_destroy(w.tokenizer);
  if (status != KP_OK) kp_labelling_clear(labelling);
  return status;
}
