#include "data/token_paths.h"

#include <string.h>

#include "core/directory.h"
#include "core/path.h"

bool kp_token_path_is_bin(const char *path) {
  size_t length = strlen(path);
  return length >= 4 && strcmp(path + length - 4, ".bin") == 0;
}

/* A name with both words ("interval_train.bin") is one of training. */
static bool is_train(const char *name) {
  return strstr(name, "train") != NULL;
}
static bool is_validation(const char *name) {
  return !is_train(name) && strstr(name, "val") != NULL;
}

static bool in_split(const char *name, const char *split) {
  if (split == NULL) return true;
  return strcmp(split, "val") == 0 ? is_validation(name) : strstr(name, split) != NULL;
}

/* Refuses a folder that would mix what a model learns from with what it is judged by. */
static kp_status refuse_mixture(const char *folder, const kp_directory_listing *listing, kp_error *error) {
  bool train = false, validation = false;
  for (size_t i = 0; i < listing->count; i++) {
    if (!kp_token_path_is_bin(listing->names[i])) continue;
    train |= is_train(listing->names[i]);
    validation |= is_validation(listing->names[i]);
  }
  if (!train || !validation) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "folder %s holds both train and val tokens; name one of the files",
                 folder);
}

static kp_status append_listed(kp_path_list *paths, const char *folder, const kp_directory_listing *listing,
                               const char *split, kp_error *error) {
  char path[KP_PATH_SIZE];
  for (size_t i = 0; i < listing->count; i++) {
    if (!kp_token_path_is_bin(listing->names[i]) || !in_split(listing->names[i], split)) continue;
    KP_TRY(kp_path_join(path, folder, listing->names[i], error));
    KP_TRY(kp_path_list_append(paths, path, error));
  }
  return KP_OK;
}

static kp_status add_folder(kp_path_list *paths, const char *folder, const char *split, bool mixed,
                            kp_error *error) {
  kp_directory_listing listing;
  const size_t before = paths->count;
  KP_TRY(kp_directory_list(folder, &listing, error));
  kp_status status = KP_OK;
  if (split == NULL && !mixed) status = refuse_mixture(folder, &listing, error);
  if (status == KP_OK) status = append_listed(paths, folder, &listing, split, error);
  kp_directory_listing_clear(&listing);
  if (status != KP_OK || paths->count > before) return status;
  return kp_fail(error, KP_ERR_INPUT, "folder %s has no token file *%s%s.bin", folder,
                 split == NULL ? "" : split, split == NULL ? "" : "*");
}

static kp_status add(kp_path_list *paths, const char *path, const char *split, bool mixed, kp_error *error) {
  switch (kp_path_kind_of(path)) {
  case KP_PATH_FOLDER: return add_folder(paths, path, split, mixed, error);
  case KP_PATH_MISSING:
    if (kp_path_is_pattern(path)) return kp_path_list_match(paths, path, error);
    return kp_fail(error, KP_ERR_IO, "token file %s does not exist; has the data been prepared?", path);
  default: return kp_path_list_append(paths, path, error);
  }
}

kp_status kp_token_paths_add(kp_path_list *paths, const char *path, const char *split, kp_error *error) {
  return add(paths, path, split, false, error);
}

kp_status kp_token_paths_add_mixed(kp_path_list *paths, const char *path, kp_error *error) {
  return add(paths, path, NULL, true, error);
}
