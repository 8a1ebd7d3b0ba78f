/* A byte-level BPE tokenizer while it is read from a file: tokens by id, then the merges, then the rest.
 *
 * Tokens and merges stand in files in GPT-2's alphabet of bytes (data/byte_alphabet.h), added tokens as they
 * are. */
#ifndef KAPPA_DATA_BPE_DRAFT_H
#define KAPPA_DATA_BPE_DRAFT_H

#include <jansson.h>

#include "data/bpe_tokenizer.h"
#include "data/token_table.h"

typedef struct kp_bpe_draft {
  kp_text_view *tokens; /* (vocabulary) owned; empty: no token has the id */
  bool *is_added;       /* (vocabulary) owned */
  int32_t vocabulary;
  char *bytes; /* what tokens are views into, each closed by a zero; owned */
  size_t used, room;
  kp_token_table table; /* of the tokens that were not added */
  kp_merge *merges;     /* owned */
  size_t merge_count, merge_capacity;
  char *joined; /* the bytes of one merge; owned */
  size_t joined_room;
  kp_bpe_added *added; /* owned; the texts are the tokens' */
  size_t added_count, added_capacity;
  const char *patterns[KP_PRETOKENIZER_PATTERNS]; /* the file's */
  size_t pattern_count;
  bool ignore_merges;
  int32_t begin, end;
} kp_bpe_draft;

/* Begins a draft of at most `count` tokens with ids up to `largest`, whose texts have `bytes` bytes.  Ids far
 * beyond the count are refused: memory is in proportion to what the file holds. */
kp_status kp_bpe_draft_init(kp_bpe_draft *draft, size_t count, int64_t largest, size_t bytes,
                            kp_error *error);
void kp_bpe_draft_clear(kp_bpe_draft *draft);

/* An added token. */
kp_status kp_bpe_draft_add(kp_bpe_draft *draft, const char *text, int32_t id, bool special, kp_error *error);

/* A token of these bytes, or the one that the draft has. */
kp_status kp_bpe_draft_token(kp_bpe_draft *draft, const char *bytes, size_t size, int32_t id,
                             kp_error *error);

/* A token as vocabularies write it; one that was added under this id is left alone. */
kp_status kp_bpe_draft_word(kp_bpe_draft *draft, const char *word, int32_t id, kp_error *error);

/* The object {"token": id, ...}; checks that every id is an integer of the draft's range. */
kp_status kp_bpe_draft_vocabulary(kp_bpe_draft *draft, const json_t *vocabulary, kp_error *error);

/* Numbers that kp_bpe_draft_init needs of such an object. */
kp_status kp_bpe_measure(const json_t *vocabulary, size_t *count, int64_t *largest, size_t *bytes,
                         kp_error *error);

/* The merge of two tokens as vocabularies write them; and of two ids. */
kp_status kp_bpe_draft_merge(kp_bpe_draft *draft, kp_text_view left, kp_text_view right, kp_error *error);
kp_status kp_bpe_draft_merge_ids(kp_bpe_draft *draft, kp_merge merge, kp_error *error);

/* Makes the tokenizer; the draft is still to be cleared. */
kp_status kp_bpe_draft_finish(const kp_bpe_draft *draft, kp_tokenizer **tokenizer, kp_error *error);

#endif
