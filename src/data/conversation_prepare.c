#include "data/conversation_prepare.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/byte_source.h"
#include "data/character_tokenizer.h"
#include "data/token_writer.h"
#include "data/utf8.h"
#include "data/word_tokenizer.h"

enum { TRAIN, VALIDATION, SIDES };
enum { WORD_VOCABULARY = 4096, LENGTH_LEAST = 16, LENGTH_MOST = 1 << 24 };

/* What becomes a token file and its index. */
typedef struct stream {
  kp_masked_ids list;
  int64_t *offsets;
  size_t offset_capacity;
  kp_conversation_counts counts;
  int64_t text_bytes;
} stream;

/* A request at work. */
typedef struct work {
  kp_conversation_prepare_options options; /* complete */
  kp_conversation_report *report;
  kp_documents *documents[SIDES]; /* the second is NULL without a validation file */
  kp_conversations conversations;
  size_t separate; /* those from here on are of the validation file */
  kp_tokenizer *tokenizer;
  stream streams[SIDES];
} work;

static void clear(work *w) {
  kp_conversations_clear(&w->conversations);
  kp_tokenizer_destroy(w->tokenizer);
  for (int side = 0; side < SIDES; side++) {
    kp_documents_close(w->documents[side]);
    kp_masked_ids_clear(&w->streams[side].list);
    free(w->streams[side].offsets);
  }
}

/* ---- reading ---- */

static kp_status read_files(work *w, int side, const char *const *files, size_t count, kp_error *error) {
  const kp_conversation_prepare_options *o = &w->options;
  const bool text = !o->reading.any && kp_conversation_format_is_text(o->reading.format);
  const kp_documents_options documents = {.paths = files,
                                          .path_count = count,
                                          .format = o->reading.any ? KP_DOCUMENTS_BY_NAME
                                                    : text         ? KP_DOCUMENTS_TEXT
                                                                   : KP_DOCUMENTS_JSON,
                                          .objects = true,
                                          .replace_invalid = o->replace_invalid};
  for (size_t i = 0; i < count; i++)
    if (o->reading.any && strcmp(files[i], KP_STANDARD_INPUT) == 0)
      return kp_fail(
          error, KP_ERR_INPUT,
          "standard input has no name that tells its format: say messages, sharegpt, alpaca, chatml "
          "or plain (--format)");
  KP_TRY(kp_documents_open(&documents, &w->documents[side], error));
  return kp_conversations_read(&w->conversations, w->documents[side], &o->reading, error);
}

static kp_status read_all(work *w, kp_error *error) {
  const kp_conversation_prepare_options *o = &w->options;
  KP_TRY(read_files(w, TRAIN, o->files, o->file_count, error));
  w->separate = w->conversations.count;
  if (o->validation != NULL) KP_TRY(read_files(w, VALIDATION, &o->validation, 1, error));
  if (w->conversations.count > 0) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "there is no conversation in %s%s", o->files[0],
                 o->file_count > 1 ? " and the other files" : "");
}

/* ---- split ---- */

/* Uniform in [0, 1): a hash of all turns. */
static double place_of(const kp_conversation *c) {
  uint64_t hash = KP_FNV_BASIS;
  for (size_t i = 0; i < c->count; i++) {
    const char *role = kp_speaker_text(c->turns[i].role);
    hash = kp_fnv(hash, role, strlen(role) + 1);
    hash = kp_fnv(kp_fnv(hash, c->text + c->turns[i].begin, c->turns[i].size), "", 1);
  }
  /* The last bytes barely reach the upper bits: two rounds of multiplication spread them. */
  hash = (hash ^ hash >> 32) * UINT64_C(0x9E3779B97F4A7C15);
  hash = (hash ^ hash >> 29) * UINT64_C(0xBF58476D1CE4E5B9);
  return (double)(hash >> 11) * 0x1p-53;
}

static int side_of(const work *w, size_t index) {
  if (w->options.validation != NULL) return index >= w->separate;
  const kp_conversation c = kp_conversations_at(&w->conversations, index);
  return place_of(&c) >= w->options.train_fraction;
}

/* ---- tokenizer ---- */

static bool makes_words(const work *w) {
  return strcmp(w->options.tokenizer, "word") == 0;
}

static bool makes_tokenizer(const work *w) {
  return makes_words(w) || strcmp(w->options.tokenizer, "character") == 0;
}

static kp_status create_tokenizer(work *w, kp_error *error) {
  kp_byte_buffer texts[SIDES] = {0};
  kp_status status = KP_OK;
  for (size_t i = 0; i < w->conversations.count && status == KP_OK; i++) {
    const kp_conversation c = kp_conversations_at(&w->conversations, i);
    status = kp_template_text(w->report->which, &c, &texts[side_of(w, i)], error);
  }
  const char *const data[] = {texts[TRAIN].data, texts[VALIDATION].data};
  const size_t sizes[] = {texts[TRAIN].size, texts[VALIDATION].size};
  if (status == KP_OK)
    status = makes_words(w) ? kp_word_tokenizer_create(data, sizes, SIDES, 1, w->options.vocabulary,
                                                       &w->tokenizer, error)
                            : kp_character_tokenizer_create(data, sizes, SIDES, &w->tokenizer, error);
  for (int side = 0; side < SIDES; side++) kp_byte_buffer_clear(&texts[side]);
  return status;
}

static kp_template best_template(const kp_tokenizer *tokenizer) {
  if (tokenizer == NULL) return KP_TEMPLATE_PLAIN;
  if (kp_template_check(KP_TEMPLATE_LLAMA3, tokenizer, NULL) == KP_OK) return KP_TEMPLATE_LLAMA3;
  return kp_tokenizer_special(tokenizer, "<|im_start|>") >= 0 ? KP_TEMPLATE_CHATML : KP_TEMPLATE_PLAIN;
}

static kp_status choose_template(work *w, kp_error *error) {
  w->report->which = w->options.best_template ? best_template(w->tokenizer) : w->options.which;
  if (w->tokenizer != NULL) return kp_template_check(w->report->which, w->tokenizer, error);
  if (w->report->which != KP_TEMPLATE_LLAMA3) return KP_OK;
  return kp_fail(
      error, KP_ERR_INPUT,
      "the template llama3 is made of special tokens, and the tokenizer '%s' has none: give one of "
      "Llama 3 (--tokenizer), or the template chatml or plain",
      w->options.tokenizer);
}

/* ---- what is asked for ---- */

static void print_word(FILE *out, const char *word) {
  fprintf(out, "%zu:%s\n", word == NULL ? (size_t)0 : strlen(word), word == NULL ? "" : word);
}

static kp_status print_request(FILE *out, const void *context, kp_error *error) {
  const work *w = context;
  (void)error; /* a full memory shows at the end */
  char sha256[KP_SHA256_HEX_SIZE];
  const kp_conversation_prepare_options *o = &w->options;
  const kp_conversations *all = &w->conversations;
  fprintf(out, "dialogue 1 %s %lld %.15g %zu\n", kp_template_name(w->report->which), (long long)o->length,
          o->validation != NULL ? 1 : o->train_fraction, w->separate);
  if (w->tokenizer != NULL)
    fprintf(out, "%016" PRIx64 "\n", w->tokenizer->fingerprint);
  else
    fprintf(out, "%s %d\n", o->tokenizer, makes_words(w) ? o->vocabulary : 0);
  kp_sha256(all->turns.text, all->turns.size, sha256);
  print_word(out, sha256);
  for (size_t i = 0; i < all->count; i++)
    for (size_t t = 0; t < all->list[i].count; t++) {
      const kp_turn *turn = &all->turns.turns[all->list[i].first + t];
      fprintf(out, "%c%d %zu", t == 0 ? '\n' : ' ', (int)turn->role, turn->size);
    }
  return KP_OK;
}

static kp_status describe(work *w, kp_error *error) {
  const kp_conversation_prepare_options *o = &w->options;
  kp_prepared *prepared = &w->report->prepared;
  *prepared = (kp_prepared){.train_fraction = o->validation != NULL ? 1 : o->train_fraction};
  kp_utf8_copy(prepared->name, sizeof prepared->name, o->name);
  kp_utf8_copy(prepared->source, sizeof prepared->source, o->source != NULL ? o->source : o->files[0]);
  kp_utf8_copy(prepared->licence, sizeof prepared->licence, o->licence != NULL ? o->licence : "unknown");
  return kp_sha256_printed(print_request, w, prepared->text_sha256, error);
}

/* ---- tokens ---- */

static kp_status close_conversation(stream *s, int64_t turns, kp_error *error) {
  const size_t count = (size_t)s->counts.conversations;
  if (count + 2 > s->offset_capacity) {
    const size_t capacity = 2 * s->offset_capacity + 256;
    int64_t *grown = realloc(s->offsets, capacity * sizeof *grown);
    if (grown == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %zu conversations", capacity);
    s->offsets = grown;
    s->offset_capacity = capacity;
    s->offsets[0] = 0;
  }
  s->offsets[count + 1] = (int64_t)s->list.ids.count;
  s->counts.conversations++;
  s->counts.turns += turns;
  return KP_OK;
}

static kp_status encode(work *w, size_t index, kp_error *error) {
  const kp_conversation c = kp_conversations_at(&w->conversations, index);
  stream *s = &w->streams[side_of(w, index)];
  kp_written written;
  KP_TRY(kp_template_write(w->report->which, &c, w->tokenizer, (size_t)w->options.length, &s->list, &written,
                           error));
  s->counts.shorter += written == KP_WRITTEN_SHORTER;
  s->counts.cut += written == KP_WRITTEN_CUT;
  s->counts.left_out += written == KP_WRITTEN_NOTHING;
  if (written == KP_WRITTEN_NOTHING) return KP_OK;
  for (size_t i = 0; i < c.count; i++) s->text_bytes += (int64_t)c.turns[i].size;
  return close_conversation(s, (int64_t)c.count, error);
}

static kp_status check_streams(work *w, kp_error *error) {
  const int64_t *left_out[] = {&w->streams[TRAIN].counts.left_out, &w->streams[VALIDATION].counts.left_out};
  for (int side = 0; side < SIDES; side++) {
    stream *s = &w->streams[side];
    for (size_t i = 0; i < s->list.ids.count; i++) s->counts.learned += s->list.mask[i];
  }
  const int64_t train = w->streams[TRAIN].counts.conversations,
                validation = w->streams[VALIDATION].counts.conversations;
  if (train > 0 && validation > 0) return KP_OK;
  return kp_fail(
      error, KP_ERR_INPUT,
      "there are %lld conversations for training and %lld for validation (%lld have no turn of an "
      "assistant that fits into %lld tokens): give more, another share for training, or a file for "
      "validation",
      (long long)train, (long long)validation, (long long)(*left_out[0] + *left_out[1]),
      (long long)w->options.length);
}

static kp_status encode_all(work *w, kp_error *error) {
  for (size_t i = 0; i < w->conversations.count; i++)
    if (encode(w, i, error) != KP_OK)
      return kp_context(error, "%s: the conversation of line %zu", w->conversations.list[i].path,
                        w->conversations.list[i].line);
  return check_streams(w, error);
}

/* ---- the folder ---- */

static kp_status write_tokens(const work *w, const stream *s, const char *path, kp_error *error) {
  kp_token_writer *writer;
  KP_TRY(kp_token_writer_create(path, w->tokenizer->vocabulary, w->tokenizer->fingerprint, &writer, error));
  kp_status status = kp_token_writer_append(writer, s->list.ids.list, s->list.ids.count, error);
  if (status == KP_OK) return kp_token_writer_finish(writer, (uint64_t)s->text_bytes, error);
  kp_token_writer_abort(writer);
  return status;
}

static kp_status write_side(const work *w, int side, const char *name, kp_prepared_split *split,
                            kp_error *error) {
  char path[KP_PATH_SIZE], index[KP_PATH_SIZE];
  struct stat information;
  const stream *s = &w->streams[side];
  KP_TRY(kp_path_join(path, w->options.folder, name, error));
  KP_TRY(write_tokens(w, s, path, error));
  KP_TRY(kp_conversation_index_path(path, index, error));
  KP_TRY(kp_conversation_index_write(index, s->offsets, s->list.mask, &s->counts,
                                     kp_template_name(w->report->which), w->tokenizer->fingerprint, error));
  KP_TRY(kp_sha256_file(path, split->sha256, error));
  if (stat(path, &information) != 0) return kp_fail_errno(error, KP_ERR_IO, "cannot read %s", path);
  split->file_bytes = information.st_size;
  split->tokens = (int64_t)s->list.ids.count;
  split->text_bytes = s->text_bytes;
  return KP_OK;
}

static kp_status write_set(work *w, kp_error *error) {
  char path[KP_PATH_SIZE];
  const char *folder = w->options.folder;
  kp_prepared *prepared = &w->report->prepared;
  prepared->vocabulary = w->tokenizer->vocabulary;
  prepared->fingerprint = w->tokenizer->fingerprint;
  snprintf(prepared->tokenizer, sizeof prepared->tokenizer, "%s", kp_tokenizer_name(w->tokenizer));
  KP_TRY(kp_prepared_begin(folder, error));
  KP_TRY(kp_path_join(path, folder, KP_TOKENIZER_FILE, error));
  KP_TRY(kp_tokenizer_save(w->tokenizer, path, error));
  KP_TRY(write_side(w, TRAIN, KP_TRAIN_FILE, &prepared->train, error));
  KP_TRY(write_side(w, VALIDATION, KP_VALIDATION_FILE, &prepared->validation, error));
  return kp_prepared_write(folder, prepared, error);
}

/* What the index of a side in the folder counts; false when it is missing or was changed. */
static bool read_counts(const char *folder, const char *name, kp_conversation_counts *counts) {
  char path[KP_PATH_SIZE];
  const char *const paths[] = {path};
  kp_tokens *tokens;
  if (kp_path_join(path, folder, name, NULL) != KP_OK) return false;
  if (kp_tokens_open(paths, 1, NULL, &tokens, NULL) != KP_OK) return false;
  const kp_conversation_index *index = kp_tokens_index(tokens);
  const bool whole = index != NULL && kp_conversation_index_verify(index, NULL) == KP_OK;
  if (whole) *counts = index->counts;
  kp_tokens_destroy(tokens);
  return whole;
}

/* Whether the folder holds just this set; then the report becomes what it says. */
static bool is_there(const work *w) {
  const char *folder = w->options.folder;
  kp_prepared found;
  kp_conversation_report *report = w->report;
  const kp_prepared *asked = &report->prepared;
  if (kp_prepared_state_of(folder) != KP_PREPARED_COMPLETE) return false;
  if (kp_prepared_read(folder, &found, NULL) != KP_OK) return false;
  const bool same = strcmp(found.text_sha256, asked->text_sha256) == 0 &&
                    strcmp(found.name, asked->name) == 0 && strcmp(found.source, asked->source) == 0 &&
                    strcmp(found.licence, asked->licence) == 0;
  if (!same || kp_prepared_verify(folder, &found, NULL) != KP_OK) return false;
  if (!read_counts(folder, KP_TRAIN_FILE, &report->train) ||
      !read_counts(folder, KP_VALIDATION_FILE, &report->validation))
    return false;
  report->prepared = found;
  return true;
}

/* With the folder's lock held. */
static kp_status prepare_locked(work *w, kp_error *error) {
  kp_conversation_report *report = w->report;
  if (is_there(w)) return KP_OK;
  KP_TRY(kp_prepared_claim(w->options.folder, error));
  if (w->tokenizer == NULL) KP_TRY(create_tokenizer(w, error));
  KP_TRY(encode_all(w, error));
  KP_TRY(write_set(w, error));
  report->train = w->streams[TRAIN].counts;
  report->validation = w->streams[VALIDATION].counts;
  report->fresh = true;
  return KP_OK;
}

/* The options with what 0 and NULL mean in them. */
static kp_status complete(kp_conversation_prepare_options *o, kp_error *error) {
  if (o->train_fraction == 0) o->train_fraction = 0.9;
  if (o->tokenizer == NULL) o->tokenizer = "character";
  if (o->vocabulary == 0) o->vocabulary = WORD_VOCABULARY;
  if (o->length == 0) o->length = KP_CONVERSATION_LENGTH;
  if (o->file_count == 0) return kp_fail(error, KP_ERR_INPUT, "no file was named to prepare");
  if (!(o->train_fraction > 0 && o->train_fraction < 1))
    return kp_fail(error, KP_ERR_INPUT, "the train fraction is %g; it must lie between 0 and 1",
                   o->train_fraction);
  if (o->length < LENGTH_LEAST || o->length > LENGTH_MOST)
    return kp_fail(error, KP_ERR_INPUT, "a length of %lld tokens is outside %d to %d", (long long)o->length,
                   LENGTH_LEAST, LENGTH_MOST);
  return KP_OK;
}

static kp_status prepare(work *w, kp_error *error) {
  kp_lock *lock = NULL;
  KP_TRY(complete(&w->options, error));
  if (!makes_tokenizer(w)) KP_TRY(kp_tokenizer_open(w->options.tokenizer, &w->tokenizer, error));
  KP_TRY(choose_template(w, error));
  KP_TRY(read_all(w, error));
  KP_TRY(describe(w, error));
  KP_TRY(kp_prepared_lock(w->options.folder, &lock, error));
  kp_status status = prepare_locked(w, error);
  kp_lock_release(lock);
  return status;
}

kp_status kp_prepare_conversations(const kp_conversation_prepare_options *options,
                                   kp_conversation_report *report, kp_error *error) {
  work w = {.options = *options, .report = report};
  *report = (kp_conversation_report){0};
  kp_status status = prepare(&w, error);
  clear(&w);
  return status;
}
