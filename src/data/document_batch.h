/* Documents on their way to tokens: read, known by a hash, assigned to training or validation, and gathered
 * in batches that several threads encode at once.
 *
 *   number   of a document: in the order of reading, from 1, duplicates included, empty ones not
 *   digest   SHA-256 of its bytes
 *   chain    SHA-256 of the chain before and the digest: of all that was read so far */
#ifndef KAPPA_DATA_DOCUMENT_BATCH_H
#define KAPPA_DATA_DOCUMENT_BATCH_H

#include "core/sha256.h"
#include "data/byte_buffer.h"
#include "data/digest_set.h"
#include "data/documents.h"
#include "data/tokenizer.h"

/* A document that is kept. */
typedef struct kp_batch_document {
  size_t offset, size; /* in the batch's text */
  bool validation;
  int64_t number;
  unsigned char chain[KP_SHA256_SIZE];
  const char *path; /* where it stands */
  size_t line;
} kp_batch_document;

/* Zero-initialise; kp_document_batch_clear frees it. */
typedef struct kp_document_batch {
  kp_byte_buffer text;
  kp_batch_document *documents;
  kp_text_view *views; /* of the same documents */
  size_t count, capacity;
  int64_t read, duplicates; /* documents that were read so far, with this batch */
  uint64_t taken;           /* bytes of the files */
} kp_document_batch;
void kp_document_batch_clear(kp_document_batch *batch);

/* Where documents come from.  Zero-initialise and set the first members. */
typedef struct kp_document_feed {
  kp_documents *training, *validation; /* views; validation is NULL when training is split */
  double train_fraction;               /* of the documents that are for training */
  bool dedupe;

  kp_digest_set seen;
  int64_t read, duplicates;            /* so far */
  int64_t kept[2];                     /* for training and validation, so far */
  int64_t skip[2];                     /* of those, the first that no batch gets: they are in shards */
  unsigned char chain[KP_SHA256_SIZE]; /* of all that was read */

  /* What a call before had read and written, to be found again: a document's number and chain; 0: nothing. */
  int64_t expected_read;
  unsigned char expected_chain[KP_SHA256_SIZE];
} kp_document_feed;

/* Empties the batch and fills it with the next documents; *more is false behind the last.  A batch ends
 * behind the document that reaches KP_BATCH_BYTES, or is number KP_BATCH_READ of those read for it: a batch
 * may be empty (*more is true) when all of these are skipped. */
enum { KP_BATCH_BYTES = 8 << 20, KP_BATCH_READ = 1 << 16 };
kp_status kp_document_batch_fill(kp_document_batch *batch, kp_document_feed *feed, bool *more,
                                 kp_error *error);

void kp_document_feed_clear(kp_document_feed *feed);

/* The side of a document: uniform in [0, 1) by its digest. */
double kp_document_place(const unsigned char digest[KP_SHA256_SIZE]);

#endif
