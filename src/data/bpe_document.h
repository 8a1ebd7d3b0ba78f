/* A byte-level BPE tokenizer as the document that Hugging Face's tokenizers read: tokenizer.json. */
#ifndef KAPPA_DATA_BPE_DOCUMENT_H
#define KAPPA_DATA_BPE_DOCUMENT_H

#include <stddef.h>

#include <jansson.h>

#include "core/error.h"
#include "data/bpe_learn.h"

/* Special token i has id i; the learned token j has id special_count + j.  `pattern` is that of the
 * pretokenizer (data/pretokenizer.h).  *document belongs to the caller. */
kp_status kp_bpe_document(const kp_bpe_learned *learned, const char *pattern, const char *const *specials,
                          size_t special_count, json_t **document, kp_error *error);

#endif
