#include "data/document_batch.h"

#include <stdlib.h>
#include <string.h>

void kp_document_batch_clear(kp_document_batch *batch) {
  kp_byte_buffer_clear(&batch->text);
  free(batch->documents);
  free(batch->views);
  *batch = (kp_document_batch){0};
}

void kp_document_feed_clear(kp_document_feed *feed) {
  kp_digest_set_clear(&feed->seen);
}

double kp_document_place(const unsigned char digest[KP_SHA256_SIZE]) {
  uint64_t bits;
  /* Other bytes than those by which duplicates are known. */
  memcpy(&bits, digest + KP_SHA256_SIZE - sizeof bits, sizeof bits);
  return (double)(bits >> 11) * 0x1p-53;
}

static kp_status reserve(kp_document_batch *batch, kp_error *error) {
  if (batch->count < batch->capacity) return KP_OK;
  const size_t capacity = batch->capacity == 0 ? 256 : 2 * batch->capacity;
  kp_batch_document *documents = realloc(batch->documents, capacity * sizeof *documents);
  if (documents != NULL) batch->documents = documents;
  kp_text_view *views = realloc(batch->views, capacity * sizeof *views);
  if (views != NULL) batch->views = views;
  if (documents == NULL || views == NULL)
    return kp_fail(error, KP_ERR_MEMORY, "no memory for %zu documents", capacity);
  batch->capacity = capacity;
  return KP_OK;
}

/* Goes on with the chain, and checks it where a call before had stopped. */
static kp_status count_read(kp_document_feed *feed, const unsigned char digest[KP_SHA256_SIZE],
                            kp_error *error) {
  unsigned char both[2 * KP_SHA256_SIZE];
  memcpy(both, feed->chain, KP_SHA256_SIZE);
  memcpy(both + KP_SHA256_SIZE, digest, KP_SHA256_SIZE);
  kp_sha256_bytes(both, sizeof both, feed->chain);
  feed->read++;
  if (feed->read != feed->expected_read) return KP_OK;
  if (memcmp(feed->chain, feed->expected_chain, KP_SHA256_SIZE) == 0) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT,
                 "the first %lld documents are not those that the set was begun with: remove its folder to "
                 "begin anew",
                 (long long)feed->read);
}

static kp_status keep(kp_document_batch *batch, const kp_document_feed *feed, const kp_document *document,
                      bool validation, kp_error *error) {
  KP_TRY(reserve(batch, error));
  kp_batch_document *kept = &batch->documents[batch->count];
  *kept = (kp_batch_document){.offset = batch->text.size,
                              .size = document->size,
                              .validation = validation,
                              .number = feed->read,
                              .path = document->path,
                              .line = document->line};
  memcpy(kept->chain, feed->chain, KP_SHA256_SIZE);
  KP_TRY(kp_byte_buffer_append(&batch->text, document->text, document->size, error));
  batch->count++;
  return KP_OK;
}

static kp_status take(kp_document_batch *batch, kp_document_feed *feed, const kp_document *document,
                      bool separate, kp_error *error) {
  unsigned char digest[KP_SHA256_SIZE];
  bool fresh = true;
  kp_sha256_bytes(document->text, document->size, digest);
  KP_TRY(count_read(feed, digest, error));
  if (feed->dedupe) KP_TRY(kp_digest_set_add(&feed->seen, digest, &fresh, error));
  if (!fresh) {
    feed->duplicates++;
    return KP_OK;
  }
  const bool validation =
      separate || (feed->validation == NULL && kp_document_place(digest) >= feed->train_fraction);
  if (feed->kept[validation]++ < feed->skip[validation]) return KP_OK;
  return keep(batch, feed, document, validation, error);
}

/* Documents of training, then those of validation. */
static kp_status next(kp_document_feed *feed, kp_document *document, bool *separate, kp_error *error) {
  *separate = false;
  KP_TRY(kp_documents_next(feed->training, document, error));
  if (document->text != NULL || feed->validation == NULL) return KP_OK;
  *separate = true;
  return kp_documents_next(feed->validation, document, error);
}

kp_status kp_document_batch_fill(kp_document_batch *batch, kp_document_feed *feed, bool *more,
                                 kp_error *error) {
  const int64_t before = feed->read;
  batch->text.size = batch->count = 0;
  *more = true;
  while (batch->text.size < KP_BATCH_BYTES && feed->read - before < KP_BATCH_READ) {
    kp_document document;
    bool separate;
    KP_TRY(next(feed, &document, &separate, error));
    *more = document.text != NULL;
    if (!*more) break;
    KP_TRY(take(batch, feed, &document, separate, error));
  }
  batch->read = feed->read;
  batch->duplicates = feed->duplicates;
  batch->taken = kp_documents_taken(feed->training) +
                 (feed->validation == NULL ? 0 : kp_documents_taken(feed->validation));
  /* The text has stopped moving. */
  for (size_t i = 0; i < batch->count; i++)
    batch->views[i] = (kp_text_view){batch->text.data + batch->documents[i].offset, batch->documents[i].size};
  return KP_OK;
}
