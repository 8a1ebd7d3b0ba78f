#include "data/path_list.h"

#include <glob.h>
#include <stdlib.h>
#include <string.h>

kp_status kp_path_list_append(kp_path_list *paths, const char *path, kp_error *error) {
  if (paths->count == paths->capacity) {
    const size_t capacity = paths->capacity == 0 ? 16 : 2 * paths->capacity;
    char **grown = realloc(paths->list, capacity * sizeof *grown);
    if (grown == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for a list of %zu files", capacity);
    paths->list = grown;
    paths->capacity = capacity;
  }
  char *copy = strdup(path);
  if (copy == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for a path");
  paths->list[paths->count++] = copy;
  return KP_OK;
}

bool kp_path_is_pattern(const char *path) {
  return strpbrk(path, "*?[") != NULL;
}

kp_status kp_path_list_match(kp_path_list *paths, const char *pattern, kp_error *error) {
  glob_t found = {0};
  const int code = glob(pattern, 0, NULL, &found);
  kp_status status = KP_OK;
  if (code == GLOB_NOMATCH)
    status = kp_fail(error, KP_ERR_INPUT, "no file matches %s", pattern);
  else if (code != 0)
    status = kp_fail(error, KP_ERR_IO, "cannot look for files %s", pattern);
  for (size_t i = 0; status == KP_OK && i < found.gl_pathc; i++)
    status = kp_path_list_append(paths, found.gl_pathv[i], error);
  globfree(&found);
  return status;
}

void kp_path_list_clear(kp_path_list *paths) {
  for (size_t i = 0; i < paths->count; i++) free(paths->list[i]);
  free(paths->list);
  *paths = (kp_path_list){0};
}
