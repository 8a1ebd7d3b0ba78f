#include "core/path.h"

#include <string.h>
#include <sys/stat.h>

kp_status kp_path_check(const char *path, kp_error *error) {
  size_t length = strlen(path);
  if (length == 0)
    return kp_fail(error, KP_ERR_INPUT, "the path is empty; give the name of a file or folder");
  if (length >= KP_PATH_SIZE)
    return kp_fail(error, KP_ERR_INPUT, "the path '%.60s...' has %zu characters; at most %d are allowed",
                   path, length, KP_PATH_SIZE - 1);
  return KP_OK;
}

kp_status kp_path_join(char out[KP_PATH_SIZE], const char *folder, const char *name, kp_error *error) {
  size_t folder_length = strlen(folder);
  size_t name_length = strlen(name);
  size_t slash = folder_length > 0 && folder[folder_length - 1] != '/' ? 1 : 0;
  size_t length = folder_length + slash + name_length;
  if (length >= KP_PATH_SIZE)
    return kp_fail(error, KP_ERR_INPUT,
                   "the path '%.60s.../%.60s' has %zu characters; at most %d are allowed", folder, name,
                   length, KP_PATH_SIZE - 1);
  memmove(out, folder, folder_length);
  if (slash) out[folder_length] = '/';
  memcpy(out + folder_length + slash, name, name_length + 1);
  return KP_OK;
}

kp_path_kind kp_path_kind_of(const char *path) {
  struct stat info;
  if (stat(path, &info) != 0) return KP_PATH_MISSING;
  if (S_ISREG(info.st_mode)) return KP_PATH_FILE;
  if (S_ISDIR(info.st_mode)) return KP_PATH_FOLDER;
  return KP_PATH_OTHER;
}

const char *kp_path_last_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash == NULL ? path : slash + 1;
}

kp_status kp_path_split(const char *path, char folder[KP_PATH_SIZE], const char **name, kp_error *error) {
  KP_TRY(kp_path_check(path, error));
  *name = kp_path_last_name(path);
  if (**name == 0 || strcmp(*name, ".") == 0 || strcmp(*name, "..") == 0)
    return kp_fail(error, KP_ERR_INPUT, "'%s' has no last name; leave out the end after the last '/'", path);
  if (*name == path) {
    memcpy(folder, ".", 2);
    return KP_OK;
  }
  const size_t slash = (size_t)(*name - path) - 1, length = slash == 0 ? 1 : slash;
  memcpy(folder, path, length);
  folder[length] = 0;
  return KP_OK;
}
