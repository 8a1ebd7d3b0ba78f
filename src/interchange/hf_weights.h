/* The tensors of a Hugging Face folder: model.safetensors, or shards that model.safetensors.index.json lists.
 */
#ifndef KAPPA_INTERCHANGE_HF_WEIGHTS_H
#define KAPPA_INTERCHANGE_HF_WEIGHTS_H

#include <stdbool.h>
#include <stddef.h>

#include "core/safetensors.h"

enum { KP_HF_MAX_SHARDS = 4096 };

typedef struct kp_hf_tensor {
  const kp_safetensors_entry *entry;
  bool used;
} kp_hf_tensor;

typedef struct kp_hf_weights {
  char folder[4096]; /* for messages */
  kp_safetensors **files;
  char **names; /* of the shards, in the folder */
  size_t file_count;
  kp_hf_tensor *tensors; /* sorted by name */
  size_t count;
} kp_hf_weights;

/* Opens the folder's tensors.  Every tensor of an index must be in the shard that it names, and a shard must
 * be a file of the folder.  Clear it also after a failure. */
kp_status kp_hf_weights_open(const char *folder, kp_hf_weights *weights, kp_error *error);
void kp_hf_weights_clear(kp_hf_weights *weights);

/* The tensor of that name, or NULL. */
kp_hf_tensor *kp_hf_weights_find(const kp_hf_weights *weights, const char *name);

/* Copies a tensor as doubles and marks it used.  Its shape must be the given one; one that is missing is an
 * error that names it. */
kp_status kp_hf_weights_read(kp_hf_weights *weights, const char *name, int rank, const int64_t *shape,
                             double *values, kp_error *error);

#endif
