#include "data/document_paths.h"

#include <stdbool.h>
#include <string.h>

#include "core/directory.h"
#include "core/path.h"
#include "data/byte_source.h"

enum { DEEPEST = 32 }; /* folders in folders: links may go in circles */

static bool ends_in(const char *name, size_t length, const char *tail) {
  const size_t size = strlen(tail);
  return length > size && memcmp(name + length - size, tail, size) == 0;
}

/* Length of a name without the ending of its compression. */
static size_t bare_length(const char *name) {
  static const char *const endings[] = {".gz", ".zst", ".xz", ".bz2"};
  const size_t length = strlen(name);
  for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
    if (ends_in(name, length, endings[i])) return length - strlen(endings[i]);
  return length;
}

kp_document_format kp_document_format_of(const char *path) {
  const size_t length = bare_length(path);
  if (ends_in(path, length, ".jsonl") || ends_in(path, length, ".ndjson")) return KP_DOCUMENTS_LINES;
  return ends_in(path, length, ".json") ? KP_DOCUMENTS_JSON : KP_DOCUMENTS_TEXT;
}

/* Whether a file found in a folder holds documents: folders have other files too. */
static bool is_meant(const char *name) {
  return kp_document_format_of(name) != KP_DOCUMENTS_TEXT || ends_in(name, bare_length(name), ".txt");
}

static kp_status add_folder(kp_path_list *paths, const char *folder, int depth, kp_error *error) {
  kp_directory_listing listing;
  if (depth == DEEPEST)
    return kp_fail(error, KP_ERR_INPUT, "folder %s is more than %d folders deep", folder, DEEPEST);
  KP_TRY(kp_directory_list(folder, &listing, error));
  kp_status status = KP_OK;
  for (size_t i = 0; i < listing.count && status == KP_OK; i++) {
    char path[KP_PATH_SIZE];
    status = kp_path_join(path, folder, listing.names[i], error);
    if (status != KP_OK) break;
    const kp_path_kind kind = kp_path_kind_of(path);
    if (kind == KP_PATH_FOLDER) status = add_folder(paths, path, depth + 1, error);
    if (kind == KP_PATH_FILE && is_meant(path)) status = kp_path_list_append(paths, path, error);
  }
  kp_directory_listing_clear(&listing);
  return status;
}

/* Folders that match a pattern beside files are not meant. */
static kp_status add_pattern(kp_path_list *paths, const char *pattern, kp_error *error) {
  kp_path_list found = {0};
  kp_status status = kp_path_list_match(&found, pattern, error);
  for (size_t i = 0; status == KP_OK && i < found.count; i++)
    if (kp_path_kind_of(found.list[i]) != KP_PATH_FOLDER)
      status = kp_path_list_append(paths, found.list[i], error);
  kp_path_list_clear(&found);
  return status;
}

kp_status kp_document_paths_add(kp_path_list *paths, const char *path, kp_error *error) {
  const size_t before = paths->count;
  if (strcmp(path, KP_STANDARD_INPUT) == 0) return kp_path_list_append(paths, path, error);
  switch (kp_path_kind_of(path)) {
  case KP_PATH_FOLDER: KP_TRY(add_folder(paths, path, 0, error)); break;
  case KP_PATH_MISSING:
    if (!kp_path_is_pattern(path))
      return kp_fail(error, KP_ERR_IO, "cannot read %s: it does not exist", path);
    KP_TRY(add_pattern(paths, path, error));
    break;
  default: return kp_path_list_append(paths, path, error);
  }
  if (paths->count > before) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT,
                 "%s has no file named .txt, .json, .jsonl or .ndjson, compressed or not", path);
}
