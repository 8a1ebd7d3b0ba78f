/* Folders: made, listed, removed, and made visible at once.
 *
 * A folder that must be seen whole or not at all is filled under a temporary
 * name and renamed:
 *
 *   kp_directory_create_temporary("run/checkpoints/step-100", temporary, error)
 *   ... kp_atomic_file writes into `temporary` ...
 *   kp_directory_rename_atomic(temporary, "run/checkpoints/step-100", error) */
#ifndef KAPPA_CORE_DIRECTORY_H
#define KAPPA_CORE_DIRECTORY_H

#include "core/error.h"
#include "core/path.h"

#include <stddef.h>

/* Makes the folder and all that lead to it; folders that exist are fine, a
 * file in the way is an error that names it. */
kp_status kp_directory_create(const char *path, kp_error *error);

/* Makes an empty folder with a temporary name beside `target`, whose parent
 * must exist, and writes its path to `temporary`. */
kp_status kp_directory_create_temporary(const char *target, char temporary[KP_PATH_SIZE], kp_error *error);

/* Gives the folder `from` the name `to` in one step that a crash cannot split.
 * Both have the same file system; `to` must not exist.  The files inside must
 * be on disk already, as kp_atomic_file leaves them. */
kp_status kp_directory_rename_atomic(const char *from, const char *to, kp_error *error);

/* Removes a folder and all that is in it.  Links inside are removed, never
 * followed.  A folder that is not there is fine.  Refused are a path that is
 * itself a link or a file, "/", ".", "..", and a tree with another file
 * system mounted inside. */
kp_status kp_directory_remove_tree(const char *path, kp_error *error);

/* Removes what a killed process left half written in the folder (not in the
 * folders below it).  Call it while holding the folder's lock, or the halves of
 * another writer go too. */
kp_status kp_directory_remove_temporaries(const char *path, kp_error *error);

/* Names in a folder, sorted by their bytes; those that start with a dot are
 * left out, which covers all temporaries. */
typedef struct kp_directory_listing {
  char **names;
  size_t count;
} kp_directory_listing;

/* Lists a folder; the caller ends with kp_directory_listing_clear. */
kp_status kp_directory_list(const char *path, kp_directory_listing *listing, kp_error *error);
void kp_directory_listing_clear(kp_directory_listing *listing);

#endif
