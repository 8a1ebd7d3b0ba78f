/* Names of files and folders: joining them, and what stands at one.
 *
 * A path is a C string of at most KP_PATH_SIZE - 1 bytes; whatever is longer
 * is refused with an error, never cut. */
#ifndef KAPPA_CORE_PATH_H
#define KAPPA_CORE_PATH_H

#include "core/error.h"

/* Bytes of a path with its final zero, as Linux has it. */
#define KP_PATH_SIZE 4096

/* What is being written has such a name until it is complete.  A crash can
 * leave one behind: see kp_directory_remove_temporaries. */
#define KP_TEMPORARY_PREFIX ".kappa-tmp-"

typedef enum kp_path_kind {
  KP_PATH_MISSING, /* nothing is there, or nothing that may be looked at */
  KP_PATH_FILE,    /* a regular file */
  KP_PATH_FOLDER,
  KP_PATH_OTHER, /* a device, a pipe, a socket */
} kp_path_kind;

/* Writes "folder/name" to `out`.  No second slash is put after a folder that
 * ends with one, and an empty folder gives the name alone.  `out` may be
 * `folder` itself. */
kp_status kp_path_join(char out[KP_PATH_SIZE], const char *folder, const char *name, kp_error *error);

/* Refuses an empty path and one of KP_PATH_SIZE bytes or more. */
kp_status kp_path_check(const char *path, kp_error *error);

/* What stands at the path; symbolic links are followed. */
kp_path_kind kp_path_kind_of(const char *path);

/* What stands behind the last slash of a path or an address: all of it when it
 * has none, nothing when it ends with one. */
const char *kp_path_last_name(const char *path);

/* Splits a path into its folder ("." when it names none) and the last name,
 * which points into `path`.  A path that ends with a slash has no last name
 * and is refused. */
kp_status kp_path_split(const char *path, char folder[KP_PATH_SIZE], const char **name, kp_error *error);

#endif
