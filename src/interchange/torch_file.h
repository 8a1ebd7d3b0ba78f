/* Files of torch.save: a zip archive of a pickle and of one entry for each storage.
 *
 *   NAME/data.pkl     the saved object; tensors in it name a storage, an offset, a shape and strides
 *   NAME/data/KEY     the bytes of storage KEY, as they lay in memory
 *   NAME/byteorder    "little"
 *
 * No code in the pickle is executed (interchange/pickle.h).  Which tensors of a checkpoint are taken says
 * interchange/tensors.h.  The format of torch before 1.6, which is no zip, is refused with what to do. */
#ifndef KAPPA_INTERCHANGE_TORCH_FILE_H
#define KAPPA_INTERCHANGE_TORCH_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#include "interchange/tensors.h"

typedef struct kp_torch kp_torch;

/* Whether the first bytes of a file are those of a PyTorch file, of either format. */
bool kp_torch_recognises(const unsigned char *data, size_t size);

/* Reads a file whose bytes outlive the result; `label` names it in messages.  *file is NULL on failure. */
kp_status kp_torch_parse(const void *data, size_t size, const char *label, kp_torch **file, kp_error *error);

/* NULL is allowed. */
void kp_torch_close(kp_torch *file);

/* The model's tensors, by name; they live as long as the file. */
const kp_tensors_entry *kp_torch_entries(const kp_torch *file, size_t *count);

/* What the checkpoint says beside its tensors; an object of the file's. */
json_t *kp_torch_settings(const kp_torch *file);

#endif
