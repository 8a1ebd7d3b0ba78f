/* Files, texts and assignments: reading them, following what files extend, and
 * putting the entries into the values of a configuration.  The base comes
 * first, so that a file's own keys stand over those of the file that it
 * extends. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/assert.h"
#include "core/config_private.h"
#include "core/config_yaml.h"

static const char extends[] = "extends";

/* The files that are being read, from the innermost out. */
typedef struct file_chain {
  dev_t device;
  ino_t inode;
  size_t depth;
  const struct file_chain *outer;
} file_chain;

static kp_status fail_memory(kp_error *error) {
  return kp_fail(error, KP_ERR_MEMORY, "not enough memory to read the configuration");
}

static kp_status read_stream(FILE *stream, const char *path, char **text, size_t *size, kp_error *error) {
  /* One byte over the limit, which kp_yaml_read then refuses. */
  size_t room = KP_YAML_SIZE_LIMIT + 1;
  *text = malloc(room);
  if (*text == NULL) return fail_memory(error);
  *size = fread(*text, 1, room, stream);
  if (!ferror(stream)) return KP_OK;
  kp_status status = kp_fail_errno(error, KP_ERR_IO, "cannot read %s", path);
  free(*text);
  *text = NULL;
  return status;
}

static kp_status check_chain(const char *path, FILE *stream, file_chain *self, kp_error *error) {
  struct stat info;
  if (fstat(fileno(stream), &info) != 0) return kp_fail_errno(error, KP_ERR_IO, "cannot read %s", path);
  self->device = info.st_dev;
  self->inode = info.st_ino;
  for (const file_chain *file = self->outer; file != NULL; file = file->outer)
    if (file->device == self->device && file->inode == self->inode)
      return kp_fail(error, KP_ERR_INPUT, "%s extends itself; break the circle", path);
  if (self->depth == KP_CONFIG_FILE_LIMIT)
    return kp_fail(error, KP_ERR_INPUT, "%s: more than %d files extend each other", path,
                   KP_CONFIG_FILE_LIMIT);
  return KP_OK;
}

static kp_status read_file(const char *path, file_chain *self, char **text, size_t *size, kp_error *error) {
  FILE *stream = fopen(path, "rb");
  if (stream == NULL) return kp_fail_errno(error, KP_ERR_IO, "cannot open %s", path);
  kp_status status = check_chain(path, stream, self, error);
  if (status == KP_OK) status = read_stream(stream, path, text, size, error);
  fclose(stream);
  return status;
}

/* The configuration's own copy of the name, or NULL for want of memory. */
static const char *remember_file(kp_config *config, const char *path) {
  char *copy = strdup(path);
  if (copy != NULL) config->files[config->file_count++] = copy;
  return copy;
}

static kp_status fail_unknown(const kp_schema *schema, const kp_yaml_entry *entry, kp_error *error) {
  char section[KP_YAML_KEY_LIMIT + 1];
  snprintf(section, sizeof section, "%s", entry->key);
  for (char *dot; (dot = strrchr(section, '.')) != NULL;) {
    *dot = 0;
    const kp_config_row *row = kp_schema_find(schema, section);
    if (row == NULL) continue;
    return kp_fail(error, KP_ERR_INPUT, "unknown key; %s is %s and has no keys of its own", section,
                   kp_config_type_name(row->type));
  }
  const char *nearest = kp_schema_nearest(schema, entry->key);
  if (nearest == NULL) return kp_fail(error, KP_ERR_INPUT, "unknown key");
  return kp_fail(error, KP_ERR_INPUT, "unknown key; did you mean '%s'?", nearest);
}

/* A section without keys, as left behind when all its lines are comments, is fine. */
static kp_status check_section(const kp_yaml_entry *entry, kp_error *error) {
  if (entry->kind == KP_YAML_MAPPING) return KP_OK;
  if (entry->kind == KP_YAML_SCALAR && kp_yaml_is_null(&entry->items[0])) return KP_OK;
  char found[128];
  kp_config_entry_name(entry, found, sizeof found);
  return kp_fail(error, KP_ERR_INPUT, "expected a section with keys of its own, found %s", found);
}

static kp_status apply_entry(kp_config *config, const kp_yaml_entry *entry, const char *file,
                             kp_error *error) {
  kp_config_value *value = kp_config_find(config, entry->key);
  if (value == NULL) {
    if (kp_schema_is_section(config->schema, entry->key)) return check_section(entry, error);
    /* The keys in it are unknown too, and more telling. */
    if (entry->children > 0) return KP_OK;
    return fail_unknown(config->schema, entry, error);
  }
  kp_config_value fresh;
  KP_TRY(kp_config_value_read(value->row, entry, &fresh, error));
  kp_config_value_clear(value);
  *value = fresh;
  value->is_set = true;
  value->file = file;
  value->line = entry->line;
  return KP_OK;
}

static kp_status apply(kp_config *config, const kp_yaml_document *document, const char *file,
                       kp_error *error) {
  for (size_t i = 0; i < document->count; i++) {
    const kp_yaml_entry *entry = &document->entries[i];
    if (strcmp(entry->key, extends) == 0) continue;
    kp_status status = apply_entry(config, entry, file, error);
    if (status != KP_OK) return kp_context(error, "%s:%zu: %s", file, entry->line, entry->key);
  }
  return KP_OK;
}

static const kp_yaml_entry *find_extends(const kp_yaml_document *document) {
  for (size_t i = 0; i < document->count; i++)
    if (strcmp(document->entries[i].key, extends) == 0) return &document->entries[i];
  return NULL;
}

/* `relative` as seen from the folder of `file`; for the caller to free, NULL
 * for want of memory. */
static char *join_path(const char *file, const char *relative) {
  const char *slash = strrchr(file, '/');
  size_t folder = *relative == '/' || slash == NULL ? 0 : (size_t)(slash - file) + 1;
  size_t length = strlen(relative);
  char *path = malloc(folder + length + 1);
  if (path == NULL) return NULL;
  memcpy(path, file, folder);
  memcpy(path + folder, relative, length + 1);
  return path;
}

static kp_status read_nested(kp_config *config, const char *path, const file_chain *outer, kp_error *error);

static kp_status read_base(kp_config *config, const kp_yaml_entry *entry, const char *file,
                           const file_chain *self, kp_error *error) {
  if (entry->kind != KP_YAML_SCALAR || kp_yaml_is_null(&entry->items[0]))
    return kp_fail(error, KP_ERR_INPUT, "expected the name of one file");
  char *path = join_path(file, entry->items[0].text);
  if (path == NULL) return fail_memory(error);
  kp_status status = read_nested(config, path, self, error);
  free(path);
  return status;
}

static kp_status read_document(kp_config *config, const char *text, size_t size, const char *file,
                               const file_chain *self, kp_error *error) {
  kp_yaml_document document = {0};
  KP_TRY(kp_yaml_read(text, size, file, &document, error));
  const kp_yaml_entry *base = find_extends(&document);
  kp_status status = KP_OK;
  if (base != NULL) {
    status = self == NULL ? kp_fail(error, KP_ERR_INPUT, "only a file can extend another")
                          : read_base(config, base, file, self, error);
    if (status != KP_OK) kp_context(error, "%s:%zu: extends", file, base->line);
  }
  if (status == KP_OK) status = apply(config, &document, file, error);
  kp_yaml_clear(&document);
  return status;
}

static kp_status read_nested(kp_config *config, const char *path, const file_chain *outer, kp_error *error) {
  file_chain self = {.outer = outer, .depth = outer == NULL ? 0 : outer->depth + 1};
  char *text = NULL;
  size_t size = 0;
  KP_TRY(read_file(path, &self, &text, &size, error));
  const char *name = remember_file(config, path);
  kp_status status =
      name == NULL ? fail_memory(error) : read_document(config, text, size, name, &self, error);
  free(text);
  return status;
}

kp_status kp_config_read_file(kp_config *config, const char *path, kp_error *error) {
  return read_nested(config, path, NULL, error);
}

kp_status kp_config_read_text(kp_config *config, const char *text, size_t size, const char *name,
                              kp_error *error) {
  const char *file = remember_file(config, name);
  if (file == NULL) return fail_memory(error);
  return read_document(config, text, size, file, NULL, error);
}

/* The key that `word`, which has no dot, is the last word of, where there is exactly one; else `word` itself.
 */
static const char *complete(const kp_schema *schema, const char *word) {
  const char *found = NULL;
  if (strchr(word, '.') != NULL || kp_schema_find(schema, word) != NULL) return word;
  for (size_t i = 0; i < kp_schema_size(schema); i++) {
    const char *key = kp_schema_row(schema, i)->key, *last = strrchr(key, '.');
    if (last == NULL || strcmp(last + 1, word) != 0) continue;
    if (found != NULL) return word;
    found = key;
  }
  return found == NULL ? word : found;
}

kp_status kp_config_set(kp_config *config, const char *assignment, kp_error *error) {
  const char *equals = strchr(assignment, '=');
  size_t length = equals == NULL ? 0 : (size_t)(equals - assignment);
  if (length == 0 || length > KP_YAML_KEY_LIMIT)
    return kp_fail(error, KP_ERR_INPUT, "--set %.80s: expected key=value", assignment);
  char word[KP_YAML_KEY_LIMIT + 1];
  memcpy(word, assignment, length);
  word[length] = 0;
  const char *key = complete(config->schema, word);
  kp_yaml_document document = {0};
  kp_status status = kp_yaml_read_value(key, equals + 1, &document, error);
  if (status == KP_OK) status = apply_entry(config, &document.entries[0], NULL, error);
  kp_yaml_clear(&document);
  return status == KP_OK ? KP_OK : kp_context(error, "--set %s", key);
}

kp_status kp_config_preset(kp_config *config, const char *assignment, kp_error *error) {
  char key[KP_YAML_KEY_LIMIT + 1];
  const size_t length = strcspn(assignment, "=");
  kp_assert(length <= KP_YAML_KEY_LIMIT, "%s is no assignment", assignment);
  memcpy(key, assignment, length);
  key[length] = 0;
  kp_config_value *value = kp_config_find(config, key);
  kp_assert(value != NULL, "the schema has no key %s", key);
  if (value->is_set) return KP_OK;
  KP_TRY(kp_config_set(config, assignment, error));
  value->is_set = false;
  return KP_OK;
}
