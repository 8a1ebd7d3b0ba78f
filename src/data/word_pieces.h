/* Cuts a text into words and single characters: the rule of data/word_tokenizer.h. */
#ifndef KAPPA_DATA_WORD_PIECES_H
#define KAPPA_DATA_WORD_PIECES_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

/* The bytes and characters of the piece at the front of `text`, which has `size` > 0 bytes; no characters
 * where the text does not begin with valid UTF-8. */
void kp_word_piece(const char *text, size_t size, size_t *bytes, size_t *characters);

#endif
