/* Makes a prepared data set (data/prepared.h) of a user's texts, in one of two ways:
 *
 *   characters   as nanoGPT does: one text, whose front is for training and whose end for validation.  Texts
 *                must be UTF-8 and are kept as they are, line ends included; they are held in memory whole.
 *   documents    texts of their own (data/documents.h), each followed by the tokenizer's end token; a hash of
 *                the document says whether it is for training or validation.  Memory is constant, and a call
 *                that was broken off goes on behind the last shard that it had closed. */
#ifndef KAPPA_DATA_PREPARE_H
#define KAPPA_DATA_PREPARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "core/path.h"
#include "data/document_paths.h"
#include "data/prepared.h"

typedef enum kp_prepare_split {
  KP_PREPARE_BY_INPUT, /* characters for the tokenizers "character" and "word", and for a single text */
  KP_PREPARE_CHARACTERS,
  KP_PREPARE_DOCUMENTS,
} kp_prepare_split;

/* What it does; the last comes always, the others where a tokenizer is learned. */
typedef enum kp_prepare_stage {
  KP_PREPARE_ENCODES, /* documents: documents, bytes of the files, tokens of this call */
  KP_PREPARE_READS,   /* documents to learn from */
  KP_PREPARE_COUNTS,  /* bytes of a text to learn from */
  KP_PREPARE_MERGES,  /* tokens of the vocabulary */
} kp_prepare_stage;

/* How far it got; an `all_` is 0 when unknown. */
typedef struct kp_prepare_progress {
  kp_prepare_stage stage;
  int64_t documents, duplicates, tokens, all_tokens;
  uint64_t bytes, all_bytes;
} kp_prepare_progress;

typedef struct kp_prepare_options {
  const char *const *texts; /* characters: files, joined in this order without anything in between;
                               documents: files, folders, patterns, standard input */
  size_t text_count;
  const char *validation; /* a file of its own for validation, or NULL */
  const char *tokenizer;  /* "character" (NULL means it), "word", "bpe", or a tokenizer's file or folder */
  int32_t vocabulary;     /* of words, 0 means 4096; of BPE, 0 means 32,768 */
  double train_fraction;  /* of the characters or documents, without such a file; 0 means 0.9 */
  const char *folder;     /* made if it is missing */
  const char *name;       /* NULL: the last name of the folder */
  const char *source;     /* NULL: the path of the first text */
  const char *licence;    /* NULL: "unknown" */

  kp_prepare_split split;
  /* Documents: data/documents.h. */
  kp_document_format format;
  const char *field, *separator;
  bool replace_invalid;
  bool dedupe;          /* of documents that are equal, byte for byte, the first alone is kept */
  bool begin;           /* the tokenizer's begin token in front of each */
  const char *end;      /* the special token behind each; NULL: the tokenizer's end token, if it has one */
  int64_t shard_tokens; /* a token file ends behind the document that reaches them; 0 means 100,000,000 */
  int threads;          /* 0: all */
  /* Called behind about every 8 MiB of text; false stops: KP_ERR_INTERRUPTED.  May be NULL. */
  bool (*progress)(void *context, const kp_prepare_progress *progress);
  void *context;
} kp_prepare_options;

/* Prepares the set and describes it in *prepared.
 *
 * Characters: the first floor(train_fraction * n) of n characters are for training.  The vocabulary of the
 * tokenizers "character" and "word" holds the characters of all texts, validation included, so that every
 * character can be scored; the words are counted in the training text.
 *
 * A folder that already has this set, whole and unchanged, is left alone: *fresh says whether anything was
 * written.  Files of documents are known by their sizes and times; standard input is always read.  Files of a
 * data set that kappa did not write are never replaced. */
kp_status kp_prepare(const kp_prepare_options *options, kp_prepared *prepared, bool *fresh, kp_error *error);

/* The folder for data sets: $KAPPA_DATA, or "data". */
kp_status kp_data_folder(char out[KP_PATH_SIZE], kp_error *error);

#endif
