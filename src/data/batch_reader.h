/* Batches of documents that a thread of its own reads ahead: while one is encoded, the next is read,
 * decompressed and parsed.  Their order and their content are those of kp_document_batch_fill. */
#ifndef KAPPA_DATA_BATCH_READER_H
#define KAPPA_DATA_BATCH_READER_H

#include "data/document_batch.h"

typedef struct kp_batch_reader kp_batch_reader;

/* Begins to read.  Nothing else may use the feed until kp_batch_reader_destroy. */
kp_status kp_batch_reader_create(kp_document_feed *feed, kp_batch_reader **reader, kp_error *error);

/* The next batch, which stays until the next call; *batch is NULL behind the last.  An error comes in
 * place of the batch that it was met in. */
kp_status kp_batch_reader_next(kp_batch_reader *reader, const kp_document_batch **batch, kp_error *error);

/* Stops reading, at the latest when the batch at hand is full.  NULL is allowed. */
void kp_batch_reader_destroy(kp_batch_reader *reader);

#endif
