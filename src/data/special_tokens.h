/* Finds the texts of special tokens in a text. */
#ifndef KAPPA_DATA_SPECIAL_TOKENS_H
#define KAPPA_DATA_SPECIAL_TOKENS_H

#include <stddef.h>

#include "data/tokenizer.h"

/* Sorts a list as the functions below need it: by bytes. */
void kp_specials_sort(kp_special_token *list, size_t count);

/* The first special token in text[begin .. end), the longest where several begin, and where it stands; NULL:
 * there is none.  None of the list is empty.  Linear in the text, however many there are. */
const kp_special_token *kp_specials_find(const kp_special_token *list, size_t count, const char *text,
                                         size_t begin, size_t end, size_t *at);

#endif
