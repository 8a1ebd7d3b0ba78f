/* What the two ways of preparing a text share: data/prepare.c and data/prepare_documents.c. */
#ifndef KAPPA_DATA_PREPARE_PRIVATE_H
#define KAPPA_DATA_PREPARE_PRIVATE_H

#include "data/prepare.h"
#include "data/tokenizer.h"

/* Name, source and licence of the set. */
void kp_prepare_describe(const kp_prepare_options *options, kp_prepared *prepared);

/* Whether the set's tokenizer is learned from it: data/prepare_tokenizer.h. */
bool kp_prepare_learns(const kp_prepare_options *options);

/* kp_prepare for documents; the options are complete. */
kp_status kp_prepare_documents(const kp_prepare_options *options, kp_prepared *prepared, bool *fresh,
                               kp_error *error);

#endif
