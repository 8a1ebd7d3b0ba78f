/* The tokenizer of a set that is made, when it is made of the set's own texts: byte-level BPE
 * (data/bpe_train.h) with one special token, <|endoftext|>, which ends documents.  Other ways are those of
 * kp_tokenizer_open and, for characters and words, of data/prepare.c. */
#ifndef KAPPA_DATA_PREPARE_TOKENIZER_H
#define KAPPA_DATA_PREPARE_TOKENIZER_H

#include "data/document_batch.h"
#include "data/prepare.h"

/* Learns from one text, or from the documents of a feed that are for training, and writes the tokenizer to
 * the folder, which kp_prepared_begin has marked.  The caller destroys *tokenizer. */
kp_status kp_prepare_learn_text(const kp_prepare_options *options, kp_text_view text,
                                kp_tokenizer **tokenizer, kp_error *error);
kp_status kp_prepare_learn_documents(const kp_prepare_options *options, kp_document_feed *feed,
                                     kp_tokenizer **tokenizer, kp_error *error);

#endif
