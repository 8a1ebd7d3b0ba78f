#include "data/token_paths.h"

#include <glob.h>
#include <stdlib.h>
#include <string.h>

#include "core/path.h"

void kp_token_paths_free(kp_token_paths *paths) {
  for (size_t i = 0; i < paths->count; i++) free(paths->path[i]);
  free(paths->path);
  *paths = (kp_token_paths){0};
}

bool kp_token_path_is_bin(const char *path) {
  size_t length = strlen(path);
  return length >= 4 && strcmp(path + length - 4, ".bin") == 0;
}

static kp_status append(kp_token_paths *paths, const char *path, kp_error *error) {
  if (paths->count == paths->capacity) {
    size_t capacity = paths->capacity == 0 ? 16 : 2 * paths->capacity;
    char **grown = realloc(paths->path, capacity * sizeof *grown);
    if (grown == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for a list of %zu files", capacity);
    paths->path = grown;
    paths->capacity = capacity;
  }
  char *copy = strdup(path);
  if (copy == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for a path");
  paths->path[paths->count++] = copy;
  return KP_OK;
}

static const char *last_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash == NULL ? path : slash + 1;
}

/* A name with both words ("interval_train.bin") is one of training. */
static bool is_train(const char *path) {
  return strstr(last_name(path), "train") != NULL;
}
static bool is_validation(const char *path) {
  return !is_train(path) && strstr(last_name(path), "val") != NULL;
}

static bool in_split(const char *path, const char *split) {
  if (split == NULL) return true;
  return strcmp(split, "val") == 0 ? is_validation(path) : strstr(last_name(path), split) != NULL;
}

/* Refuses a folder that would mix what a model learns from with what it is judged by. */
static kp_status refuse_mixture(const char *folder, const glob_t *found, kp_error *error) {
  bool train = false, validation = false;
  for (size_t i = 0; i < found->gl_pathc; i++) {
    train |= is_train(found->gl_pathv[i]);
    validation |= is_validation(found->gl_pathv[i]);
  }
  if (!train || !validation) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "folder %s holds both train and val tokens; name one of the files",
                 folder);
}

/* Writes `folder` to `pattern` with the characters that glob would interpret escaped, then the tail. */
static kp_status folder_pattern(const char *folder, char pattern[KP_PATH_SIZE], kp_error *error) {
  static const char tail[] = "/*.bin";
  size_t used = 0;
  for (const char *at = folder; *at != 0; at++) {
    if (used + sizeof tail + 2 > KP_PATH_SIZE)
      return kp_fail(error, KP_ERR_INPUT, "the path %.60s... is too long", folder);
    if (strchr("*?[]\\", *at) != NULL) pattern[used++] = '\\';
    pattern[used++] = *at;
  }
  memcpy(pattern + used, tail, sizeof tail);
  return KP_OK;
}

static kp_status append_found(kp_token_paths *paths, const glob_t *found, const char *split,
                              kp_error *error) {
  for (size_t i = 0; i < found->gl_pathc; i++)
    if (in_split(found->gl_pathv[i], split)) KP_TRY(append(paths, found->gl_pathv[i], error));
  return KP_OK;
}

static kp_status add_folder(kp_token_paths *paths, const char *folder, const char *split, kp_error *error) {
  char pattern[KP_PATH_SIZE];
  KP_TRY(folder_pattern(folder, pattern, error));
  glob_t found = {0};
  size_t before = paths->count;
  int code = glob(pattern, 0, NULL, &found);
  kp_status status = KP_OK;
  if (code != 0 && code != GLOB_NOMATCH) status = kp_fail(error, KP_ERR_IO, "cannot read folder %s", folder);
  if (status == KP_OK && split == NULL) status = refuse_mixture(folder, &found, error);
  if (status == KP_OK) status = append_found(paths, &found, split, error);
  globfree(&found);
  if (status == KP_OK && paths->count == before)
    return kp_fail(error, KP_ERR_INPUT, "folder %s has no token file *%s*.bin", folder,
                   split == NULL ? "" : split);
  return status;
}

static kp_status add_pattern(kp_token_paths *paths, const char *pattern, kp_error *error) {
  glob_t found = {0};
  int code = glob(pattern, 0, NULL, &found);
  kp_status status = KP_OK;
  if (code == GLOB_NOMATCH)
    status = kp_fail(error, KP_ERR_INPUT, "no token file matches %s", pattern);
  else if (code != 0)
    status = kp_fail(error, KP_ERR_IO, "cannot look for token files %s", pattern);
  else
    status = append_found(paths, &found, NULL, error);
  globfree(&found);
  return status;
}

kp_status kp_token_paths_add(kp_token_paths *paths, const char *path, const char *split, kp_error *error) {
  switch (kp_path_kind_of(path)) {
  case KP_PATH_FOLDER: return add_folder(paths, path, split, error);
  case KP_PATH_MISSING:
    if (strpbrk(path, "*?[") != NULL) return add_pattern(paths, path, error);
    return kp_fail(error, KP_ERR_IO, "token file %s does not exist; has the data been prepared?", path);
  default: return append(paths, path, error);
  }
}
