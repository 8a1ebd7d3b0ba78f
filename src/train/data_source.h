/* Where a run's tokens come from: the data section of a configuration, opened. */
#ifndef KAPPA_TRAIN_DATA_SOURCE_H
#define KAPPA_TRAIN_DATA_SOURCE_H

#include "core/config.h"
#include "core/path.h"
#include "data/token_file.h"

typedef struct kp_data_source {
  char folder[KP_PATH_SIZE]; /* of a prepared set; empty for bare token files */
  kp_tokens *train, *validation;
  kp_tokenizer *tokenizer; /* NULL for bare token files */
  int64_t vocabulary;      /* 0 when nothing says */
  double bytes_per_token;  /* of the validation text; 0 when unknown */
} kp_data_source;

/* Close with kp_data_source_close. */
kp_status kp_data_source_open(const kp_config *config, kp_data_source *source, kp_error *error);
void kp_data_source_close(kp_data_source *source);

#endif
