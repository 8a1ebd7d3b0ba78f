#include "interchange/torch_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/utf8.h"
#include "interchange/pickle.h"
#include "interchange/tensors_order.h"
#include "interchange/torch_names.h"
#include "interchange/torch_tensor.h"

/* Bounds of a walk through values, which may stand in each other many times over. */
enum { DEEPEST = 16, MOST_VALUES = 1 << 20, LONGEST_NAME = 512 };

struct kp_torch {
  kp_torch_archive archive;
  kp_pickle *pickle;
  kp_tensors_entry *entries; /* (count), by name; names are owned */
  size_t count, capacity;
  json_t *settings;
  char *label;
  size_t walked; /* values seen by walks */
};

static const unsigned char old_magic[] = {0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46,
                                          0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e};

static bool is_zip(const unsigned char *data, size_t size) {
  return size >= 4 && memcmp(data, "PK\3\4", 4) == 0;
}

/* A bare pickle too is what torch once wrote. */
static bool is_pickle(const unsigned char *data, size_t size) {
  return size >= 3 && data[0] == 0x80 && data[1] >= 2 && data[1] <= 5 && memchr("}c]\x8a\x95", data[2], 5);
}

bool kp_torch_recognises(const unsigned char *data, size_t size) {
  return is_zip(data, size) || is_pickle(data, size);
}

/* ---- the archive ---- */

static kp_status check_format(const unsigned char *data, size_t size, const char *label, kp_error *error) {
  if (is_zip(data, size)) return KP_OK;
  if (size >= sizeof old_magic && memcmp(data, old_magic, sizeof old_magic) == 0)
    return kp_fail(error, KP_ERR_UNSUPPORTED,
                   "'%s' has the format of torch before 1.6; load it in Python and save it again: "
                   "torch.save(torch.load(PATH, map_location=\"cpu\", weights_only=True), NEW_PATH)",
                   label);
  if (is_pickle(data, size))
    return kp_fail(error, KP_ERR_UNSUPPORTED,
                   "'%s' is a bare pickle, not a file of torch.save; save the weights with torch.save",
                   label);
  return kp_fail(error, KP_ERR_INPUT, "'%s' is not a file of torch.save: it is no zip archive", label);
}

/* The entry NAME/data.pkl; NAME is then the folder of all. */
static const kp_zip_entry *find_pickle(kp_torch_archive *archive) {
  static const char last[] = "/data.pkl";
  const size_t last_size = sizeof last - 1;
  for (size_t i = 0; i < archive->zip.count; i++) {
    const kp_zip_entry *entry = &archive->zip.entries[i];
    if (entry->name_size <= last_size) continue;
    const size_t folder = entry->name_size - last_size;
    if (memcmp(entry->name + folder, last, last_size) != 0) continue;
    if (memchr(entry->name, '/', folder) != NULL) continue;
    archive->folder = entry->name;
    archive->folder_size = folder + 1;
    return entry;
  }
  return NULL;
}

static const kp_zip_entry *find_entry(const kp_torch_archive *archive, const char *name) {
  return kp_zip_find(&archive->zip, archive->folder, archive->folder_size, name, strlen(name));
}

static kp_status open_archive(kp_torch *file, const unsigned char *data, size_t size, kp_error *error) {
  kp_torch_archive *archive = &file->archive;
  archive->label = file->label;
  KP_TRY(check_format(data, size, file->label, error));
  KP_TRY(kp_zip_parse(data, size, file->label, &archive->zip, error));
  const kp_zip_entry *pickle = find_pickle(archive);
  if (pickle == NULL)
    return kp_fail(error, KP_ERR_INPUT,
                   "the zip archive '%s' has no data.pkl; it is not a file of torch.save", file->label);
  const kp_zip_entry *order = find_entry(archive, "byteorder");
  if (order != NULL && !(order->size >= 6 && memcmp(order->data, "little", 6) == 0))
    return kp_fail(error, KP_ERR_UNSUPPORTED, "'%s' was saved on a big-endian machine; save it on another",
                   file->label);
  return kp_pickle_parse(pickle->data, pickle->size, file->label, kp_torch_name_use, &file->pickle, error);
}

/* ---- walks ---- */

static kp_status count_value(kp_torch *file, int depth, kp_error *error) {
  if (depth <= DEEPEST && ++file->walked <= MOST_VALUES) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT,
                 "'%s' is nested deeper than %d levels, or has more than %d values; save the weights alone",
                 file->label, DEEPEST, MOST_VALUES);
}

/* Whether there is a tensor in a dict, or in one inside of it. */
static kp_status has_tensors(kp_torch *file, const kp_pickle_value *value, int depth, bool *found,
                             kp_error *error) {
  KP_TRY(count_value(file, depth, error));
  if (kp_torch_is_tensor(value)) *found = true;
  if (value->kind != KP_PICKLE_DICT) return KP_OK;
  for (size_t i = 1; i < value->list.count && !*found; i += 2)
    KP_TRY(has_tensors(file, value->list.items[i], depth + 1, found, error));
  return KP_OK;
}

static bool is_optimizer(const kp_pickle_value *key) {
  return key->kind == KP_PICKLE_TEXT && key->text.size >= 5 && memcmp(key->text.data, "optim", 5) == 0;
}

/* The part of a checkpoint that is the model: under one of the usual names, or the whole. */
static kp_status find_model(kp_torch *file, const kp_pickle_value **model, kp_error *error) {
  static const char *const names[] = {"model", "model_state_dict", "state_dict", "module"};
  const kp_pickle_value *root = kp_pickle_root(file->pickle);
  *model = root;
  if (root->kind != KP_PICKLE_DICT) {
    char words[160];
    kp_pickle_describe(root, words, sizeof words);
    return kp_fail(error, KP_ERR_INPUT, "'%s' holds %s instead of a dict of tensors; save model.state_dict()",
                   file->label, words);
  }
  for (size_t n = 0; n < sizeof names / sizeof *names; n++)
    for (size_t i = 0; i < root->list.count; i += 2) {
      bool found = false;
      if (!kp_pickle_is_text(root->list.items[i], names[n])) continue;
      if (root->list.items[i + 1]->kind != KP_PICKLE_DICT) continue;
      KP_TRY(has_tensors(file, root->list.items[i + 1], 0, &found, error));
      if (!found) continue;
      *model = root->list.items[i + 1];
      return KP_OK;
    }
  return KP_OK;
}

/* ---- tensors ---- */

static kp_status add_entry(kp_torch *file, const kp_pickle_value *value, const char *name, kp_error *error) {
  if (file->count == file->capacity) {
    const size_t capacity = file->capacity == 0 ? 64 : file->capacity * 2;
    kp_tensors_entry *grown = realloc(file->entries, capacity * sizeof *grown);
    if (grown == NULL) return kp_fail(error, KP_ERR_MEMORY, "not enough memory for '%s'", file->label);
    file->entries = grown;
    file->capacity = capacity;
  }
  kp_tensors_entry entry = {0};
  KP_TRY(kp_torch_tensor(&file->archive, value, name, &entry, error));
  entry.name = strdup(name);
  if (entry.name == NULL) return kp_fail(error, KP_ERR_MEMORY, "not enough memory for '%s'", file->label);
  file->entries[file->count++] = entry;
  return KP_OK;
}

/* Writes the key behind `name`, of which `used` bytes are there.  Keys are texts, or numbers as lists of
 * modules have. */
static kp_status extend_name(const kp_torch *file, char name[LONGEST_NAME], size_t used,
                             const kp_pickle_value *key, size_t *length, kp_error *error) {
  int written = -1;
  size_t ignored;
  if (key->kind == KP_PICKLE_TEXT && key->text.size < LONGEST_NAME &&
      memchr(key->text.data, 0, key->text.size) == NULL &&
      kp_utf8_count(key->text.data, key->text.size, &ignored, NULL) == KP_OK)
    written = snprintf(name + used, LONGEST_NAME - used, "%s%.*s", used == 0 ? "" : ".", (int)key->text.size,
                       key->text.data);
  if (key->kind == KP_PICKLE_INTEGER)
    written = snprintf(name + used, LONGEST_NAME - used, "%s%" PRId64, used == 0 ? "" : ".", key->integer);
  if (written < 0 || (size_t)written >= LONGEST_NAME - used)
    return kp_fail(error, KP_ERR_INPUT,
                   "a tensor of '%s' has a name that is no UTF-8 text of less than %d bytes; rename it",
                   file->label, LONGEST_NAME);
  *length = used + (size_t)written;
  return KP_OK;
}

static kp_status add_entries(kp_torch *file, const kp_pickle_value *dict, bool root, char name[LONGEST_NAME],
                             size_t used, int depth, kp_error *error) {
  for (size_t i = 0; i < dict->list.count; i += 2) {
    const kp_pickle_value *key = dict->list.items[i], *value = dict->list.items[i + 1];
    size_t length = used;
    KP_TRY(count_value(file, depth, error));
    if ((root && is_optimizer(key)) || (value->kind != KP_PICKLE_DICT && !kp_torch_is_tensor(value)))
      continue;
    KP_TRY(extend_name(file, name, used, key, &length, error));
    if (value->kind == KP_PICKLE_DICT)
      KP_TRY(add_entries(file, value, false, name, length, depth + 1, error));
    else
      KP_TRY(add_entry(file, value, name, error));
  }
  return KP_OK;
}

static kp_status read_model(kp_torch *file, const kp_pickle_value *model, kp_error *error) {
  char name[LONGEST_NAME] = "";
  KP_TRY(add_entries(file, model, model == kp_pickle_root(file->pickle), name, 0, 0, error));
  if (file->count == 0)
    return kp_fail(error, KP_ERR_INPUT, "'%s' holds no tensors; save model.state_dict()", file->label);
  const kp_tensors_entry *twice = kp_tensors_sort(file->entries, file->count);
  if (twice == NULL) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "'%s' has two tensors called '%.120s'; rename one", file->label,
                 twice->name);
}

/* ---- settings ---- */

static kp_status to_json(kp_torch *file, const kp_pickle_value *value, int depth, json_t **json,
                         kp_error *error);

/* Converts one pair of a dict; what has no name or is no plain value is left out. */
static kp_status add_setting(kp_torch *file, const kp_pickle_value *key, const kp_pickle_value *value,
                             int depth, json_t *json, kp_error *error) {
  json_t *item;
  if (key->kind != KP_PICKLE_TEXT || key->text.size >= LONGEST_NAME || is_optimizer(key)) return KP_OK;
  KP_TRY(to_json(file, value, depth, &item, error));
  char name[LONGEST_NAME];
  snprintf(name, sizeof name, "%.*s", (int)key->text.size, key->text.data);
  /* A name that is not UTF-8 is refused by jansson, which releases the item. */
  if (item != NULL) json_object_set_new(json, name, item);
  return KP_OK;
}

static kp_status list_to_json(kp_torch *file, const kp_pickle_value *list, int depth, json_t *json,
                              kp_error *error) {
  for (size_t i = 0; i < list->list.count; i++) {
    json_t *item;
    KP_TRY(to_json(file, list->list.items[i], depth + 1, &item, error));
    if (item != NULL) json_array_append_new(json, item);
  }
  return KP_OK;
}

static kp_status dict_to_json(kp_torch *file, const kp_pickle_value *dict, int depth, json_t *json,
                              kp_error *error) {
  for (size_t i = 0; i < dict->list.count; i += 2)
    KP_TRY(add_setting(file, dict->list.items[i], dict->list.items[i + 1], depth + 1, json, error));
  return KP_OK;
}

/* NULL in *json for what is no plain value, tensors above all. */
static kp_status to_json(kp_torch *file, const kp_pickle_value *value, int depth, json_t **json,
                         kp_error *error) {
  *json = NULL;
  KP_TRY(count_value(file, depth, error));
  kp_status status = KP_OK;
  switch (value->kind) {
  case KP_PICKLE_NONE: *json = json_null(); break;
  case KP_PICKLE_BOOLEAN: *json = json_boolean(value->integer != 0); break;
  case KP_PICKLE_INTEGER: *json = json_integer(value->integer); break;
  case KP_PICKLE_REAL: *json = json_real(value->real); break; /* NULL for an infinite one */
  case KP_PICKLE_TEXT: *json = json_stringn(value->text.data, value->text.size); break;
  case KP_PICKLE_TUPLE:
  case KP_PICKLE_LIST:
    *json = json_array();
    status = list_to_json(file, value, depth, *json, error);
    break;
  case KP_PICKLE_DICT:
    *json = json_object();
    status = dict_to_json(file, value, depth, *json, error);
    break;
  default: break;
  }
  if (status != KP_OK) {
    json_decref(*json);
    *json = NULL;
  }
  return status;
}

static kp_status read_settings(kp_torch *file, const kp_pickle_value *model, kp_error *error) {
  const kp_pickle_value *root = kp_pickle_root(file->pickle);
  file->settings = json_object();
  for (size_t i = 0; i < root->list.count && model != root; i += 2)
    if (root->list.items[i + 1] != model)
      KP_TRY(add_setting(file, root->list.items[i], root->list.items[i + 1], 0, file->settings, error));
  return KP_OK;
}

/* ---- the file ---- */

static kp_status parse_into(kp_torch *file, const unsigned char *data, size_t size, kp_error *error) {
  const kp_pickle_value *model;
  KP_TRY(open_archive(file, data, size, error));
  KP_TRY(find_model(file, &model, error));
  KP_TRY(read_model(file, model, error));
  return read_settings(file, model, error);
}

kp_status kp_torch_parse(const void *data, size_t size, const char *label, kp_torch **result,
                         kp_error *error) {
  *result = NULL;
  kp_torch *file = calloc(1, sizeof *file);
  if (file != NULL) file->label = strdup(label);
  if (file == NULL || file->label == NULL) {
    free(file);
    return kp_fail(error, KP_ERR_MEMORY, "not enough memory to open '%s'", label);
  }
  kp_status status = parse_into(file, data, size, error);
  if (status == KP_OK)
    *result = file;
  else
    kp_torch_close(file);
  return status;
}

void kp_torch_close(kp_torch *file) {
  if (file == NULL) return;
  for (size_t i = 0; i < file->count; i++) free((char *)file->entries[i].name);
  free(file->entries);
  json_decref(file->settings);
  kp_pickle_destroy(file->pickle);
  kp_zip_clear(&file->archive.zip);
  free(file->label);
  free(file);
}

const kp_tensors_entry *kp_torch_entries(const kp_torch *file, size_t *count) {
  *count = file->count;
  return file->entries;
}

json_t *kp_torch_settings(const kp_torch *file) {
  return file->settings;
}
