/* Writes a byte-level BPE tokenizer as the tokenizer.json of Hugging Face's tokenizers. */
#ifndef KAPPA_DATA_BPE_SAVE_H
#define KAPPA_DATA_BPE_SAVE_H

#include "data/tokenizer.h"

/* The document, which belongs to the caller; NULL: no memory.  The tokenizer is of kind "bpe". */
json_t *kp_bpe_to_json(const kp_tokenizer *tokenizer);

/* The tokenizer is of kind "bpe".  Whole or not at all; data/bpe_json.h reads it back to the same
 * fingerprint. */
kp_status kp_bpe_save(const kp_tokenizer *tokenizer, const char *path, kp_error *error);

#endif
