#include "interchange/tensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "core/dtype_convert.h"
#include "core/file.h"
#include "interchange/tensors_folder.h"
#include "interchange/tensors_order.h"
#include "interchange/torch_file.h"

enum { CHUNK = 4096, WIDEST = 8 };

/* One file: exactly one of the two is there. */
typedef struct part {
  kp_file_map map; /* of a PyTorch file */
  kp_torch *torch;
  kp_safetensors *safetensors;
} part;

struct kp_tensors {
  char *label;
  part *parts;
  size_t part_count;
  kp_tensors_entry *entries; /* (count), by name */
  bool *used;                /* (count) */
  size_t count;
  json_t *settings;
};

static kp_status out_of_memory(const char *label, kp_error *error) {
  return kp_fail(error, KP_ERR_MEMORY, "not enough memory for the tensors of '%s'", label);
}

/* ---- opening ---- */

static kp_status open_part(const char *path, part *p, kp_error *error) {
  KP_TRY(kp_file_map_open(path, KP_EMPTY_REFUSED, &p->map, error));
  if (kp_torch_recognises(p->map.data, p->map.size))
    return kp_torch_parse(p->map.data, p->map.size, path, &p->torch, error);
  return kp_safetensors_parse(p->map.data, p->map.size, path, &p->safetensors, error);
}

static size_t count_entries(const part *p) {
  size_t count;
  if (p->safetensors != NULL) return kp_safetensors_count(p->safetensors);
  kp_torch_entries(p->torch, &count);
  return count;
}

static kp_tensors_entry from_safetensors(const kp_safetensors_entry *entry) {
  kp_tensors_entry out = {.name = entry->name,
                          .dtype = entry->dtype,
                          .rank = entry->rank,
                          .elements = entry->elements,
                          .data = entry->data};
  int64_t stride = 1;
  for (int i = entry->rank - 1; i >= 0; i--) {
    out.shape[i] = entry->shape[i];
    out.strides[i] = stride;
    stride *= entry->shape[i];
  }
  return out;
}

/* Copies a part's entries to `out`. */
static void list_entries(const part *p, kp_tensors_entry *out) {
  const size_t count = count_entries(p);
  size_t same;
  if (p->torch != NULL && count > 0) memcpy(out, kp_torch_entries(p->torch, &same), count * sizeof *out);
  for (size_t i = 0; i < count && p->safetensors != NULL; i++)
    out[i] = from_safetensors(kp_safetensors_entry_at(p->safetensors, i));
}

/* All parts' entries in one list. */
static kp_status merge(kp_tensors *t, kp_error *error) {
  for (size_t p = 0; p < t->part_count; p++) t->count += count_entries(&t->parts[p]);
  t->entries = calloc(t->count + 1, sizeof *t->entries);
  t->used = calloc(t->count + 1, sizeof *t->used);
  if (t->entries == NULL || t->used == NULL) return out_of_memory(t->label, error);
  size_t at = 0;
  for (size_t p = 0; p < t->part_count; p++) {
    list_entries(&t->parts[p], t->entries + at);
    at += count_entries(&t->parts[p]);
  }
  const kp_tensors_entry *twice = kp_tensors_sort(t->entries, t->count);
  if (twice == NULL) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "two files of '%s' have a tensor called '%.120s'", t->label,
                 twice->name);
}

/* Whatever the index promises must be there. */
static kp_status check_index(const kp_tensors *t, const json_t *places, kp_error *error) {
  const char *name;
  json_t *place;
  json_object_foreach((json_t *)places, name, place) if (kp_tensors_find(t, name) == NULL) return kp_fail(
      error, KP_ERR_INPUT,
      "the index of '%s' puts the tensor '%.120s' in '%.120s', which lacks it; copy the "
      "file again",
      t->label, name, json_string_value(place));
  return KP_OK;
}

/* Takes a prefix off all names, when all have it; their order stays. */
static bool strip_prefix(kp_tensors *t, const char *prefix) {
  const size_t size = strlen(prefix);
  for (size_t i = 0; i < t->count; i++)
    if (strncmp(t->entries[i].name, prefix, size) != 0) return false;
  for (size_t i = 0; i < t->count; i++) t->entries[i].name += size;
  return t->count > 0;
}

static kp_status read_settings(kp_tensors *t, kp_error *error) {
  t->settings = t->parts[0].torch == NULL ? json_object() : json_incref(kp_torch_settings(t->parts[0].torch));
  return t->settings == NULL ? out_of_memory(t->label, error) : KP_OK;
}

static kp_status open_files(kp_tensors *t, const kp_tensor_files *files, kp_error *error) {
  t->parts = calloc(files->count, sizeof *t->parts);
  if (t->parts == NULL) return out_of_memory(t->label, error);
  for (; t->part_count < files->count; t->part_count++) {
    part p = {0};
    kp_status status = open_part(files->paths[t->part_count], &p, error);
    if (status != KP_OK) kp_file_map_close(&p.map);
    KP_TRY(status);
    t->parts[t->part_count] = p;
  }
  KP_TRY(merge(t, error));
  if (files->places != NULL) KP_TRY(check_index(t, files->places, error));
  while (strip_prefix(t, "_orig_mod.") || strip_prefix(t, "module.")) continue;
  return read_settings(t, error);
}

kp_status kp_tensors_open(const char *path, kp_tensors **tensors, kp_error *error) {
  *tensors = NULL;
  kp_tensors *t = calloc(1, sizeof *t);
  if (t != NULL) t->label = strdup(path);
  if (t == NULL || t->label == NULL) {
    free(t);
    return out_of_memory(path, error);
  }
  kp_tensor_files files;
  kp_status status = kp_tensor_files_find(path, &files, error);
  if (status == KP_OK) status = open_files(t, &files, error);
  kp_tensor_files_clear(&files);
  if (status == KP_OK)
    *tensors = t;
  else
    kp_tensors_close(t);
  return status;
}

void kp_tensors_close(kp_tensors *t) {
  if (t == NULL) return;
  json_decref(t->settings);
  for (size_t i = 0; i < t->part_count; i++) {
    kp_torch_close(t->parts[i].torch);
    kp_safetensors_close(t->parts[i].safetensors);
    kp_file_map_close(&t->parts[i].map);
  }
  free(t->parts);
  free(t->entries);
  free(t->used);
  free(t->label);
  free(t);
}

/* Whether the file begins like a PyTorch or a safetensors file. */
static bool file_recognised(const char *path) {
  unsigned char first[16];
  FILE *file = fopen(path, "rb");
  if (file == NULL) return false;
  const size_t size = fread(first, 1, sizeof first, file);
  fclose(file);
  return kp_torch_recognises(first, size) || (size > 8 && first[8] == '{');
}

bool kp_tensors_recognises(const char *path) {
  kp_tensor_files files;
  bool all = kp_tensor_files_find(path, &files, NULL) == KP_OK;
  for (size_t i = 0; i < files.count && all; i++)
    all = kp_path_kind_of(files.paths[i]) == KP_PATH_FILE && file_recognised(files.paths[i]);
  kp_tensor_files_clear(&files);
  return all;
}

/* ---- looking up ---- */

size_t kp_tensors_count(const kp_tensors *t) {
  return t->count;
}

const kp_tensors_entry *kp_tensors_at(const kp_tensors *t, size_t index) {
  kp_assert(index < t->count, "entry %zu of %zu in '%s'", index, t->count, t->label);
  return &t->entries[index];
}

const kp_tensors_entry *kp_tensors_find(const kp_tensors *t, const char *name) {
  return kp_tensors_search(t->entries, t->count, name);
}

kp_status kp_tensors_require(const kp_tensors *t, const char *name, const kp_tensors_entry **entry,
                             kp_error *error) {
  *entry = kp_tensors_find(t, name);
  if (*entry != NULL) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT,
                 "'%s' has no tensor '%.120s'; is it a file of another model or configuration?", t->label,
                 name);
}

void kp_tensors_mark(kp_tensors *t, const kp_tensors_entry *entry) {
  t->used[entry - t->entries] = true;
}

const char *kp_tensors_unused(const kp_tensors *t) {
  for (size_t i = 0; i < t->count; i++)
    if (!t->used[i]) return t->entries[i].name;
  return NULL;
}

const json_t *kp_tensors_settings(const kp_tensors *t) {
  return t->settings;
}

const char *kp_tensors_label(const kp_tensors *t) {
  return t->label;
}

/* ---- reading ---- */

static bool is_row_major(const kp_tensors_entry *e) {
  int64_t stride = 1;
  for (int i = e->rank - 1; i >= 0; i--) {
    if (e->shape[i] != 1 && e->strides[i] != stride) return false;
    stride *= e->shape[i];
  }
  return true;
}

/* Moves to the next element in row-major order; returns the move of its place, in elements. */
static int64_t advance(const kp_tensors_entry *e, int64_t *index) {
  int64_t move = 0;
  for (int i = e->rank - 1; i >= 0; i--) {
    move += e->strides[i];
    if (++index[i] < e->shape[i]) return move;
    move -= e->strides[i] * e->shape[i];
    index[i] = 0;
  }
  return move;
}

/* Gathers the next `count` elements, whatever their strides, into `out`; `place` walks along. */
static void gather(const kp_tensors_entry *e, int64_t *index, int64_t *place, size_t count,
                   unsigned char *out) {
  const size_t width = kp_dtype_size(e->dtype);
  for (size_t i = 0; i < count; i++) {
    memcpy(out + i * width, e->data + (size_t)*place * width, width);
    *place += advance(e, index);
  }
}

static size_t read_strided(const kp_tensors_entry *e, kp_dtype wanted, void *out) {
  unsigned char chunk[CHUNK * WIDEST];
  int64_t index[KP_TENSORS_MAX_RANK] = {0}, place = 0;
  for (size_t start = 0; start < (size_t)e->elements; start += CHUNK) {
    const size_t left = (size_t)e->elements - start, some = left < CHUNK ? left : CHUNK;
    gather(e, index, &place, some, chunk);
    const size_t stored =
        kp_dtype_convert(e->dtype, chunk, some, wanted, (unsigned char *)out + start * kp_dtype_size(wanted));
    if (stored < some) return start + stored;
  }
  return (size_t)e->elements;
}

static kp_status read_as(kp_tensors *t, const kp_tensors_entry *e, kp_dtype wanted, void *out,
                         kp_error *error) {
  kp_tensors_mark(t, e);
  if (e->elements == 0) return KP_OK;
  const size_t count = (size_t)e->elements;
  const size_t stored = is_row_major(e) ? kp_dtype_convert(e->dtype, e->data, count, wanted, out)
                                        : read_strided(e, wanted, out);
  if (stored == count) return KP_OK;
  return kp_fail(error, KP_ERR_NUMERIC, "element %zu of tensor '%.120s' of '%s' is too large for a float",
                 stored, e->name, t->label);
}

kp_status kp_tensors_read(kp_tensors *t, const kp_tensors_entry *entry, double *values, kp_error *error) {
  return read_as(t, entry, KP_F64, values, error);
}

kp_status kp_tensors_read_floats(kp_tensors *t, const kp_tensors_entry *entry, float *values,
                                 kp_error *error) {
  return read_as(t, entry, KP_F32, values, error);
}
