/* A tensor of a PyTorch file: from the call that would rebuild it to bytes in the archive. */
#ifndef KAPPA_INTERCHANGE_TORCH_TENSOR_H
#define KAPPA_INTERCHANGE_TORCH_TENSOR_H

#include "interchange/pickle.h"
#include "interchange/tensors.h"
#include "interchange/torch_zip.h"

/* Where storages are found. */
typedef struct kp_torch_archive {
  kp_zip zip;
  const char *folder; /* the name in front of every entry's, with its slash: (folder_size) */
  size_t folder_size;
  const char *label;
} kp_torch_archive;

/* Whether the value is a tensor. */
bool kp_torch_is_tensor(const kp_pickle_value *value);

/* Fills all of *entry but the name, which messages call it by. */
kp_status kp_torch_tensor(const kp_torch_archive *archive, const kp_pickle_value *value, const char *name,
                          kp_tensors_entry *entry, kp_error *error);

#endif
