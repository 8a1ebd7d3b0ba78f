/* Low-rank adapters in runs (train.lora; models/parts/adapter.c has the mathematics).
 *
 * A run with adapters keeps the whole model in its checkpoints, base and adapters side by side: it can be
 * gone on with, copied and sampled without the run that it started from.  The moments, twice a model's size
 * elsewhere, are those of the adapters alone.  Whoever opens such a run gets the model with the adapters
 * folded in, of the names and shapes of any other. */
#ifndef KAPPA_TRAIN_LORA_H
#define KAPPA_TRAIN_LORA_H

#include "core/safetensors.h"
#include "models/model.h"

/* Its list belongs to the configuration. */
kp_lora_options kp_lora_read(const kp_config *config);

/* Whether a parameter of that name is part of an adapter. */
bool kp_is_adapter(const char *name);

/* Fails unless the table has adapters. */
kp_status kp_lora_check(const kp_parameters *parameters, kp_error *error);

/* Adds to the weights of a model without adapters, W ← W + (α/r) B A, those that stand in the file. */
kp_status kp_lora_fold(const kp_safetensors *file, const kp_lora_options *lora, kp_parameters *parameters,
                       kp_error *error);

#endif
