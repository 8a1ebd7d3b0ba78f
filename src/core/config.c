/* Making a configuration, its getters and its checks.  Files are read in
 * config_read.c, single values in config_value.c, texts are written in
 * config_write.c. */
#include "core/config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "core/config_private.h"
#include "core/config_yaml.h"

kp_config_value *kp_config_find(const kp_config *config, const char *key) {
  for (size_t i = 0; i < config->count; i++)
    if (strcmp(config->values[i].row->key, key) == 0) return &config->values[i];
  return NULL;
}

static bool is_key(const char *key) {
  static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789_";
  if (strlen(key) > KP_YAML_KEY_LIMIT) return false;
  size_t words = 0;
  for (;;) {
    size_t length = strspn(key, letters);
    words++;
    if (length == 0) return false;
    key += length;
    if (*key == 0) return words <= KP_YAML_DEPTH_LIMIT;
    if (*key++ != '.') return false;
  }
}

/* Choices are written without quotes. */
static void check_choices(const kp_config_row *row) {
  size_t length = 0;
  const char *word;
  for (size_t i = 0; (word = kp_config_choice_word(row, i, &length)) != NULL; i++) {
    bool is_word = length > 0 && length == strcspn(word, "|~ \t\"'#:,[]{}&*!%@`>?");
    bool is_null = length == 4 && strncmp(word, "null", 4) == 0;
    kp_assert(is_word && !is_null, "%s: a choice must be a plain word", row->key);
  }
}

static void check_row(const kp_schema *schema, const kp_config_row *row) {
  kp_assert(is_key(row->key) && strcmp(row->key, "extends") != 0, "'%s' is no key", row->key);
  kp_assert(kp_schema_find(schema, row->key) == row, "%s stands twice", row->key);
  kp_assert(!kp_schema_is_section(schema, row->key), "%s is a key and a section", row->key);
  kp_assert(row->help != NULL, "%s has no help", row->key);
  switch (row->type) {
  case KP_CONFIG_BOOLEAN:
  case KP_CONFIG_TEXTS:
  case KP_CONFIG_STRING: kp_assert(row->allowed == NULL, "%s allows what it likes", row->key); break;
  case KP_CONFIG_CHOICE: check_choices(row); break;
  default: kp_config_range_of(row); break;
  }
}

void kp_schema_check(const kp_schema *schema) {
  size_t size = kp_schema_size(schema);
  for (size_t i = 0; i < size; i++) check_row(schema, kp_schema_row(schema, i));
}

/* A configuration with the defaults in it. */
static kp_status create(const kp_schema *schema, kp_config **config, kp_error *error) {
  kp_schema_check(schema);
  size_t count = kp_schema_size(schema);
  *config = calloc(1, sizeof **config);
  if (*config == NULL) return kp_fail(error, KP_ERR_MEMORY, "not enough memory for the configuration");
  (*config)->schema = schema;
  (*config)->values = calloc(count + 1, sizeof *(*config)->values);
  if ((*config)->values == NULL)
    return kp_fail(error, KP_ERR_MEMORY, "not enough memory for the configuration");
  for (size_t i = 0; i < count; i++) {
    (*config)->count = i + 1;
    KP_TRY(kp_config_value_default(kp_schema_row(schema, i), &(*config)->values[i], error));
  }
  return KP_OK;
}

static kp_status check_required(const kp_config *config, kp_error *error) {
  for (size_t i = 0; i < config->count; i++) {
    const kp_config_row *row = config->values[i].row;
    if (config->values[i].is_present) continue;
    return kp_fail(error, KP_ERR_INPUT, "%s: %s: this key is required, %s (%s)", config->files[0], row->key,
                   kp_config_type_name(row->type), row->help);
  }
  return KP_OK;
}

static kp_status finish(kp_config *config, const char *const *overrides, size_t count, kp_error *error) {
  for (size_t i = 0; i < count; i++) KP_TRY(kp_config_set(config, overrides[i], error));
  if (config->schema->presets != NULL) KP_TRY(config->schema->presets(config, error));
  return check_required(config, error);
}

static kp_status destroy_unless(kp_status status, kp_config **config) {
  if (status == KP_OK) return KP_OK;
  kp_config_destroy(*config);
  *config = NULL;
  return status;
}

kp_status kp_config_load(const char *path, const kp_schema *schema, const char *const *overrides,
                         size_t count, kp_config **config, kp_error *error) {
  kp_status status = create(schema, config, error);
  if (status == KP_OK) status = kp_config_read_file(*config, path, error);
  if (status == KP_OK) status = finish(*config, overrides, count, error);
  return destroy_unless(status, config);
}

kp_status kp_config_parse(const char *text, size_t size, const char *name, const kp_schema *schema,
                          const char *const *overrides, size_t count, kp_config **config, kp_error *error) {
  kp_status status = create(schema, config, error);
  if (status == KP_OK) status = kp_config_read_text(*config, text, size, name, error);
  if (status == KP_OK) status = finish(*config, overrides, count, error);
  return destroy_unless(status, config);
}

void kp_config_destroy(kp_config *config) {
  if (config == NULL) return;
  for (size_t i = 0; i < config->count; i++) kp_config_value_clear(&config->values[i]);
  for (size_t i = 0; i < config->file_count; i++) free(config->files[i]);
  free(config->values);
  free(config);
}

/* The value that a getter asks for. */
static const kp_config_value *get(const kp_config *config, const char *key, kp_config_type type) {
  const kp_config_value *value = kp_config_find(config, key);
  kp_assert(value != NULL, "the schema has no key %s", key);
  kp_assert(value->row->type == type, "%s is %s", key, kp_config_type_name(value->row->type));
  return value;
}

int64_t kp_config_integer(const kp_config *config, const char *key) {
  return get(config, key, KP_CONFIG_INTEGER)->integer;
}

double kp_config_real(const kp_config *config, const char *key) {
  return get(config, key, KP_CONFIG_REAL)->real;
}

bool kp_config_boolean(const kp_config *config, const char *key) {
  return get(config, key, KP_CONFIG_BOOLEAN)->boolean;
}

const char *kp_config_string(const kp_config *config, const char *key) {
  return get(config, key, KP_CONFIG_STRING)->text;
}

int kp_config_choice(const kp_config *config, const char *key) {
  return get(config, key, KP_CONFIG_CHOICE)->choice;
}

const double *kp_config_reals(const kp_config *config, const char *key, size_t *count) {
  const kp_config_value *value = get(config, key, KP_CONFIG_REALS);
  *count = value->count;
  return value->reals;
}

const int64_t *kp_config_integers(const kp_config *config, const char *key, size_t *count) {
  const kp_config_value *value = get(config, key, KP_CONFIG_INTEGERS);
  *count = value->count;
  return value->integers;
}

const char *const *kp_config_texts(const kp_config *config, const char *key, size_t *count) {
  const kp_config_value *value = get(config, key, KP_CONFIG_TEXTS);
  *count = value->count;
  return (const char *const *)value->texts;
}

bool kp_config_is_set(const kp_config *config, const char *key) {
  const kp_config_value *value = kp_config_find(config, key);
  kp_assert(value != NULL, "the schema has no key %s", key);
  return value->is_set;
}

static bool same_texts(const kp_config_value *a, const kp_config_value *b) {
  bool same = a->count == b->count;
  for (size_t i = 0; same && i < a->count; i++) same = strcmp(a->texts[i], b->texts[i]) == 0;
  return same;
}

static bool same_value(const kp_config_value *a, const kp_config_value *b) {
  switch (a->row->type) {
  case KP_CONFIG_INTEGER: return a->integer == b->integer;
  case KP_CONFIG_REAL: return a->real == b->real;
  case KP_CONFIG_BOOLEAN: return a->boolean == b->boolean;
  case KP_CONFIG_STRING: return strcmp(a->text, b->text) == 0;
  case KP_CONFIG_CHOICE: return a->choice == b->choice;
  case KP_CONFIG_REALS:
    return a->count == b->count && memcmp(a->reals, b->reals, a->count * sizeof *a->reals) == 0;
  case KP_CONFIG_INTEGERS:
    return a->count == b->count && memcmp(a->integers, b->integers, a->count * sizeof *a->integers) == 0;
  case KP_CONFIG_TEXTS: return same_texts(a, b);
  }
  return false;
}

bool kp_config_is_default(const kp_config *config, const char *key) {
  const kp_config_value *value = kp_config_find(config, key);
  kp_config_value fallback = {0};
  kp_assert(value != NULL, "the schema has no key %s", key);
  if (!value->is_set) return true;
  if (kp_config_value_default(value->row, &fallback, NULL) != KP_OK || !fallback.is_present) return false;
  const bool same = same_value(value, &fallback);
  kp_config_value_clear(&fallback);
  return same;
}

kp_status kp_config_fail(const kp_config *config, const char *key, kp_error *error, const char *format, ...) {
  const kp_config_value *value = kp_config_find(config, key);
  kp_assert(value != NULL, "the schema has no key %s", key);
  kp_error reason = {0};
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(reason.message, sizeof reason.message, format, arguments);
  va_end(arguments);
  kp_fail(error, KP_ERR_INPUT, "%s", reason.message);
  if (!value->is_set) return kp_context(error, "%s: %s (its default)", config->files[0], key);
  if (value->file == NULL) return kp_context(error, "--set %s", key);
  return kp_context(error, "%s:%zu: %s", value->file, value->line, key);
}
