/* Which token files a user's words mean: files, patterns and folders; see kp_tokens_open. */
#ifndef KAPPA_DATA_TOKEN_PATHS_H
#define KAPPA_DATA_TOKEN_PATHS_H

#include <stdbool.h>

#include "core/error.h"
#include "data/path_list.h"

/* Adds the files that `path` means; none is an error. */
kp_status kp_token_paths_add(kp_path_list *paths, const char *path, const char *split, kp_error *error);

/* The same for files that are taken each alone: a folder may hold both train and val tokens. */
kp_status kp_token_paths_add_mixed(kp_path_list *paths, const char *path, kp_error *error);

/* Whether a file's name ends in ".bin", and so may hold raw tokens. */
bool kp_token_path_is_bin(const char *path);

#endif
