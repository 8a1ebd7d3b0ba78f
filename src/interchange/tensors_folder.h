/* The files that hold a model's tensors: one, or the shards that an index lists. */
#ifndef KAPPA_INTERCHANGE_TENSORS_FOLDER_H
#define KAPPA_INTERCHANGE_TENSORS_FOLDER_H

#include <jansson.h>

#include "core/error.h"
#include "core/path.h"

typedef struct kp_tensor_files {
  char (*paths)[KP_PATH_SIZE];
  size_t count;
  json_t *places; /* tensor -> name of its file, or NULL without an index */
} kp_tensor_files;

/* Finds the files behind a path.  Clear after a failure too. */
kp_status kp_tensor_files_find(const char *path, kp_tensor_files *files, kp_error *error);
void kp_tensor_files_clear(kp_tensor_files *files);

#endif
