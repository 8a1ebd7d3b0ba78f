/* How far the preparation of a set of documents got: the file progress.json of its folder.
 *
 * It is written behind each shard that was closed, and removed when the set is complete.  A call that is
 * asked for the same reads the documents again, which is quick, and encodes those that stand in no shard. */
#ifndef KAPPA_DATA_PREPARE_STATE_H
#define KAPPA_DATA_PREPARE_STATE_H

#include "data/shard_writer.h"

typedef struct kp_prepare_state {
  char request_sha256[KP_SHA256_HEX_SIZE];
  int64_t read;                          /* documents, when the last shard was closed */
  char chain_sha256[KP_SHA256_HEX_SIZE]; /* of all of them (data/document_batch.h); empty with read 0 */
} kp_prepare_state;

/* `writers` are that of training and that of validation. */
kp_status kp_prepare_state_write(const char *folder, const kp_prepare_state *state,
                                 const kp_shard_writer writers[2], kp_error *error);

/* Whether the folder has begun this request and its shards stand; then *state says how far it got and the
 * writers have the shards. */
kp_status kp_prepare_state_read(const char *folder, const char *request_sha256, kp_prepare_state *state,
                                kp_shard_writer writers[2], bool *found, kp_error *error);

kp_status kp_prepare_state_remove(const char *folder, kp_error *error);

#endif
