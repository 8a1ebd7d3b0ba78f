/* What the importers of the original projects share.  Their checkpoints are tensors, and at best a few sizes
 * beside them; the rest of the configuration is read off the tensors' shapes, or given by the user. */
#ifndef KAPPA_INTERCHANGE_ORIGINALS_IMPORT_H
#define KAPPA_INTERCHANGE_ORIGINALS_IMPORT_H

#include "interchange/import.h"
#include "interchange/tensors.h"

typedef struct kp_original_format {
  const char *what;          /* "nGPT": for run.json */
  const char *rules;         /* the family of kp_original_rules */
  const char *const *needed; /* keys that the file may not tell, NULL behind the last */
  /* Finds out whether a tensor has nothing to say of the model, and may go unused. */
  kp_status (*skips)(kp_tensors *tensors, const kp_tensors_entry *entry, bool *skipped, kp_error *error);
  /* Says what the file tells.  A tensor that is missing or of a strange shape is an error. */
  kp_status (*describe)(const kp_tensors *tensors, kp_import_settings *settings, kp_imported *imported,
                        kp_error *error);
} kp_original_format;

/* The functions of a kp_importer, of which `open` needs the format. */
kp_status kp_original_open(const kp_original_format *format, const char *path,
                           const kp_import_options *options, kp_imported *imported, kp_error *error);
kp_status kp_original_read(kp_imported *imported, const char *name, int dimensions, const int64_t *shape,
                           double *values, kp_error *error);
const char *kp_original_unused(const kp_imported *imported);
void kp_original_close(kp_imported *imported);

/* Whether the path holds tensors among which is one of that name. */
bool kp_original_has(const char *path, const char *name);

/* Whether the name is one of the patterns (%d: a block), NULL behind the last. */
bool kp_original_is_one_of(const char *name, const char *const *patterns);

/* ---- looking at tensors ---- */

/* A dimension of a tensor; 0 when there is no such tensor or dimension. */
int64_t kp_original_size(const kp_tensors *tensors, const char *name, int dimension);

/* How many of the tensors `pattern` with 0, 1, … for its %d are there without a gap. */
int64_t kp_original_blocks(const kp_tensors *tensors, const char *pattern);

/* The same, but none is an error that names the first. */
kp_status kp_original_require_blocks(const kp_tensors *tensors, const char *pattern, int64_t *count,
                                     kp_error *error);
kp_status kp_original_require_size(const kp_tensors *tensors, const char *name, int dimension, int64_t *size,
                                   kp_error *error);

/* Sets `key` to a number or truth value that the checkpoint's "model_args" have under `argument`, if it does.
 */
void kp_original_argument(const kp_tensors *tensors, const char *argument, const char *key,
                          kp_import_settings *settings);
const json_t *kp_original_arguments(const kp_tensors *tensors);

extern const kp_importer kp_importer_mixed, kp_importer_nanogpt, kp_importer_ngpt, kp_importer_helm;

#endif
