/* What is in a prepared folder or a token file. */
#ifndef KAPPA_DATA_INSPECT_H
#define KAPPA_DATA_INSPECT_H

#include <stdbool.h>

#include "core/path.h"
#include "data/byte_buffer.h"
#include "data/conversation_index.h"
#include "data/labelled.h"
#include "data/prepared.h"
#include "data/token_file.h"

/* One stream of tokens: a split of a prepared folder, or the file itself. */
typedef struct kp_inspected_part {
  const char *name; /* "train", "validation" or "tokens" */
  kp_tokens *tokens;
} kp_inspected_part;

typedef struct kp_inspected {
  char path[KP_PATH_SIZE];
  bool prepared; /* `set` holds what data.json says */
  kp_prepared set;
  bool labelled; /* `examples` holds the same tokens with their labels */
  kp_labelled_set examples;
  kp_tokenizer *tokenizer; /* NULL when none stands beside the tokens, or none that made them */
  kp_inspected_part parts[2];
  int part_count;
} kp_inspected;

/* Opens what `name` stands for: a prepared folder, a token file or a pattern, or else the set of that name in
 * `data_folder` (NULL: kp_data_folder).  Clear with kp_inspected_clear. */
kp_status kp_inspect(const char *name, const char *data_folder, kp_inspected *inspected, kp_error *error);
void kp_inspected_clear(kp_inspected *inspected);

/* The first tokens of a part, at most `count`, and their text, or NULL without a tokenizer; of a labelled set
 * one example a line, the last one whole.  The caller frees both. */
kp_status kp_inspected_begin(const kp_inspected *inspected, int part, int64_t *count, int32_t **ids,
                             char **text, kp_error *error);

/* Appends the text of conversation `number` of a part, which has an index and a tokenizer, with marks[0] in
 * front of every run of learned tokens and marks[1] behind it. */
kp_status kp_inspected_conversation(const kp_inspected *inspected, int part, int64_t number,
                                    const char *const marks[2], kp_byte_buffer *text, kp_error *error);

/* Shares of the slots of an epoch's rows that hold tokens. */
typedef struct kp_inspected_packing {
  int64_t context; /* tokens of a row */
  double best_fit, single;
} kp_inspected_packing;

/* Packs a part's conversations in rows of `context` tokens; 0 means the fewest that hold each. */
kp_status kp_inspect_packing(const kp_inspected *inspected, int part, int64_t context,
                             kp_inspected_packing *packing, kp_error *error);

#endif
