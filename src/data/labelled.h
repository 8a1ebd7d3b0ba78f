/* A prepared set of labelled examples: a prepared folder (data/prepared.h) whose token files hold the
 * examples one behind the other, and beside them
 *
 *   task.json                    the task, the labels' names, special tokens, counts, checksums
 *   train.examples.safetensors   "offsets" (E + 1) int64: example e is tokens offsets[e] to offsets[e + 1] -
 * 1 val.examples.safetensors     "labels" int32: (E) of sentences, or (tokens) of words, KP_IGNORE where the
 *                                token does not begin a word
 *
 * Two tokens stand behind the tokenizer's: the separator between two sentences, and padding, which is in no
 * file.  A set never changes after it was opened, so threads may share it. */
#ifndef KAPPA_DATA_LABELLED_H
#define KAPPA_DATA_LABELLED_H

#include <jansson.h>

#include "core/sha256.h"
#include "data/label_set.h"
#include "data/task.h"
#include "data/token_file.h"

#define KP_TASK_FILE                "task.json"
#define KP_TRAIN_EXAMPLES_FILE      "train.examples.safetensors"
#define KP_VALIDATION_EXAMPLES_FILE "val.examples.safetensors"

/* What task.json says of one split. */
typedef struct kp_labelled_counts {
  int64_t examples;
  int64_t truncated;               /* examples that were longer than the set's length, and cut */
  int64_t longest;                 /* tokens of the longest example as it is stored */
  char sha256[KP_SHA256_HEX_SIZE]; /* of the split's examples file */
} kp_labelled_counts;

/* What task.json says: all that a run needs to remember of its data. */
typedef struct kp_labelling {
  kp_task task;
  kp_label_set labels;
  int32_t vocabulary; /* of the tokenizer, without the two special tokens */
  int64_t length;     /* the most tokens of an example */
  kp_labelled_counts train, validation;
} kp_labelling;

static inline int32_t kp_labelling_separator(const kp_labelling *labelling) {
  return labelling->vocabulary;
}
static inline int32_t kp_labelling_padding(const kp_labelling *labelling) {
  return labelling->vocabulary + 1;
}
/* Of a model: the special tokens included. */
static inline int32_t kp_labelling_vocabulary(const kp_labelling *labelling) {
  return labelling->vocabulary + 2;
}

/* Whether a folder has a task.json. */
bool kp_labelling_stands_in(const char *folder);

/* Reads and writes task.json of a folder.  Clear what was read with kp_labelling_clear. */
kp_status kp_labelling_read(const char *folder, kp_labelling *labelling, kp_error *error);
kp_status kp_labelling_write(const char *folder, const kp_labelling *labelling, kp_error *error);
void kp_labelling_clear(kp_labelling *labelling);

/* The examples of one split. */
typedef struct kp_examples {
  kp_tokens *tokens;
  int64_t count;    /* E */
  int64_t *offsets; /* (E + 1) */
  int32_t *labels;  /* (E), or (tokens) */
  int64_t longest;  /* tokens of the longest */
} kp_examples;

typedef struct kp_labelled_set {
  kp_labelling labelling;
  kp_examples train, validation;
} kp_labelled_set;

/* Opens a complete folder, and checks that offsets and labels lie where they must.  Close with
 * kp_labelled_close; a zeroed set may be closed too. */
kp_status kp_labelled_open(const char *folder, kp_labelled_set *set, kp_error *error);
void kp_labelled_close(kp_labelled_set *set);

/* An example as words, which the caller frees: "label: first | second", or the words of a sentence with
 * "[TAG]" in front of those that have another tag than O. */
kp_status kp_example_text(const kp_labelling *labelling, const kp_examples *examples, int64_t example,
                          const kp_tokenizer *tokenizer, char **text, kp_error *error);

#endif
