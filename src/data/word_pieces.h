/* Cuts a text into words and single characters: the rule of data/word_tokenizer.h. */
#ifndef KAPPA_DATA_WORD_PIECES_H
#define KAPPA_DATA_WORD_PIECES_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

/* No piece has more characters than this. */
enum { KP_WORD_LONGEST = 63 };

/* The bytes and characters of the piece at the front of `text`, which has `size` > 0 bytes; no characters
 * where the text does not begin with valid UTF-8. */
void kp_word_piece(const char *text, size_t size, size_t *bytes, size_t *characters);

#endif
