/* Writes the tokens of documents to numbered token files, "train_000001.bin" and so on: a shard is closed
 * behind the document that brings it to its number of tokens. */
#ifndef KAPPA_DATA_SHARD_WRITER_H
#define KAPPA_DATA_SHARD_WRITER_H

#include "data/prepared.h"
#include "data/token_writer.h"
#include "data/tokenizer.h"

/* A shard that stands in the folder. */
typedef struct kp_shard {
  int64_t tokens, text_bytes, file_bytes, documents;
  char sha256[KP_SHA256_HEX_SIZE];
} kp_shard;

/* Zero-initialise and set the first members; kp_shard_writer_clear frees the rest. */
typedef struct kp_shard_writer {
  const char *folder;
  const kp_tokenizer *tokenizer; /* a view */
  bool validation;
  int64_t shard_tokens;

  kp_token_writer *open; /* NULL: none */
  kp_shard current;      /* what was written to it */
  kp_shard *shards;      /* those that are closed */
  int32_t shard_count;
} kp_shard_writer;

/* Appends a document, which stands for `text_bytes` bytes; *closed says whether a shard was closed behind it.
 */
kp_status kp_shard_writer_append(kp_shard_writer *writer, const int32_t *ids, size_t count, size_t text_bytes,
                                 bool *closed, kp_error *error);

/* Closes the last shard; *closed is false when it was closed already. */
kp_status kp_shard_writer_finish(kp_shard_writer *writer, bool *closed, kp_error *error);

/* A shard that a call before has closed: counts, and is not written again. */
kp_status kp_shard_writer_add(kp_shard_writer *writer, const kp_shard *shard, kp_error *error);

/* Documents in closed shards. */
int64_t kp_shard_writer_documents(const kp_shard_writer *writer);

/* What data.json says of them. */
kp_status kp_shard_writer_describe(const kp_shard_writer *writer, kp_prepared_split *split, kp_error *error);

/* Drops what is not closed. */
void kp_shard_writer_clear(kp_shard_writer *writer);

#endif
