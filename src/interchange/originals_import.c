#include "interchange/originals_import.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "interchange/originals_names.h"

typedef struct source {
  const kp_original_format *format;
  kp_tensors *tensors;
  int64_t heads;
} source;

/* ---- looking at tensors ---- */

bool kp_original_has(const char *path, const char *name) {
  kp_tensors *tensors;
  if (!kp_tensors_recognises(path) || kp_tensors_open(path, &tensors, NULL) != KP_OK) return false;
  const bool found = kp_tensors_find(tensors, name) != NULL;
  kp_tensors_close(tensors);
  return found;
}

int64_t kp_original_size(const kp_tensors *tensors, const char *name, int dimension) {
  const kp_tensors_entry *entry = kp_tensors_find(tensors, name);
  return entry == NULL || dimension >= entry->rank ? 0 : entry->shape[dimension];
}

kp_status kp_original_require_size(const kp_tensors *tensors, const char *name, int dimension, int64_t *size,
                                   kp_error *error) {
  const kp_tensors_entry *entry;
  KP_TRY(kp_tensors_require(tensors, name, &entry, error));
  *size = kp_original_size(tensors, name, dimension);
  if (*size > 0) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "tensor '%s' of '%s' has %d dimensions, or an empty one", name,
                 kp_tensors_label(tensors), entry->rank);
}

/* Writes the pattern with a block for its %d. */
static void fill_block(char name[160], const char *pattern, int64_t block) {
  const char *place = strstr(pattern, "%d");
  snprintf(name, 160, "%.*s%lld%s", (int)(place - pattern), pattern, (long long)block, place + 2);
}

int64_t kp_original_blocks(const kp_tensors *tensors, const char *pattern) {
  char name[160];
  for (int64_t count = 0;; count++) {
    fill_block(name, pattern, count);
    if (kp_tensors_find(tensors, name) == NULL) return count;
  }
}

kp_status kp_original_require_blocks(const kp_tensors *tensors, const char *pattern, int64_t *count,
                                     kp_error *error) {
  char name[160];
  const kp_tensors_entry *entry;
  fill_block(name, pattern, 0);
  *count = kp_original_blocks(tensors, pattern);
  return *count > 0 ? KP_OK : kp_tensors_require(tensors, name, &entry, error);
}

const json_t *kp_original_arguments(const kp_tensors *tensors) {
  return json_object_get(kp_tensors_settings(tensors), "model_args");
}

void kp_original_argument(const kp_tensors *tensors, const char *argument, const char *key,
                          kp_import_settings *settings) {
  const json_t *value = json_object_get(kp_original_arguments(tensors), argument);
  if (json_is_integer(value))
    kp_import_set(settings, "%s=%lld", key, (long long)json_integer_value(value));
  else if (json_is_real(value))
    kp_import_set(settings, "%s=%.17g", key, json_real_value(value));
  else if (json_is_boolean(value))
    kp_import_set(settings, "%s=%s", key, json_is_true(value) ? "true" : "false");
}

/* ---- opening ---- */

/* Keys that neither the file nor the user has said. */
static kp_status check_needed(const source *s, const kp_config *config, kp_error *error) {
  char missing[256] = "";
  for (const char *const *key = s->format->needed; *key != NULL; key++)
    if (!kp_config_is_set(config, *key))
      snprintf(missing + strlen(missing), sizeof missing - strlen(missing), " --set %s=…", *key);
  if (missing[0] == 0) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "'%s' does not say all of the model: give%s, or a file with --config",
                 kp_tensors_label(s->tensors), missing);
}

bool kp_original_is_one_of(const char *name, const char *const *patterns) {
  int block;
  for (; *patterns != NULL; patterns++)
    if (kp_original_matches(*patterns, name, &block)) return true;
  return false;
}

static kp_status mark_skipped(const source *s, kp_error *error) {
  for (size_t i = 0; i < kp_tensors_count(s->tensors) && s->format->skips != NULL; i++) {
    const kp_tensors_entry *entry = kp_tensors_at(s->tensors, i);
    bool skipped = false;
    KP_TRY(s->format->skips(s->tensors, entry, &skipped, error));
    if (skipped) kp_tensors_mark(s->tensors, entry);
  }
  return KP_OK;
}

static kp_status fill(source *s, const char *path, const kp_import_options *options, kp_imported *imported,
                      kp_error *error) {
  kp_import_settings settings = {.count = 0};
  KP_TRY(kp_tensors_open(path, &s->tensors, error));
  KP_TRY(s->format->describe(s->tensors, &settings, imported, error));
  KP_TRY(kp_import_configure(&settings, options, &imported->config, error));
  KP_TRY(check_needed(s, imported->config, error));
  s->heads = kp_config_integer(imported->config, "model.heads");
  KP_TRY(mark_skipped(s, error));
  snprintf(imported->source, sizeof imported->source, "%s", s->format->what);
  const json_t *step = json_object_get(kp_tensors_settings(s->tensors), "iter_num");
  if (json_integer_value(step) > 0) imported->step = json_integer_value(step);
  return KP_OK;
}

kp_status kp_original_open(const kp_original_format *format, const char *path,
                           const kp_import_options *options, kp_imported *imported, kp_error *error) {
  source *s = calloc(1, sizeof *s);
  *imported = (kp_imported){.weights = s};
  if (s == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory to open %s", path);
  s->format = format;
  return fill(s, path, options, imported, error);
}

void kp_original_close(kp_imported *imported) {
  source *s = imported->weights;
  if (s == NULL) return;
  kp_tensors_close(s->tensors);
  free(s);
  imported->weights = NULL;
}

/* ---- parameters ---- */

static kp_status read_tensor(void *context, const char *name, double **values, int64_t *count,
                             kp_error *error) {
  kp_tensors *tensors = context;
  const kp_tensors_entry *entry = kp_tensors_find(tensors, name);
  *values = NULL;
  if (entry == NULL) return KP_OK;
  *values = malloc((size_t)(entry->elements + 1) * sizeof **values);
  if (*values == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for tensor %s", name);
  *count = entry->elements;
  kp_status status = kp_tensors_read(tensors, entry, *values, error);
  if (status == KP_OK) return KP_OK;
  free(*values);
  *values = NULL;
  return status;
}

/* The shapes must agree where names and layouts do; rules check what they put together themselves. */
static kp_status check_shape(const source *s, const char *name, int dimensions, const int64_t *shape,
                             kp_error *error) {
  const kp_tensors_entry *entry = kp_tensors_find(s->tensors, name);
  if (entry == NULL) return KP_OK;
  bool same = entry->rank == dimensions;
  for (int i = 0; same && i < dimensions; i++) same = entry->shape[i] == shape[i];
  if (same) return KP_OK;
  char words[200] = "";
  for (int i = 0; i < entry->rank; i++)
    snprintf(words + strlen(words), sizeof words - strlen(words), "%s%lld", i == 0 ? "" : ", ",
             (long long)entry->shape[i]);
  return kp_fail(error, KP_ERR_INPUT,
                 "tensor '%s' of '%s' has the shape (%s), which is not that of the model: check the "
                 "configuration",
                 name, kp_tensors_label(s->tensors), words);
}

kp_status kp_original_read(kp_imported *imported, const char *name, int dimensions, const int64_t *shape,
                           double *values, kp_error *error) {
  source *s = imported->weights;
  const kp_original_source tensors = {read_tensor, s->tensors};
  const kp_original_shape parameter = {name, dimensions, shape};
  kp_original_found found;
  KP_TRY(check_shape(s, name, dimensions, shape, error));
  KP_TRY(kp_original_parameter(s->format->rules, &tensors, s->heads, &parameter, values, &found, error));
  if (found.missing[0] == 0) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT,
                 "'%s' has no tensor '%s', which becomes kappa's %s: check the "
                 "configuration",
                 kp_tensors_label(s->tensors), found.missing, name);
}

const char *kp_original_unused(const kp_imported *imported) {
  const source *s = imported->weights;
  return kp_tensors_unused(s->tensors);
}
