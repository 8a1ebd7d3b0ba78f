/* Token ids as text: "15496 995", "15496, 995", "[15496, 995]". */
#ifndef KAPPA_DATA_ID_TEXT_H
#define KAPPA_DATA_ID_TEXT_H

#include <stddef.h>

#include "core/error.h"
#include "data/tokenizer.h"

/* Appends the ids of a text: whole numbers from 0 on with white space, commas and brackets between them.
 * Anything else, and a number that no id can be, is an error that quotes it and names its line and byte. */
kp_status kp_ids_read_text(const char *text, size_t size, kp_ids *ids, kp_error *error);

#endif
