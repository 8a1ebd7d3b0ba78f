/* A prepared data set: a folder with
 *
 *   tokenizer.json   the tokenizer
 *   train.bin        what the model learns from      } kappa's headed token files,
 *   val.bin          what it is judged by            } data/token_layout.h
 *   train_000001.bin ...  val_000001.bin ...         those of documents: shards, numbered from 1
 *   data.json        sizes, counts, checksums, source and licence; "complete" is true only when all the
 *                    others stand as described
 *
 * A folder is kappa's if its data.json has the key "kappa_data". */
#ifndef KAPPA_DATA_PREPARED_H
#define KAPPA_DATA_PREPARED_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "core/lock.h"
#include "core/sha256.h"

#define KP_PREPARED_FILE   "data.json"
#define KP_TRAIN_FILE      "train.bin"
#define KP_VALIDATION_FILE "val.bin"
#define KP_PROGRESS_FILE   "progress.json" /* data/prepare_state.h; only while a set of documents is made */

/* The tokens of training or of validation. */
typedef struct kp_prepared_split {
  int64_t tokens;
  int64_t text_bytes; /* of the text that the tokens stand for */
  int64_t file_bytes;
  char sha256[KP_SHA256_HEX_SIZE]; /* of the token file; of shards: of their checksums' digits, in order */
  int64_t documents;               /* 0: the text was not made of documents */
  int32_t shards;                  /* 0: one file without a number */
} kp_prepared_split;

typedef struct kp_prepared {
  char name[64];
  char source[1024];
  char licence[128];
  char tokenizer[32]; /* its type */
  int32_t vocabulary;
  uint64_t fingerprint;                     /* of the tokenizer */
  char text_sha256[KP_SHA256_HEX_SIZE];     /* of the text that was given; labelled: of the request too */
  char separate_sha256[KP_SHA256_HEX_SIZE]; /* of a validation text of its own; empty without one */
  double train_fraction; /* of the characters or documents; 1 with a validation text of its own */
  kp_prepared_split train, validation;

  /* Of sets that were made of documents. */
  char request_sha256[KP_SHA256_HEX_SIZE]; /* of what was asked for: options, and sizes and times of the files
                                            */
  int64_t duplicates, empty;               /* documents that were left out */
  bool separated;                          /* a token stands behind each document */
  int32_t separator;                       /* that token */
} kp_prepared;

/* What stands in a folder. */
typedef enum kp_prepared_state {
  KP_PREPARED_NOTHING,  /* no file of a data set */
  KP_PREPARED_FOREIGN,  /* such files, not written by kappa */
  KP_PREPARED_PARTIAL,  /* kappa's, broken off */
  KP_PREPARED_COMPLETE, /* kappa's, said to be whole */
} kp_prepared_state;

kp_prepared_state kp_prepared_state_of(const char *folder);

/* Reads data.json of a complete set, and checks that its token files have the sizes it says. */
kp_status kp_prepared_read(const char *folder, kp_prepared *prepared, kp_error *error);

/* Fails if a token file's checksum differs from the one in data.json; reads them whole. */
kp_status kp_prepared_verify(const char *folder, const kp_prepared *prepared, kp_error *error);

/* Makes the folder if it is missing and takes its lock, which the caller releases: one writer at a time. */
kp_status kp_prepared_lock(const char *folder, kp_lock **lock, kp_error *error);

/* Refuses a folder with data that kappa did not write; removes what a killed run left half written.  With the
 * folder's lock held. */
kp_status kp_prepared_claim(const char *folder, kp_error *error);

/* Marks the folder as one that is being prepared, and as neither a labelled set (data/labelled.h) nor one of
 * conversations (data/conversation_index.h); removes the token
 * files of the set that it held. */
kp_status kp_prepared_begin(const char *folder, kp_error *error);

/* Token file number `shard` from 0 of a split with `shards` shards: "train.bin", "val_000001.bin". */
enum { KP_PREPARED_NAME_SIZE = 32 };
void kp_prepared_file_name(bool validation, int32_t shards, int32_t shard, char name[KP_PREPARED_NAME_SIZE]);

/* The checksum of a split's files, of `shards` as above: that of the file, or of the digits of all. */
kp_status kp_prepared_hash(const char *folder, bool validation, int32_t shards,
                           char sha256[KP_SHA256_HEX_SIZE], kp_error *error);

/* Writes data.json, which declares the set complete. */
kp_status kp_prepared_write(const char *folder, const kp_prepared *prepared, kp_error *error);

#endif
