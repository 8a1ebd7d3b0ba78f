/* Opens a folder of transformers, and reads kappa's parameters out of its tensors. */
#include "interchange/hf_import.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json_text.h"
#include "interchange/tensors.h"

static const kp_hf_family *const families[] = {&kp_hf_gpt2, &kp_hf_llama, &kp_hf_mistral, &kp_hf_qwen2,
                                               &kp_hf_kappa};
enum { FAMILY_COUNT = sizeof families / sizeof *families };

typedef struct source {
  const kp_hf_family *family;
  kp_tensors *tensors;
  kp_hf_layout layout;
  char base[16]; /* the prefix that the files have */
  bool tied;
} source;

static bool recognises(const char *path) {
  char config[KP_PATH_SIZE];
  return kp_path_join(config, path, "config.json", NULL) == KP_OK && kp_path_kind_of(config) == KP_PATH_FILE;
}

/* ---- opening ---- */

static kp_status find_family(kp_hf_config *config, const kp_hf_family **family, kp_error *error) {
  const char *type;
  KP_TRY(kp_hf_text(config, "model_type", "", &type, error));
  for (int i = 0; i < FAMILY_COUNT; i++)
    if (strcmp(families[i]->model_type, type) == 0) {
      *family = families[i];
      return KP_OK;
    }
  return kp_hf_refuse(config, "model_type", error,
                      "kappa reads gpt2, llama, mistral, qwen2 and its own kappa");
}

static void describe(kp_imported *imported, kp_hf_config *config, const kp_hf_family *family) {
  const json_t *version = json_object_get(config->object, "transformers_version");
  char unknown[1024];
  snprintf(imported->source, sizeof imported->source, "%s of transformers %.32s", family->model_type,
           json_is_string(version) ? json_string_value(version) : "(no version)");
  kp_hf_ignore(config, kp_hf_common_keys);
  if (kp_hf_unknown(config, unknown, sizeof unknown) > 0)
    kp_import_note(imported, "keys of config.json that kappa does not know, and that were passed over: %s",
                   unknown);
}

kp_status kp_hf_translate(const json_t *document, const char *label, const kp_import_options *options,
                          const kp_hf_family **family, kp_imported *imported, kp_error *error) {
  kp_hf_config config;
  KP_TRY(kp_hf_config_begin(&config, document, label, error));
  KP_TRY(find_family(&config, family, error));
  KP_TRY((*family)->configure(&config, options, &imported->config, error));
  describe(imported, &config, *family);
  return KP_OK;
}

static kp_status read_config(const char *folder, source *s, const kp_import_options *options,
                             kp_imported *imported, kp_error *error) {
  char path[KP_PATH_SIZE];
  json_t *document;
  KP_TRY(kp_path_join(path, folder, "config.json", error));
  KP_TRY(kp_json_read_file(path, &document, error));
  const kp_status status = kp_hf_translate(document, path, options, &s->family, imported, error);
  json_decref(document);
  return status;
}

static kp_status read_layout(source *s, const kp_config *config, kp_error *error) {
  kp_model_options model;
  KP_TRY(kp_model_options_read(config, NULL, &model, error));
  s->layout = kp_hf_layout_of(&model);
  s->tied = model.head == KP_HEAD_TIED;
  kp_model_options_destroy(&model);
  return KP_OK;
}

/* Files of a base model lack the prefix. */
static void find_base(source *s) {
  const size_t size = strlen(s->family->base);
  if (size == 0) return;
  for (size_t i = 0; i < kp_tensors_count(s->tensors); i++)
    if (strncmp(kp_tensors_at(s->tensors, i)->name, s->family->base, size) == 0) {
      snprintf(s->base, sizeof s->base, "%s", s->family->base);
      return;
    }
}

/* kappa's own where an export has one: transformers has no words for some. */
static kp_status find_tokenizer(const char *folder, kp_imported *imported, kp_error *error) {
  static const char *const names[] = {KP_HF_OWN_TOKENIZER, "tokenizer.json", "vocab.json", "tokenizer.model"};
  char path[KP_PATH_SIZE];
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    KP_TRY(kp_path_join(path, folder, names[i], error));
    if (kp_path_kind_of(path) != KP_PATH_FILE) continue;
    snprintf(imported->tokenizer, sizeof imported->tokenizer, "%s", path);
    return KP_OK;
  }
  return KP_OK;
}

static void close_source(kp_imported *imported) {
  source *s = imported->weights;
  if (s == NULL) return;
  kp_tensors_close(s->tensors);
  free(s);
  imported->weights = NULL;
}

static kp_status fill(const char *path, const kp_import_options *options, kp_imported *imported,
                      kp_error *error) {
  source *s = imported->weights;
  KP_TRY(read_config(path, s, options, imported, error));
  KP_TRY(read_layout(s, imported->config, error));
  KP_TRY(kp_tensors_open(path, &s->tensors, error));
  find_base(s);
  return find_tokenizer(path, imported, error);
}

static kp_status open_source(const char *path, const kp_import_options *options, kp_imported *imported,
                             kp_error *error) {
  *imported = (kp_imported){.weights = calloc(1, sizeof(source))};
  if (imported->weights == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory to open %s", path);
  return fill(path, options, imported, error);
}

/* ---- parameters ---- */

static kp_status wrong_shape(const source *s, const kp_tensors_entry *entry, int rank, const int64_t *shape,
                             kp_error *error) {
  char have[128] = "", want[128] = "";
  for (int d = 0; d < entry->rank; d++)
    snprintf(have + strlen(have), sizeof have - strlen(have), "%s%lld", d == 0 ? "" : ", ",
             (long long)entry->shape[d]);
  for (int d = 0; d < rank; d++)
    snprintf(want + strlen(want), sizeof want - strlen(want), "%s%lld", d == 0 ? "" : ", ",
             (long long)shape[d]);
  return kp_fail(error, KP_ERR_INPUT, "%s: \"%s\" has the shape (%s), and config.json makes it (%s)",
                 kp_tensors_label(s->tensors), entry->name, have, want);
}

static kp_status read_tensor(source *s, const char *name, int rank, const int64_t *shape, double *values,
                             kp_error *error) {
  const kp_tensors_entry *entry;
  KP_TRY(kp_tensors_require(s->tensors, name, &entry, error));
  if (entry->rank != rank || memcmp(entry->shape, shape, (size_t)rank * sizeof *shape) != 0)
    return wrong_shape(s, entry, rank, shape, error);
  return kp_tensors_read(s->tensors, entry, values, error);
}

/* The tensor of a part as it lies in the file, then in kappa's order.  `whole` has room for all rows. */
static kp_status read_part(source *s, const kp_hf_part *part, int dimensions, int64_t columns, double *values,
                           double *room, kp_error *error) {
  char name[1024];
  const int64_t plain[2] = {part->rows, columns}, turned[2] = {columns, part->rows};
  snprintf(name, sizeof name, "%s%s", part->based ? s->base : "", part->name);
  if (part->may_lack && kp_tensors_find(s->tensors, name) == NULL) {
    memset(values, 0, (size_t)(part->rows * columns) * sizeof *values);
    return KP_OK;
  }
  KP_TRY(read_tensor(s, name, dimensions, part->transposed ? turned : plain, values, error));
  if (part->transposed) kp_hf_transpose(values, columns, part->rows, room);
  if (part->head_size > 0) kp_hf_pair_rows(values, part->rows, columns, part->head_size, true, room);
  return KP_OK;
}

/* A table of positions may be longer than the context that was asked for: its first rows are what counts. */
static kp_status read_positions(source *s, const int64_t *shape, double *values, kp_error *error) {
  char name[32];
  snprintf(name, sizeof name, "%swpe.weight", s->base);
  const kp_tensors_entry *entry = kp_tensors_find(s->tensors, name);
  if (entry == NULL || entry->rank != 2 || entry->shape[0] <= shape[0] || entry->shape[1] != shape[1])
    return read_tensor(s, name, 2, shape, values, error);
  double *all = malloc((size_t)entry->elements * sizeof *all);
  if (all == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %s", name);
  const kp_status status = read_tensor(s, name, 2, entry->shape, all, error);
  memcpy(values, all, (size_t)(shape[0] * shape[1]) * sizeof *values);
  free(all);
  return status;
}

static kp_status read_parameter(kp_imported *imported, const char *name, int dimensions, const int64_t *shape,
                                double *values, kp_error *error) {
  source *s = imported->weights;
  if (s->family->parts == NULL) return read_tensor(s, name, dimensions, shape, values, error);
  kp_hf_part parts[KP_HF_MAX_PARTS];
  const int64_t columns = dimensions == 2 ? shape[1] : 1;
  if (strcmp(name, "transformer.wpe.weight") == 0) return read_positions(s, shape, values, error);
  const int count = dimensions > 2 ? 0 : s->family->parts(&s->layout, name, shape[0], parts);
  if (count == 0)
    return kp_fail(error, KP_ERR_INPUT, "a %s model has nothing that could be kappa's %s",
                   s->family->model_type, name);
  double *room = malloc((size_t)(shape[0] * columns) * sizeof *room);
  if (room == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %s", name);
  kp_status status = KP_OK;
  for (int i = 0; i < count && status == KP_OK; i++) {
    status = read_part(s, &parts[i], dimensions, columns, values, room, error);
    values += parts[i].rows * columns;
  }
  free(room);
  return status;
}

static bool is_meaningless(const source *s, const char *name) {
  for (const char *const *buffer = s->family->buffers; *buffer != NULL; buffer++) {
    const size_t size = strlen(name), tail = strlen(*buffer);
    if (size >= tail && strcmp(name + size - tail, *buffer) == 0) return true;
  }
  return s->tied && strcmp(name, "lm_head.weight") == 0; /* a second name of the embedding */
}

static void mark_meaningless(source *s) {
  for (size_t i = 0; i < kp_tensors_count(s->tensors); i++)
    if (is_meaningless(s, kp_tensors_at(s->tensors, i)->name))
      kp_tensors_mark(s->tensors, kp_tensors_at(s->tensors, i));
}

static const char *unused(const kp_imported *imported) {
  source *s = imported->weights;
  mark_meaningless(s);
  return kp_tensors_unused(s->tensors);
}

const kp_importer kp_importer_hf = {
    .name = "hf",
    .what = "Hugging Face: GPT-2 and LLaMA-type folders with config.json and safetensors",
    .recognises = recognises,
    .open = open_source,
    .read = read_parameter,
    .unused = unused,
    .close = close_source};
