/* A folder that appears with all that is in it, or not at all. */
#ifndef KAPPA_INTERCHANGE_WHOLE_FOLDER_H
#define KAPPA_INTERCHANGE_WHOLE_FOLDER_H

#include "core/error.h"

/* Fails unless nothing stands at the path. */
kp_status kp_whole_folder_check(const char *path, kp_error *error);

/* Calls `fill` with a temporary folder, which gets the name `path` when that succeeds and is removed when it
 * does not.  Folders that lead to `path` are made. */
kp_status kp_whole_folder_create(const char *path,
                                 kp_status (*fill)(const void *context, const char *folder, kp_error *error),
                                 const void *context, kp_error *error);

#endif
