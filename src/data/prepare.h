/* Makes a prepared data set (data/prepared.h) of a user's text with the character or the word tokenizer.
 *
 * Texts must be UTF-8 and are kept as they are, line ends included.  They are held in memory whole; the
 * tokens are not. */
#ifndef KAPPA_DATA_PREPARE_H
#define KAPPA_DATA_PREPARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "core/path.h"
#include "data/prepared.h"

typedef struct kp_prepare_options {
  const char *const *texts; /* files, joined in this order without anything in between */
  size_t text_count;
  const char *validation; /* a file of its own for validation, or NULL: the end of the texts */
  const char *tokenizer;  /* "character" (NULL means it) or "word" */
  int32_t vocabulary;     /* of the word tokenizer; 0 means 4096 */
  double train_fraction;  /* of the characters, when there is no such file; 0 means 0.9 */
  const char *folder;     /* made if it is missing */
  const char *name;       /* NULL: the last name of the folder */
  const char *source;     /* NULL: the path of the first text */
  const char *licence;    /* NULL: "unknown" */
} kp_prepare_options;

/* Prepares the set and describes it in *prepared.  The first floor(train_fraction * n) of n characters are
 * for training, as in nanoGPT.  The vocabulary holds the characters of all texts, validation included, so
 * that every character can be scored; its words are counted in the training text.
 *
 * A folder that already has this set, whole and unchanged, is left alone: *fresh says whether anything was
 * written.  Files of a data set that kappa did not write are never replaced. */
kp_status kp_prepare(const kp_prepare_options *options, kp_prepared *prepared, bool *fresh, kp_error *error);

/* The folder for data sets: $KAPPA_DATA, or "data". */
kp_status kp_data_folder(char out[KP_PATH_SIZE], kp_error *error);

#endif
