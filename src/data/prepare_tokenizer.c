#include "data/prepare_tokenizer.h"

#include <stdlib.h>

#include "data/batch_reader.h"
#include "data/bpe_train.h"

/* A rarer pair is not merged. */
enum { PAIR_LEAST = 2 };

static const char *const specials[] = {"<|endoftext|>"};

/* Where the learning stands. */
typedef struct session {
  const kp_prepare_options *options;
  kp_bpe_trainer *trainer;
  kp_prepare_progress progress;
} session;

static bool report(session *s) {
  const kp_prepare_options *o = s->options;
  return o->progress == NULL || o->progress(o->context, &s->progress);
}

static bool counted(void *context, int64_t done, int64_t total) {
  session *s = context;
  if (s->progress.stage != KP_PREPARE_COUNTS) return true;
  s->progress.bytes = (uint64_t)done;
  s->progress.all_bytes = (uint64_t)total;
  return report(s);
}

static bool merged(void *context, int64_t done, int64_t total) {
  session *s = context;
  s->progress = (kp_prepare_progress){.stage = KP_PREPARE_MERGES, .tokens = done, .all_tokens = total};
  return report(s);
}

static kp_status begin(session *s, const kp_prepare_options *options, kp_prepare_stage stage,
                       kp_error *error) {
  *s = (session){.options = options, .progress = {.stage = stage}};
  const kp_bpe_train_options train = {.vocabulary = options->vocabulary,
                                      .minimum_count = PAIR_LEAST,
                                      .specials = specials,
                                      .special_count = 1,
                                      .threads = options->threads,
                                      .counting = counted,
                                      .merging = merged,
                                      .context = s};
  return kp_bpe_trainer_create(&train, &s->trainer, error);
}

static kp_status finish(session *s, kp_tokenizer **tokenizer, kp_error *error) {
  char path[KP_PATH_SIZE];
  KP_TRY(kp_path_join(path, s->options->folder, KP_TOKENIZER_FILE, error));
  KP_TRY(kp_bpe_trainer_finish(s->trainer, tokenizer, error));
  const kp_status status = kp_tokenizer_save(*tokenizer, path, error);
  if (status != KP_OK) kp_tokenizer_destroy(*tokenizer);
  return status;
}

kp_status kp_prepare_learn_text(const kp_prepare_options *options, kp_text_view text,
                                kp_tokenizer **tokenizer, kp_error *error) {
  session s;
  KP_TRY(begin(&s, options, KP_PREPARE_COUNTS, error));
  kp_status status = kp_bpe_trainer_add(s.trainer, &text, 1, error);
  if (status == KP_OK) status = finish(&s, tokenizer, error);
  kp_bpe_trainer_destroy(s.trainer);
  return status;
}

/* The documents of a batch that are for training. */
static kp_status add_batch(session *s, const kp_document_batch *batch, kp_error *error) {
  kp_text_view *views = malloc((batch->count + 1) * sizeof *views);
  size_t count = 0;
  if (views == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %zu documents", batch->count);
  for (size_t i = 0; i < batch->count; i++)
    if (!batch->documents[i].validation) views[count++] = batch->views[i];
  const kp_status status = kp_bpe_trainer_add(s->trainer, views, count, error);
  free(views);
  if (status != KP_OK) return status;
  s->progress.documents = batch->read;
  s->progress.duplicates = batch->duplicates;
  s->progress.bytes = batch->taken;
  return report(s) ? KP_OK : kp_fail(error, KP_ERR_INTERRUPTED, "stopped before anything was prepared");
}

static kp_status add_documents(session *s, kp_batch_reader *reader, kp_error *error) {
  for (;;) {
    const kp_document_batch *batch;
    KP_TRY(kp_batch_reader_next(reader, &batch, error));
    if (batch == NULL) return KP_OK;
    KP_TRY(add_batch(s, batch, error));
  }
}

kp_status kp_prepare_learn_documents(const kp_prepare_options *options, kp_document_feed *feed,
                                     kp_tokenizer **tokenizer, kp_error *error) {
  session s;
  kp_batch_reader *reader;
  KP_TRY(begin(&s, options, KP_PREPARE_READS, error));
  s.progress.all_bytes = kp_documents_total(feed->training);
  kp_status status = kp_batch_reader_create(feed, &reader, error);
  if (status == KP_OK) {
    status = add_documents(&s, reader, error);
    kp_batch_reader_destroy(reader);
  }
  if (status == KP_OK) status = finish(&s, tokenizer, error);
  kp_bpe_trainer_destroy(s.trainer);
  return status;
}
