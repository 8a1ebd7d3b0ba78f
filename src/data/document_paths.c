#include "data/document_paths.h"

#include <glob.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/directory.h"
#include "core/path.h"
#include "data/byte_source.h"

enum { DEEPEST = 32 }; /* folders in folders: links may go in circles */

void kp_document_paths_clear(kp_document_paths *paths) {
  for (size_t i = 0; i < paths->count; i++) free(paths->list[i]);
  free(paths->list);
  *paths = (kp_document_paths){0};
}

static kp_status append(kp_document_paths *paths, const char *path, kp_error *error) {
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

static kp_status add_folder(kp_document_paths *paths, const char *folder, int depth, kp_error *error) {
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
    if (kind == KP_PATH_FILE && is_meant(path)) status = append(paths, path, error);
  }
  kp_directory_listing_clear(&listing);
  return status;
}

static kp_status add_pattern(kp_document_paths *paths, const char *pattern, kp_error *error) {
  glob_t found = {0};
  const int code = glob(pattern, 0, NULL, &found);
  kp_status status = KP_OK;
  if (code == GLOB_NOMATCH)
    status = kp_fail(error, KP_ERR_INPUT, "no file matches %s", pattern);
  else if (code != 0)
    status = kp_fail(error, KP_ERR_IO, "cannot look for files %s", pattern);
  for (size_t i = 0; status == KP_OK && i < found.gl_pathc; i++)
    if (kp_path_kind_of(found.gl_pathv[i]) != KP_PATH_FOLDER)
      status = append(paths, found.gl_pathv[i], error);
  globfree(&found);
  return status;
}

kp_status kp_document_paths_add(kp_document_paths *paths, const char *path, kp_error *error) {
  const size_t before = paths->count;
  if (strcmp(path, KP_STANDARD_INPUT) == 0) return append(paths, path, error);
  switch (kp_path_kind_of(path)) {
  case KP_PATH_FOLDER: KP_TRY(add_folder(paths, path, 0, error)); break;
  case KP_PATH_MISSING:
    if (strpbrk(path, "*?[") == NULL)
      return kp_fail(error, KP_ERR_IO, "cannot read %s: it does not exist", path);
    KP_TRY(add_pattern(paths, path, error));
    break;
  default: return append(paths, path, error);
  }
  if (paths->count > before) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT,
                 "%s has no file named .txt, .json, .jsonl or .ndjson, compressed or not", path);
}
