/* Which token files a user's words mean: files, patterns and folders; see kp_tokens_open. */
#ifndef KAPPA_DATA_TOKEN_PATHS_H
#define KAPPA_DATA_TOKEN_PATHS_H

#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"

/* A list of paths that grows.  Zero-initialise; kp_token_paths_free frees what it holds. */
typedef struct kp_token_paths {
  char **path;
  size_t count, capacity;
} kp_token_paths;

/* Adds the files that `path` means; none is an error. */
kp_status kp_token_paths_add(kp_token_paths *paths, const char *path, const char *split, kp_error *error);

void kp_token_paths_free(kp_token_paths *paths);

/* Whether a file's name ends in ".bin", and so may hold raw tokens. */
bool kp_token_path_is_bin(const char *path);

#endif
