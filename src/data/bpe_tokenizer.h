/* Byte-level byte-pair encoding: the tokenizers of GPT-2, Llama 3 and their kin.
 *
 * A text is cut into pieces (data/pretokenizer.h); the bytes of a piece, one token each, are merged by rank
 * (data/bpe_merge.h).  Tokens have any bytes: a single one need not be whole characters, but decoding gives
 * the text back byte for byte.
 *
 * The fingerprint is FNV-1a over the bytes of every token, the order in which the merges make tokens, the
 * added tokens, the patterns and what becomes of pieces that are tokens.  It is the same for one vocabulary
 * read from different files. */
#ifndef KAPPA_DATA_BPE_TOKENIZER_H
#define KAPPA_DATA_BPE_TOKENIZER_H

#include "data/merge_table.h"
#include "data/pretokenizer.h"
#include "data/tokenizer.h"

/* A token whose text is found before the text is cut. */
typedef struct kp_bpe_added {
  const char *text; /* not empty */
  int32_t id;
  bool special; /* found only when special tokens are asked for; else always */
} kp_bpe_added;

/* What a tokenizer is made of; all of it is copied. */
typedef struct kp_bpe_parts {
  const kp_text_view *tokens; /* (V), the bytes of each id; empty: the id stands for nothing */
  int32_t vocabulary;         /* V */
  const kp_merge *merges;     /* the first goes first */
  size_t merge_count;
  const kp_bpe_added *added; /* their bytes in `tokens` are their texts */
  size_t added_count;
  const char *const *patterns; /* data/pretokenizer.h */
  size_t pattern_count;
  bool ignore_merges; /* a piece that is a token is that token, whatever the merges say */
  int32_t begin, end; /* special tokens that programs put around a text by themselves; -1: none */
} kp_bpe_parts;

/* begin and end of the tokenizer are those given; where there are none, the special tokens of the usual
 * names:
 * <|begin_of_text|>, <s> in front, <|end_of_text|>, <|endoftext|>, </s> behind.
 * Ids outside the vocabulary, an empty or repeated added token and a merge that does not join its two tokens
 * are errors. */
kp_status kp_bpe_tokenizer_create(const kp_bpe_parts *parts, kp_tokenizer **tokenizer, kp_error *error);

/* The parts of a tokenizer of kind "bpe", as views that live as long as it; NULL for other kinds. */
const kp_bpe_parts *kp_bpe_tokenizer_parts(const kp_tokenizer *tokenizer);

#endif
