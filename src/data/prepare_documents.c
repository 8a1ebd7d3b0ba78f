#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/batch_reader.h"
#include "data/byte_source.h"
#include "data/prepare_private.h"
#include "data/prepare_state.h"
#include "data/prepare_tokenizer.h"

enum { TRAIN, VALIDATION };

/* A request at work. */
typedef struct work {
  const kp_prepare_options *options;
  kp_prepared *prepared;
  kp_documents *training, *validation; /* validation is NULL without a file of its own */
  kp_tokenizer *tokenizer;
  int32_t begin, end; /* tokens around each document; -1: none */
  kp_document_feed feed;
  kp_shard_writer writers[2];
  kp_prepare_state state;
  const kp_document_batch *batch; /* the one at hand */
  kp_ids ids;
  size_t *offsets; /* of the batch's documents in ids */
  size_t offset_capacity;
  int64_t tokens; /* of this call */
} work;

/* ---- what is asked for ---- */

static void print_word(FILE *out, const char *word) {
  fprintf(out, "%zu:%s\n", word == NULL ? (size_t)0 : strlen(word), word == NULL ? "" : word);
}

static void print_files(FILE *out, const kp_documents *documents) {
  if (documents == NULL) return;
  const kp_path_list *paths = kp_documents_paths(documents);
  for (size_t i = 0; i < paths->count; i++) {
    struct stat information = {0};
    print_word(out, paths->list[i]);
    if (stat(paths->list[i], &information) == 0)
      fprintf(out, "%lld %lld %ld\n", (long long)information.st_size, (long long)information.st_mtim.tv_sec,
              information.st_mtim.tv_nsec);
  }
  fputc('\n', out);
}

static kp_status print_request(FILE *out, const void *context, kp_error *error) {
  const work *w = context;
  (void)error; /* a full memory shows at the end */
  const kp_prepare_options *o = w->options;
  if (w->tokenizer == NULL)
    fprintf(out, "documents 1, %s %d\n", o->tokenizer, o->vocabulary);
  else
    fprintf(out, "documents 1, tokenizer %016" PRIx64 "\n", w->tokenizer->fingerprint);
  print_word(out, o->begin ? "begin" : NULL);
  print_word(out, o->end);
  fprintf(out, "%d %d %d %.15g %lld\n", (int)o->format, o->replace_invalid, o->dedupe, o->train_fraction,
          (long long)o->shard_tokens);
  print_word(out, o->field);
  print_word(out, o->separator == NULL ? NULL : o->separator[0] == 0 ? "\n" : o->separator);
  print_files(out, w->training);
  print_files(out, w->validation);
  return KP_OK;
}

static kp_status find_tokens(work *w, kp_error *error) {
  const kp_prepare_options *o = w->options;
  w->begin = o->begin ? w->tokenizer->begin : -1;
  w->end = o->end == NULL ? w->tokenizer->end : kp_tokenizer_special(w->tokenizer, o->end);
  if (o->begin && w->begin < 0)
    return kp_fail(error, KP_ERR_INPUT, "tokenizer %s has no begin token", o->tokenizer);
  if (o->end != NULL && w->end < 0)
    return kp_fail(error, KP_ERR_INPUT, "tokenizer %s has no special token '%s' to end documents with",
                   o->tokenizer, o->end);
  return KP_OK;
}

static kp_status open_documents(work *w, kp_error *error) {
  const kp_prepare_options *o = w->options;
  kp_documents_options documents = {.paths = o->texts,
                                    .path_count = o->text_count,
                                    .format = o->format,
                                    .field = o->field,
                                    .separator = o->separator,
                                    .replace_invalid = o->replace_invalid};
  KP_TRY(kp_documents_open(&documents, &w->training, error));
  if (o->validation == NULL) return KP_OK;
  documents.paths = &o->validation;
  documents.path_count = 1;
  return kp_documents_open(&documents, &w->validation, error);
}

static void close_documents(work *w) {
  kp_documents_close(w->training);
  kp_documents_close(w->validation);
  w->training = w->validation = NULL;
}

static bool reads_standard_input(const kp_documents *documents) {
  const kp_path_list *paths = documents == NULL ? NULL : kp_documents_paths(documents);
  for (size_t i = 0; paths != NULL && i < paths->count; i++)
    if (strcmp(paths->list[i], KP_STANDARD_INPUT) == 0) return true;
  return false;
}

static kp_status open_inputs(work *w, kp_error *error) {
  KP_TRY(open_documents(w, error));
  if (kp_prepare_learns(w->options)) {
    if (!reads_standard_input(w->training) && !reads_standard_input(w->validation)) return KP_OK;
    return kp_fail(
        error, KP_ERR_INPUT,
        "standard input can be read only once, and a tokenizer that is learned needs the documents "
        "twice: put them into a file, or learn the tokenizer first (kappa tokenizer train)");
  }
  KP_TRY(kp_tokenizer_open(w->options->tokenizer, &w->tokenizer, error));
  return find_tokens(w, error);
}

static kp_status describe(work *w, kp_error *error) {
  *w->prepared = (kp_prepared){.train_fraction = w->validation != NULL ? 1 : w->options->train_fraction};
  kp_prepare_describe(w->options, w->prepared);
  return kp_sha256_printed(print_request, w, w->prepared->request_sha256, error);
}

static void describe_tokenizer(const work *w) {
  kp_prepared *prepared = w->prepared;
  prepared->vocabulary = w->tokenizer->vocabulary;
  prepared->fingerprint = w->tokenizer->fingerprint;
  prepared->separated = w->end >= 0;
  prepared->separator = w->end >= 0 ? w->end : 0;
  snprintf(prepared->tokenizer, sizeof prepared->tokenizer, "%s", kp_tokenizer_name(w->tokenizer));
}

/* Whether the folder holds just this set; then *prepared becomes what its data.json says. */
static bool is_there(const work *w) {
  kp_prepared found;
  const kp_prepared *prepared = w->prepared;
  const char *folder = w->options->folder;
  if (reads_standard_input(w->training) || reads_standard_input(w->validation)) return false;
  if (kp_prepared_state_of(folder) != KP_PREPARED_COMPLETE) return false;
  if (kp_prepared_read(folder, &found, NULL) != KP_OK) return false;
  const bool same = strcmp(found.request_sha256, prepared->request_sha256) == 0 &&
                    strcmp(found.name, prepared->name) == 0 && strcmp(found.source, prepared->source) == 0 &&
                    strcmp(found.licence, prepared->licence) == 0;
  if (!same || kp_prepared_verify(folder, &found, NULL) != KP_OK) return false;
  *w->prepared = found;
  return true;
}

/* ---- documents to shards ---- */

static kp_status reserve_offsets(work *w, size_t count, kp_error *error) {
  if (count <= w->offset_capacity) return KP_OK;
  size_t *grown = realloc(w->offsets, count * sizeof *grown);
  if (grown == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %zu documents", count);
  w->offsets = grown;
  w->offset_capacity = count;
  return KP_OK;
}

/* Says which document of the batch it is that the tokenizer refuses. */
static kp_status find_refused(work *w, kp_error *error) {
  const kp_document_batch *batch = w->batch;
  const kp_status status = error == NULL ? KP_ERR_INPUT : error->status;
  for (size_t i = 0; i < batch->count; i++) {
    w->ids.count = 0;
    if (kp_tokenizer_append(w->tokenizer, batch->views[i], false, &w->ids, error) != KP_OK)
      return kp_context(error, "%s, the document of line %zu", batch->documents[i].path,
                        batch->documents[i].line);
  }
  return status;
}

static kp_status write_state(work *w, const kp_batch_document *document, kp_error *error) {
  w->state.read = document->number;
  kp_sha256_digits(document->chain, w->state.chain_sha256);
  return kp_prepare_state_write(w->options->folder, &w->state, w->writers, error);
}

static kp_status write_document(work *w, size_t i, kp_ids *one, kp_error *error) {
  const kp_batch_document *document = &w->batch->documents[i];
  kp_shard_writer *writer = &w->writers[document->validation];
  bool closed;
  one->count = 0;
  if (w->begin >= 0) KP_TRY(kp_ids_append(one, &w->begin, 1, error));
  KP_TRY(kp_ids_append(one, w->ids.list + w->offsets[i], w->offsets[i + 1] - w->offsets[i], error));
  if (w->end >= 0) KP_TRY(kp_ids_append(one, &w->end, 1, error));
  KP_TRY(kp_shard_writer_append(writer, one->list, one->count, document->size, &closed, error));
  w->tokens += (int64_t)one->count;
  return closed ? write_state(w, document, error) : KP_OK;
}

static kp_status encode_batch(work *w, kp_error *error) {
  const kp_document_batch *batch = w->batch;
  kp_ids one = {0};
  w->ids.count = 0;
  KP_TRY(reserve_offsets(w, batch->count + 1, error));
  if (kp_tokenizer_append_all(w->tokenizer, batch->views, batch->count, false, w->options->threads, &w->ids,
                              w->offsets, error) != KP_OK)
    return find_refused(w, error);
  kp_status status = KP_OK;
  for (size_t i = 0; i < batch->count && status == KP_OK; i++) status = write_document(w, i, &one, error);
  kp_ids_clear(&one);
  return status;
}

static kp_status report(work *w, kp_error *error) {
  const kp_prepare_options *o = w->options;
  if (o->progress == NULL) return KP_OK;
  const uint64_t all = kp_documents_total(w->training);
  const uint64_t separate = w->validation == NULL ? 0 : kp_documents_total(w->validation);
  const bool known = all > 0 && (w->validation == NULL || separate > 0);
  const kp_prepare_progress progress = {.documents = w->batch->read,
                                        .duplicates = w->batch->duplicates,
                                        .tokens = w->tokens,
                                        .bytes = w->batch->taken,
                                        .all_bytes = known ? all + separate : 0};
  if (o->progress(o->context, &progress)) return KP_OK;
  return kp_fail(error, KP_ERR_INTERRUPTED,
                 "stopped with %d shards done: the same command goes on behind them",
                 w->writers[TRAIN].shard_count + w->writers[VALIDATION].shard_count);
}

static kp_status encode_batches(work *w, kp_batch_reader *reader, kp_error *error) {
  for (;;) {
    KP_TRY(kp_batch_reader_next(reader, &w->batch, error));
    if (w->batch == NULL) return KP_OK;
    KP_TRY(encode_batch(w, error));
    KP_TRY(report(w, error));
  }
}

static kp_status encode_all(work *w, kp_error *error) {
  kp_batch_reader *reader;
  KP_TRY(kp_batch_reader_create(&w->feed, &reader, error));
  const kp_status status = encode_batches(w, reader, error);
  kp_batch_reader_destroy(reader);
  const int32_t shards = w->writers[TRAIN].shard_count + w->writers[VALIDATION].shard_count;
  if (status == KP_ERR_IO && shards > 0)
    return kp_context(error, "behind %d shards that are done, where the same command will go on", shards);
  return status;
}

static kp_status finish(work *w, kp_error *error) {
  kp_prepared *prepared = w->prepared;
  const int64_t *kept = w->feed.kept;
  bool closed;
  if (w->feed.read < w->feed.expected_read)
    return kp_fail(error, KP_ERR_INPUT,
                   "there are %lld documents where the set was begun with %lld: remove %s to begin anew",
                   (long long)w->feed.read, (long long)w->feed.expected_read, w->options->folder);
  if (kept[TRAIN] == 0 || kept[VALIDATION] == 0)
    return kp_fail(error, KP_ERR_INPUT,
                   "%lld documents are for training and %lld for validation; each needs one: give more "
                   "documents, another share for training, or a file for validation",
                   (long long)kept[TRAIN], (long long)kept[VALIDATION]);
  for (int side = 0; side < 2; side++) KP_TRY(kp_shard_writer_finish(&w->writers[side], &closed, error));
  KP_TRY(kp_shard_writer_describe(&w->writers[TRAIN], &prepared->train, error));
  KP_TRY(kp_shard_writer_describe(&w->writers[VALIDATION], &prepared->validation, error));
  prepared->duplicates = w->feed.duplicates;
  prepared->empty =
      kp_documents_empty(w->training) + (w->validation == NULL ? 0 : kp_documents_empty(w->validation));
  kp_sha256_digits(w->feed.chain, prepared->text_sha256);
  KP_TRY(kp_prepared_write(w->options->folder, prepared, error));
  return kp_prepare_state_remove(w->options->folder, error);
}

/* ---- the folder ---- */

static void begin_feed(work *w) {
  kp_document_feed_clear(&w->feed);
  w->feed = (kp_document_feed){.training = w->training,
                               .validation = w->validation,
                               .train_fraction = w->options->train_fraction,
                               .dedupe = w->options->dedupe};
}

/* Learning reads all documents once, encoding again. */
static kp_status learn_tokenizer(work *w, kp_error *error) {
  begin_feed(w);
  KP_TRY(kp_prepare_learn_documents(w->options, &w->feed, &w->tokenizer, error));
  close_documents(w);
  return open_documents(w, error);
}

static kp_status begin_anew(work *w, kp_error *error) {
  char path[KP_PATH_SIZE];
  const char *folder = w->options->folder;
  KP_TRY(kp_prepared_begin(folder, error));
  if (w->tokenizer == NULL) {
    KP_TRY(learn_tokenizer(w, error));
  } else {
    KP_TRY(kp_path_join(path, folder, KP_TOKENIZER_FILE, error));
    KP_TRY(kp_tokenizer_save(w->tokenizer, path, error));
  }
  memcpy(w->state.request_sha256, w->prepared->request_sha256, sizeof w->state.request_sha256);
  return kp_prepare_state_write(folder, &w->state, w->writers, error);
}

/* The chain's bytes from its digits. */
static void take_chain(const char *digits, unsigned char chain[KP_SHA256_SIZE]) {
  for (size_t i = 0; i < KP_SHA256_SIZE; i++) {
    unsigned byte = 0;
    sscanf(digits + 2 * i, "%2x", &byte);
    chain[i] = (unsigned char)byte;
  }
}

static kp_status begin_or_go_on(work *w, kp_error *error) {
  bool found = false;
  const char *folder = w->options->folder;
  if (kp_prepared_state_of(folder) == KP_PREPARED_PARTIAL)
    KP_TRY(kp_prepare_state_read(folder, w->prepared->request_sha256, &w->state, w->writers, &found, error));
  if (!found) KP_TRY(begin_anew(w, error));
  if (w->tokenizer == NULL) KP_TRY(kp_tokenizer_open(folder, &w->tokenizer, error));
  KP_TRY(find_tokens(w, error));
  begin_feed(w);
  for (int side = 0; side < 2; side++) {
    w->writers[side].tokenizer = w->tokenizer;
    w->feed.skip[side] = kp_shard_writer_documents(&w->writers[side]);
  }
  w->feed.expected_read = w->state.read;
  if (w->state.read > 0) take_chain(w->state.chain_sha256, w->feed.expected_chain);
  return KP_OK;
}

/* With the folder's lock held. */
static kp_status prepare_locked(work *w, bool *fresh, kp_error *error) {
  if (is_there(w)) return KP_OK;
  KP_TRY(kp_prepared_claim(w->options->folder, error));
  for (int side = 0; side < 2; side++)
    w->writers[side] = (kp_shard_writer){.folder = w->options->folder,
                                         .validation = side == VALIDATION,
                                         .shard_tokens = w->options->shard_tokens};
  KP_TRY(begin_or_go_on(w, error));
  describe_tokenizer(w);
  KP_TRY(encode_all(w, error));
  *fresh = true;
  return finish(w, error);
}

static void clear(work *w) {
  kp_document_feed_clear(&w->feed);
  kp_ids_clear(&w->ids);
  free(w->offsets);
  for (int side = 0; side < 2; side++) kp_shard_writer_clear(&w->writers[side]);
  close_documents(w);
  kp_tokenizer_destroy(w->tokenizer);
}

kp_status kp_prepare_documents(const kp_prepare_options *options, kp_prepared *prepared, bool *fresh,
                               kp_error *error) {
  work w = {.options = options, .prepared = prepared};
  kp_lock *lock = NULL;
  kp_status status = open_inputs(&w, error);
  if (status == KP_OK) status = describe(&w, error);
  if (status == KP_OK) status = kp_prepared_lock(options->folder, &lock, error);
  if (status == KP_OK) status = prepare_locked(&w, fresh, error);
  kp_lock_release(lock);
  clear(&w);
  return status;
}
