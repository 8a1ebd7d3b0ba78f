#include "interchange/whole_folder.h"

#include <string.h>

#include "core/directory.h"

kp_status kp_whole_folder_check(const char *path, kp_error *error) {
  KP_TRY(kp_path_check(path, error));
  if (kp_path_kind_of(path) == KP_PATH_MISSING) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "%s is there already: name a new folder", path);
}

kp_status kp_whole_folder_create(const char *given,
                                 kp_status (*fill)(const void *context, const char *folder, kp_error *error),
                                 const void *context, kp_error *error) {
  char path[KP_PATH_SIZE], temporary[KP_PATH_SIZE], parent[KP_PATH_SIZE];
  const char *name;
  KP_TRY(kp_path_join(path, "", given, error));
  for (size_t end = strlen(path); end > 1 && path[end - 1] == '/'; end--) path[end - 1] = 0;
  KP_TRY(kp_whole_folder_check(path, error));
  KP_TRY(kp_path_split(path, parent, &name, error));
  KP_TRY(kp_directory_create(parent, error));
  KP_TRY(kp_directory_create_temporary(path, temporary, error));
  kp_status status = fill(context, temporary, error);
  if (status == KP_OK) status = kp_directory_rename_atomic(temporary, path, error);
  if (status != KP_OK) kp_directory_remove_tree(temporary, NULL);
  return status;
}
