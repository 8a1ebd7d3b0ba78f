/* Where a run's tokens come from: the data section of a configuration, opened. */
#ifndef KAPPA_TRAIN_DATA_SOURCE_H
#define KAPPA_TRAIN_DATA_SOURCE_H

#include "core/config.h"
#include "core/path.h"
#include "data/labelled.h"
#include "data/token_file.h"

typedef struct kp_data_source {
  char folder[KP_PATH_SIZE];     /* of a prepared set; empty for bare token files */
  kp_tokens *train, *validation; /* of a labelled set: the tokens of its examples, which the set owns */
  kp_tokenizer *tokenizer;       /* NULL for bare token files */
  kp_data_shape shape;           /* its task is that of the folder */
  double bytes_per_token;        /* of the validation text; 0 when unknown, or of a labelled set */
  int32_t separator;             /* the token behind each document, as the prepared set says; -1: unknown */
  bool dialogue;                 /* the tokens are conversations, which their indices cut out */
  kp_labelled_set labelled;      /* empty unless shape.task is another than language */
} kp_data_source;

/* Close with kp_data_source_close. */
kp_status kp_data_source_open(const kp_config *config, kp_data_source *source, kp_error *error);
void kp_data_source_close(kp_data_source *source);

#endif
