/* A list of paths that grows, and the files that a pattern means. */
#ifndef KAPPA_DATA_PATH_LIST_H
#define KAPPA_DATA_PATH_LIST_H

#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"

/* Zero-initialise; kp_path_list_clear frees what it holds. */
typedef struct kp_path_list {
  char **list;
  size_t count, capacity;
} kp_path_list;

/* Appends a copy of the path. */
kp_status kp_path_list_append(kp_path_list *paths, const char *path, kp_error *error);

/* Whether a path has characters of a pattern ("books/[a-m]*.txt"). */
bool kp_path_is_pattern(const char *path);

/* Appends what matches the pattern, files and folders, in the order of the names; nothing is an error. */
kp_status kp_path_list_match(kp_path_list *paths, const char *pattern, kp_error *error);

void kp_path_list_clear(kp_path_list *paths);

#endif
