/* A token is a character: one Unicode scalar value.
 *
 * The vocabulary is the sorted set of the characters of a text, the same rule and so the same ids as
 * nanoGPT's shakespeare_char.  Nothing is normalised: text comes back byte for byte.
 *
 * File: {"type": "character", "characters": ["\n", " ", "!", ...], "fingerprint": "16 hexadecimal digits"};
 * the fingerprint is FNV-1a over the UTF-8 bytes of the characters in order, and optional when reading. */
#ifndef KAPPA_DATA_CHARACTER_TOKENIZER_H
#define KAPPA_DATA_CHARACTER_TOKENIZER_H

#include <jansson.h>

#include "data/tokenizer.h"

/* A tokenizer of the characters that occur in the `count` texts.  No character at all, or invalid UTF-8, is
 * an error.  The caller destroys it with kp_tokenizer_destroy. */
kp_status kp_character_tokenizer_create(const char *const *texts, const size_t *sizes, size_t count,
                                        kp_tokenizer **tokenizer, kp_error *error);

/* The file's document of a tokenizer of this kind, for the caller to release; NULL without memory for it. */
json_t *kp_character_tokenizer_to_json(const kp_tokenizer *tokenizer);

/* From the parsed file; the document stays the caller's. */
kp_status kp_character_tokenizer_from_json(const json_t *document, kp_tokenizer **tokenizer, kp_error *error);

#endif
