/* Gives files to the training of a byte-level BPE tokenizer.
 *
 * Plain text is read in blocks, however long it is, and a file of it is one text; of JSON and JSON lines
 * every document is a text (data/documents.h).  Either may be compressed. */
#ifndef KAPPA_DATA_BPE_TRAIN_FILES_H
#define KAPPA_DATA_BPE_TRAIN_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "data/bpe_train.h"
#include "data/document_paths.h"

typedef struct kp_bpe_train_files {
  const char *const *paths; /* files, folders, patterns, "-": kp_document_paths_add */
  size_t path_count;
  kp_document_format format;
  const char *field;        /* of the text in JSON; NULL: KP_DOCUMENT_FIELD */
  bool replace_invalid;     /* bytes that are not UTF-8 become U+FFFD instead of an error */
  size_t batch;             /* bytes of text that are counted at once; 0: 32 MiB */
  kp_bpe_progress progress; /* done: bytes of text; total: files that are left */
  void *context;
} kp_bpe_train_files;

/* *bytes: of the text.  Errors name the file and the line. */
kp_status kp_bpe_trainer_add_files(kp_bpe_trainer *trainer, const kp_bpe_train_files *files, uint64_t *bytes,
                                   kp_error *error);

#endif
