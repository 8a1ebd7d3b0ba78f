#include "interchange/tensors_folder.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/directory.h"
#include "core/json_text.h"

enum { MOST_SHARDS = 4096 };

void kp_tensor_files_clear(kp_tensor_files *files) {
  free(files->paths);
  json_decref(files->places);
  *files = (kp_tensor_files){0};
}

static kp_status add_file(kp_tensor_files *files, const char *folder, const char *name, kp_error *error) {
  void *grown = realloc(files->paths, (files->count + 1) * sizeof *files->paths);
  if (grown == NULL) return kp_fail(error, KP_ERR_MEMORY, "not enough memory for '%s'", name);
  files->paths = grown;
  if (folder == NULL) {
    KP_TRY(kp_path_check(name, error));
    strcpy(files->paths[files->count], name);
  } else {
    KP_TRY(kp_path_join(files->paths[files->count], folder, name, error));
  }
  files->count++;
  return KP_OK;
}

static kp_status add_shard(kp_tensor_files *files, const char *folder, const char *index, const char *tensor,
                           const json_t *place, kp_error *error) {
  const char *name = json_string_value(place);
  if (name == NULL || name[0] == 0 || strchr(name, '/') != NULL || name[0] == '.')
    return kp_fail(error, KP_ERR_INPUT, "'%s' has no plain file name for the tensor '%.120s'", index, tensor);
  for (size_t i = 0; i < files->count; i++)
    if (strcmp(kp_path_last_name(files->paths[i]), name) == 0) return KP_OK;
  if (files->count == MOST_SHARDS)
    return kp_fail(error, KP_ERR_INPUT, "'%s' lists more than %d files", index, MOST_SHARDS);
  KP_TRY(add_file(files, folder, name, error));
  if (kp_path_kind_of(files->paths[files->count - 1]) == KP_PATH_FILE) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "'%s' lists the file '%.120s', which is not there; copy it too", index,
                 name);
}

static kp_status read_index(kp_tensor_files *files, const char *folder, const char *index, kp_error *error) {
  json_t *document;
  KP_TRY(kp_json_read_file(index, &document, error));
  files->places = json_incref(json_object_get(document, "weight_map"));
  json_decref(document);
  if (json_object_size(files->places) == 0)
    return kp_fail(error, KP_ERR_INPUT, "'%s' has no \"weight_map\" from tensors to files", index);
  const char *tensor;
  json_t *place;
  json_object_foreach(files->places, tensor, place)
      KP_TRY(add_shard(files, folder, index, tensor, place, error));
  return KP_OK;
}

static bool ends_in(const char *name, const char *ending) {
  const size_t size = strlen(name), tail = strlen(ending);
  return size > tail && strcmp(name + size - tail, ending) == 0;
}

/* The only file of the folder with one of the usual endings. */
static kp_status find_single(kp_tensor_files *files, const char *folder, const kp_directory_listing *listing,
                             kp_error *error) {
  static const char *const endings[] = {".safetensors", ".pt", ".pth", ".bin"};
  for (size_t e = 0; e < sizeof endings / sizeof *endings && files->count == 0; e++)
    for (size_t i = 0; i < listing->count; i++)
      if (ends_in(listing->names[i], endings[e])) KP_TRY(add_file(files, folder, listing->names[i], error));
  if (files->count == 1) return KP_OK;
  if (files->count == 0)
    return kp_fail(error, KP_ERR_INPUT,
                   "the folder '%s' has no tensors: no .safetensors, .pt, .pth or .bin file", folder);
  return kp_fail(error, KP_ERR_INPUT,
                 "the folder '%s' has several files of tensors ('%.80s', '%.80s') and no "
                 "index of them; name one",
                 folder, kp_path_last_name(files->paths[0]), kp_path_last_name(files->paths[1]));
}

static kp_status find_in_folder(kp_tensor_files *files, const char *folder, kp_error *error) {
  static const char *const usual[] = {"model.safetensors", "pytorch_model.bin"};
  static const char *const indices[] = {"model.safetensors.index.json", "pytorch_model.bin.index.json"};
  char path[KP_PATH_SIZE];
  for (size_t i = 0; i < 2; i++) {
    KP_TRY(kp_path_join(path, folder, indices[i], error));
    if (kp_path_kind_of(path) == KP_PATH_FILE) return read_index(files, folder, path, error);
    KP_TRY(kp_path_join(path, folder, usual[i], error));
    if (kp_path_kind_of(path) == KP_PATH_FILE) return add_file(files, folder, usual[i], error);
  }
  kp_directory_listing listing;
  KP_TRY(kp_directory_list(folder, &listing, error));
  kp_status status = find_single(files, folder, &listing, error);
  kp_directory_listing_clear(&listing);
  return status;
}

kp_status kp_tensor_files_find(const char *path, kp_tensor_files *files, kp_error *error) {
  *files = (kp_tensor_files){0};
  if (kp_path_kind_of(path) == KP_PATH_FOLDER) return find_in_folder(files, path, error);
  if (!ends_in(path, ".index.json")) return add_file(files, NULL, path, error);
  char folder[KP_PATH_SIZE];
  const char *name;
  KP_TRY(kp_path_split(path, folder, &name, error));
  return read_index(files, folder, path, error);
}
