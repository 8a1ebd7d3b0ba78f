#include "interchange/hf_weights.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json_text.h"
#include "core/path.h"

static kp_status no_memory(const char *folder, kp_error *error) {
  return kp_fail(error, KP_ERR_MEMORY, "%s: no memory for the list of its tensors", folder);
}

/* ---- files ---- */

/* Opens a file of the folder; one that is open already is given again. */
static kp_status open_file(kp_hf_weights *w, const char *name, kp_safetensors **file, kp_error *error) {
  char path[KP_PATH_SIZE];
  for (size_t i = 0; i < w->file_count; i++)
    if (strcmp(w->names[i], name) == 0) {
      *file = w->files[i];
      return KP_OK;
    }
  if (w->file_count == KP_HF_MAX_SHARDS)
    return kp_fail(error, KP_ERR_INPUT, "%s: more than %d shards", w->folder, KP_HF_MAX_SHARDS);
  KP_TRY(kp_path_join(path, w->folder, name, error));
  char *copy = strdup(name);
  if (copy == NULL) return no_memory(w->folder, error);
  const kp_status status = kp_safetensors_open(path, file, error);
  if (status != KP_OK) {
    free(copy);
    return status;
  }
  w->names[w->file_count] = copy;
  w->files[w->file_count++] = *file;
  return KP_OK;
}

/* A shard lies in the folder itself. */
static bool is_plain_name(const char *name) {
  return name != NULL && name[0] != 0 && name[0] != '.' && strchr(name, '/') == NULL;
}

static kp_status add_indexed(kp_hf_weights *w, const char *index, const char *name, const json_t *shard,
                             kp_error *error) {
  kp_safetensors *file;
  if (!is_plain_name(json_string_value(shard)))
    return kp_fail(error, KP_ERR_INPUT, "%s: the shard of \"%s\" is no name of a file in the folder", index,
                   name);
  KP_TRY(open_file(w, json_string_value(shard), &file, error));
  w->tensors[w->count].entry = kp_safetensors_find(file, name);
  if (w->tensors[w->count++].entry != NULL) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "%s: \"%s\" is not in the shard %s", index, name,
                 json_string_value(shard));
}

static kp_status read_index(kp_hf_weights *w, const char *index, const json_t *document, kp_error *error) {
  json_t *map = json_object_get(document, "weight_map");
  if (!json_is_object(map) || json_object_size(map) == 0)
    return kp_fail(error, KP_ERR_INPUT, "%s: it has no \"weight_map\" from tensors to shards", index);
  w->tensors = calloc(json_object_size(map), sizeof *w->tensors);
  if (w->tensors == NULL) return no_memory(w->folder, error);
  const char *name;
  json_t *shard;
  json_object_foreach(map, name, shard) KP_TRY(add_indexed(w, index, name, shard, error));
  return KP_OK;
}

static kp_status open_shards(kp_hf_weights *w, const char *index, kp_error *error) {
  json_t *document;
  KP_TRY(kp_json_read_file(index, &document, error));
  const kp_status status = read_index(w, index, document, error);
  json_decref(document);
  return status;
}

static kp_status open_single(kp_hf_weights *w, kp_error *error) {
  kp_safetensors *file;
  KP_TRY(open_file(w, "model.safetensors", &file, error));
  w->count = kp_safetensors_count(file);
  w->tensors = calloc(w->count + 1, sizeof *w->tensors);
  if (w->tensors == NULL) return no_memory(w->folder, error);
  for (size_t i = 0; i < w->count; i++) w->tensors[i].entry = kp_safetensors_entry_at(file, i);
  return KP_OK;
}

static int by_name(const void *a, const void *b) {
  return strcmp(((const kp_hf_tensor *)a)->entry->name, ((const kp_hf_tensor *)b)->entry->name);
}

/* Folders of older releases have pickled weights alone. */
static kp_status no_weights(const char *folder, kp_error *error) {
  char path[KP_PATH_SIZE];
  KP_TRY(kp_path_join(path, folder, "pytorch_model.bin", error));
  if (kp_path_kind_of(path) == KP_PATH_FILE)
    return kp_fail(error, KP_ERR_INPUT,
                   "%s has pytorch_model.bin and no safetensors: save the model again with "
                   "model.save_pretrained(DIR, safe_serialization=True)",
                   folder);
  return kp_fail(error, KP_ERR_INPUT, "%s has neither model.safetensors nor model.safetensors.index.json",
                 folder);
}

kp_status kp_hf_weights_open(const char *folder, kp_hf_weights *w, kp_error *error) {
  char index[KP_PATH_SIZE], single[KP_PATH_SIZE];
  *w = (kp_hf_weights){0};
  KP_TRY(kp_path_check(folder, error));
  snprintf(w->folder, sizeof w->folder, "%s", folder);
  KP_TRY(kp_path_join(index, folder, "model.safetensors.index.json", error));
  KP_TRY(kp_path_join(single, folder, "model.safetensors", error));
  w->files = calloc(KP_HF_MAX_SHARDS, sizeof *w->files);
  w->names = calloc(KP_HF_MAX_SHARDS, sizeof *w->names);
  if (w->files == NULL || w->names == NULL) return no_memory(folder, error);
  if (kp_path_kind_of(single) == KP_PATH_FILE)
    KP_TRY(open_single(w, error));
  else if (kp_path_kind_of(index) == KP_PATH_FILE)
    KP_TRY(open_shards(w, index, error));
  else
    return no_weights(folder, error);
  qsort(w->tensors, w->count, sizeof *w->tensors, by_name);
  return KP_OK;
}

void kp_hf_weights_clear(kp_hf_weights *w) {
  for (size_t i = 0; i < w->file_count; i++) {
    kp_safetensors_close(w->files[i]);
    free(w->names[i]);
  }
  free(w->files);
  free(w->names);
  free(w->tensors);
  *w = (kp_hf_weights){0};
}

/* ---- tensors ---- */

static int name_to_tensor(const void *name, const void *tensor) {
  return strcmp(name, ((const kp_hf_tensor *)tensor)->entry->name);
}

kp_hf_tensor *kp_hf_weights_find(const kp_hf_weights *w, const char *name) {
  if (w->count == 0) return NULL;
  return bsearch(name, w->tensors, w->count, sizeof *w->tensors, name_to_tensor);
}

kp_status kp_hf_weights_read(kp_hf_weights *w, const char *name, int rank, const int64_t *shape,
                             double *values, kp_error *error) {
  const kp_safetensors_entry *entry;
  kp_hf_tensor *tensor = kp_hf_weights_find(w, name);
  if (tensor == NULL) return kp_fail(error, KP_ERR_INPUT, "%s has no tensor \"%s\"", w->folder, name);
  KP_TRY(kp_safetensors_require_shape(tensor->entry->file, name, rank, shape, &entry, error));
  tensor->used = true;
  return kp_safetensors_read(entry, KP_F64, values, error);
}
