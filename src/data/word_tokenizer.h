/* A token is a word, a punctuation mark or a character.
 *
 * A text is cut into pieces from its front: a word is a run of characters that are neither white space nor
 * punctuation, together with one space (U+0020) in front of it if there is one, at most
 * KP_WORD_LONGEST characters; every other character is a piece by itself.  A piece that is in the
 * vocabulary is one token, any other is spelled: one token a character.  The vocabulary holds every character
 * of the texts it was made from, so nothing of them is lost: text comes back byte for byte.
 *
 * Ids: first the characters, as the character tokenizer numbers them, then the words, the most frequent
 * first, equally frequent ones in the order of their bytes.
 *
 * File: {"type": "word", "alphabet": the character tokenizer's file, "words": [" the", " and", ...],
 * "fingerprint": "16 hexadecimal digits"}; the fingerprint is FNV-1a over the alphabet's (little-endian),
 * then the bytes of each word and a zero; it is optional when reading. */
#ifndef KAPPA_DATA_WORD_TOKENIZER_H
#define KAPPA_DATA_WORD_TOKENIZER_H

#include <jansson.h>

#include "data/tokenizer.h"

/* A tokenizer of `vocabulary` tokens: the characters of all `count` texts, and the most frequent words of the
 * first `counted` of them.  Invalid UTF-8, or a vocabulary for which there are too many characters or too few
 * words, is an error.  The caller destroys it with kp_tokenizer_destroy. */
kp_status kp_word_tokenizer_create(const char *const *texts, const size_t *sizes, size_t count,
                                   size_t counted, int32_t vocabulary, kp_tokenizer **tokenizer,
                                   kp_error *error);

/* From the parsed file; the document stays the caller's. */
kp_status kp_word_tokenizer_from_json(const json_t *document, kp_tokenizer **tokenizer, kp_error *error);

#endif
