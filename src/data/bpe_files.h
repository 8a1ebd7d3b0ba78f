/* Readers of the files that hold byte-level BPE tokenizers.  Each gives a tokenizer that the caller destroys;
 * what is unsupported is an error that names it.  Errors do not have the file's name in front: the caller
 * knows it. */
#ifndef KAPPA_DATA_BPE_FILES_H
#define KAPPA_DATA_BPE_FILES_H

#include <jansson.h>

#include "data/tokenizer.h"

/* tokenizer.json of Hugging Face's tokenizers: model BPE; pre-tokenizers ByteLevel, Split (Regex, Isolated),
 * Digits and sequences of them; no normalizer.  The tokens that its post-processor puts around a text become
 * the tokenizer's begin and end. */
kp_status kp_bpe_read_json(const json_t *document, kp_tokenizer **tokenizer, kp_error *error);

/* OpenAI's pair: the vocabulary {"token": id, ...} and merges, a pair a line behind an optional line that
 * begins with "#version"; cut by GPT-2's pattern.  Tokens that are no byte and that no merge makes cannot
 * come from text: they are special tokens. */
kp_status kp_bpe_read_vocabulary(const json_t *vocabulary, const char *merges, size_t size,
                                 kp_tokenizer **tokenizer, kp_error *error);

/* What a rank file does not say. */
typedef struct kp_bpe_scheme {
  int32_t ranks; /* by which number of them it is known */
  const char *pattern;
  const char *const *specials; /* texts for the ids behind the ranks, closed by NULL */
  int32_t reserved;            /* behind those, "<|reserved_special_token_N|>" from `first_reserved` on */
  int32_t first_reserved;
  const char *begin, *end; /* put around a text; NULL: none */
} kp_bpe_scheme;

/* The scheme of a rank file of so many ranks: GPT-2's 50256 or Llama 3's 128000; NULL: unknown. */
const kp_bpe_scheme *kp_bpe_scheme_of(size_t ranks);

/* A rank file of tiktoken: lines of a token in base64 and its rank, which is its id.  With scheme NULL it is
 * that of the number of ranks, and an error when none is known. */
kp_status kp_bpe_read_ranks(const char *data, size_t size, const kp_bpe_scheme *scheme,
                            kp_tokenizer **tokenizer, kp_error *error);

#endif
