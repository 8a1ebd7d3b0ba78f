/* Makes a prepared set of labelled examples (data/labelled.h) of a user's files.
 *
 * Sentences: the tokens of the one, or of both with a separator in between.  Words: their tokens with a space
 * in between where the tokenizer has one; the first token of a word carries its label, the others none.
 * Examples that are too long are cut: of two sentences the longer loses its end first, tagged sentences lose
 * their last words. */
#ifndef KAPPA_DATA_LABELLED_PREPARE_H
#define KAPPA_DATA_LABELLED_PREPARE_H

#include "data/labelled.h"
#include "data/labelled_text.h"
#include "data/prepared.h"

typedef struct kp_labelled_prepare_options {
  kp_task task;
  kp_labelled_format format; /* its layout follows the files' names, see kp_labelled_layout_of */
  const char *const *files;
  size_t file_count;
  const char *validation;              /* a file of its own, or NULL: a share of the examples */
  double train_fraction;               /* of the examples, when there is no such file; 0 means 0.9 */
  const char *tokenizer;               /* "character" (NULL means it), "word", or the file or folder of one;
                                          NULL when `like` gives it */
  int32_t vocabulary;                  /* of the word tokenizer; 0 means 4096 */
  int64_t length;                      /* the most tokens of an example; 0 means 256 */
  const char *like;                    /* a labelled folder whose tokenizer and labels are taken, or NULL */
  const char *folder;                  /* made if it is missing */
  const char *name, *source, *licence; /* as in data/prepare.h */
} kp_labelled_prepare_options;

/* Prepares the set.  Without a validation file an example is for validation by a hash of its first sentence
 * (all its words), so that equal sentences fall on the same side.  The vocabulary holds the characters of all
 * files; its words are counted in the examples for training.
 *
 * A folder that already has this set, whole and unchanged, is left alone, see *fresh.  Clear *labelling with
 * kp_labelling_clear. */
kp_status kp_prepare_labelled(const kp_labelled_prepare_options *options, kp_prepared *prepared,
                              kp_labelling *labelling, bool *fresh, kp_error *error);

#endif
