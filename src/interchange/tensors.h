/* Named tensors of a model's files, whatever the format: what importers read from.
 *
 * Understood are one safetensors file, one PyTorch file (.pt, .pth, .bin: the zip that torch.save has written
 * since 1.6, interchange/torch_file.h), and a folder that holds the weights of one model: with
 * model.safetensors.index.json or pytorch_model.bin.index.json and its shards, or with a single file.
 *
 * Of a PyTorch checkpoint the model's tensors are taken: those under "model", "model_state_dict",
 * "state_dict" or "module" where the file has such a part, else all of them, with names joined by dots;
 * moments of an optimizer are not.  Of any file the prefixes "_orig_mod." (torch.compile) and "module." (data
 * parallel) that stand in front of every name are taken off. */
#ifndef KAPPA_INTERCHANGE_TENSORS_H
#define KAPPA_INTERCHANGE_TENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "core/dtype.h"
#include "core/error.h"
#include "core/safetensors.h"

enum { KP_TENSORS_MAX_RANK = KP_SAFETENSORS_MAX_RANK };

/* A model's tensors; lives until kp_tensors_close. */
typedef struct kp_tensors kp_tensors;

typedef struct kp_tensors_entry {
  const char *name; /* UTF-8 */
  kp_dtype dtype;
  int rank; /* 0 for a scalar */
  int64_t shape[KP_TENSORS_MAX_RANK];
  int64_t strides[KP_TENSORS_MAX_RANK]; /* in elements, never negative: a transposed view has its own */
  int64_t elements;                     /* product of the shape */
  const unsigned char *data;            /* element 0 in a mapped file, perhaps unaligned */
} kp_tensors_entry;

/* Opens a file or a folder.  *tensors is NULL on failure; the caller closes it. */
kp_status kp_tensors_open(const char *path, kp_tensors **tensors, kp_error *error);

/* NULL is allowed. */
void kp_tensors_close(kp_tensors *tensors);

/* Whether the path looks like something that kp_tensors_open reads: by names and first bytes only. */
bool kp_tensors_recognises(const char *path);

/* Entries by name, ascending. */
size_t kp_tensors_count(const kp_tensors *tensors);
const kp_tensors_entry *kp_tensors_at(const kp_tensors *tensors, size_t index);

/* The entry of that name, or NULL; and with an error that names file and tensor. */
const kp_tensors_entry *kp_tensors_find(const kp_tensors *tensors, const char *name);
kp_status kp_tensors_require(const kp_tensors *tensors, const char *name, const kp_tensors_entry **entry,
                             kp_error *error);

/* Copies the elements, row-major, as doubles or floats: every type converts, floats round to nearest, and a
 * number too large for a float is an error.  The entry counts as used from then on. */
kp_status kp_tensors_read(kp_tensors *tensors, const kp_tensors_entry *entry, double *values,
                          kp_error *error);
kp_status kp_tensors_read_floats(kp_tensors *tensors, const kp_tensors_entry *entry, float *values,
                                 kp_error *error);

/* For entries that mean nothing (stored masks, tied copies): they count as used. */
void kp_tensors_mark(kp_tensors *tensors, const kp_tensors_entry *entry);

/* The first entry that was neither read nor marked; NULL: none. */
const char *kp_tensors_unused(const kp_tensors *tensors);

/* What a PyTorch checkpoint says beside its tensors: its numbers, texts and lists outside of the model's part
 * ("model_args", "iter_num"; the optimizer's are left out).  An object, empty for other files; it belongs to
 * `tensors`. */
const json_t *kp_tensors_settings(const kp_tensors *tensors);

/* The path that was opened, for messages. */
const char *kp_tensors_label(const kp_tensors *tensors);

#endif
