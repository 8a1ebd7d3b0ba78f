/* Where the conversations of a prepared set lie, and which tokens are learned.
 *
 * Beside a token file NAME.bin stands NAME.documents.safetensors:
 *
 *   offsets   (E + 1) int64: conversation e is tokens offsets[e] to offsets[e + 1] - 1
 *   mask      (N) uint8: 1 where a token is a target of the loss, 0 elsewhere
 *
 * Its metadata say the template, the tokenizer's fingerprint, the checksum of both tensors and what became of
 * conversations that were too long.  A token stream of one file has its index (kp_tokens_index), and a model
 * trained on it learns the marked tokens alone. */
#ifndef KAPPA_DATA_CONVERSATION_INDEX_H
#define KAPPA_DATA_CONVERSATION_INDEX_H

#include <stdbool.h>
#include <stdint.h>

#include "core/path.h"
#include "core/safetensors.h"
#include "core/sha256.h"
#include "data/token_file.h"

#define KP_TRAIN_DOCUMENTS_FILE      "train.documents.safetensors"
#define KP_VALIDATION_DOCUMENTS_FILE "val.documents.safetensors"

/* What was counted while conversations were written. */
typedef struct kp_conversation_counts {
  int64_t conversations; /* that are in the set */
  int64_t turns;         /* of them */
  int64_t learned;       /* tokens */
  int64_t shorter;       /* conversations that lost turns at their end */
  int64_t cut;           /* that end within a turn longer than all the room */
  int64_t left_out;      /* without a turn of the assistant that has room */
} kp_conversation_counts;

/* One token file's index.  It never changes after it was opened. */
typedef struct kp_conversation_index {
  kp_safetensors *file;
  int64_t count;       /* E > 0 */
  int64_t *offsets;    /* (E + 1), owned */
  const uint8_t *mask; /* (N), in the mapped file */
  int64_t longest;     /* tokens of the longest */
  kp_conversation_counts counts;
  const char *template_name; /* in the file's metadata */
} kp_conversation_index;

/* The index's path of a token file. */
kp_status kp_conversation_index_path(const char *token_file, char out[KP_PATH_SIZE], kp_error *error);

/* Opens an index file of these tokens.  Offsets and a mask that do not fit them are refused.  Close with
 * kp_conversation_index_close; a zeroed index may be closed too. */
kp_status kp_conversation_index_open(const char *path, const kp_tokens *tokens, kp_conversation_index *index,
                                     kp_error *error);
void kp_conversation_index_close(kp_conversation_index *index);

/* Fails when offsets or mask are not those that were written. */
kp_status kp_conversation_index_verify(const kp_conversation_index *index, kp_error *error);

/* Writes an index file: `counts->conversations` + 1 offsets, and a mask of as many bytes as the last says. */
kp_status kp_conversation_index_write(const char *path, const int64_t *offsets, const uint8_t *mask,
                                      const kp_conversation_counts *counts, const char *template_name,
                                      uint64_t fingerprint, kp_error *error);

#endif
