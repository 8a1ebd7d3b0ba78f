/* Which parameters a run changes: train.only and train.freeze, patterns over their names
 * (models/name_pattern.h).  The others have no gradient, no moments and no decay. */
#ifndef KAPPA_TRAIN_LEARNED_H
#define KAPPA_TRAIN_LEARNED_H

#include "models/model.h"

/* The lists belong to the configuration. */
typedef struct kp_learned {
  const char *const *only; /* none: all */
  size_t only_count;
  const char *const *freeze; /* of these, not */
  size_t freeze_count;
  bool adapters; /* those of train.lora; without `only` then all else is frozen but the head of labels */
} kp_learned;

kp_learned kp_learned_read(const kp_config *config);

/* Fills the table of an empty set of parameters and freezes those that `learned` (NULL: all are learned)
 * leaves out.  A pattern that no parameter has, and a choice that leaves nothing, are errors. */
kp_status kp_learned_apply(const kp_learned *learned, const kp_model_options *model,
                           kp_parameters *parameters, kp_error *error);

#endif
