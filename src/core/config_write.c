/* A configuration and a schema as text.
 *
 * A text is produced twice by the same code: once into no buffer, which counts
 * the bytes and hashes them, and once into a buffer of exactly that size. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "core/config_private.h"
#include "core/number.h"

typedef struct text_sink {
  char *buffer; /* NULL: only count and hash */
  size_t size;
  uint64_t hash; /* FNV-1a, 64 bits */
} text_sink;

static const uint64_t fnv_offset = 0xcbf29ce484222325u, fnv_prime = 0x100000001b3u;

static void put(text_sink *sink, const char *text, size_t size) {
  if (sink->buffer != NULL) memcpy(sink->buffer + sink->size, text, size);
  sink->size += size;
  for (size_t i = 0; i < size; i++) sink->hash = (sink->hash ^ (unsigned char)text[i]) * fnv_prime;
}

static void put_text(text_sink *sink, const char *text) {
  put(sink, text, strlen(text));
}

static void put_spaces(text_sink *sink, size_t count) {
  for (size_t i = 0; i < count; i++) put(sink, " ", 1);
}

/* Takes one character off valid UTF-8. */
static uint32_t next_character(const unsigned char **cursor) {
  uint32_t character = *(*cursor)++;
  if (character < 0x80) return character;
  uint32_t mask = character < 0xe0 ? 0x1f : character < 0xf0 ? 0x0f : 0x07;
  character &= mask;
  while ((**cursor & 0xc0) == 0x80) character = character << 6 | (*(*cursor)++ & 0x3f);
  return character;
}

/* Whether YAML takes the character for itself within double quotes: controls,
 * line breaks, the byte order mark and what is no character are not. */
static bool is_printable(uint32_t character) {
  if (character < 0x20 || (character >= 0x7f && character < 0xa0)) return false;
  if (character == 0x2028 || character == 0x2029 || character == 0xfeff) return false;
  return character != 0xfffe && character != 0xffff;
}

static void put_quoted(text_sink *sink, const char *text) {
  put_text(sink, "\"");
  for (const unsigned char *cursor = (const unsigned char *)text; *cursor != 0;) {
    const unsigned char *start = cursor;
    uint32_t character = next_character(&cursor);
    if (character == '"' || character == '\\') {
      put_text(sink, "\\");
      put(sink, (const char *)start, 1);
    } else if (is_printable(character)) {
      put(sink, (const char *)start, (size_t)(cursor - start));
    } else {
      char escape[16];
      snprintf(escape, sizeof escape, "\\u%04x", (unsigned)character);
      put_text(sink, escape);
    }
  }
  put_text(sink, "\"");
}

static void put_integer(text_sink *sink, int64_t value) {
  char text[KP_NUMBER_SIZE];
  snprintf(text, sizeof text, "%lld", (long long)value);
  put_text(sink, text);
}

static void put_real(text_sink *sink, double value) {
  char text[KP_NUMBER_SIZE];
  kp_number_format(value, text);
  put_text(sink, text);
}

static void put_value(text_sink *sink, const kp_config_value *value) {
  size_t length = 0;
  const char *word;
  switch (value->row->type) {
  case KP_CONFIG_INTEGER: put_integer(sink, value->integer); return;
  case KP_CONFIG_REAL: put_real(sink, value->real); return;
  case KP_CONFIG_BOOLEAN: put_text(sink, value->boolean ? "true" : "false"); return;
  case KP_CONFIG_STRING: put_quoted(sink, value->text); return;
  case KP_CONFIG_CHOICE:
    word = kp_config_choice_word(value->row, (size_t)value->choice, &length);
    put(sink, word, length);
    return;
  case KP_CONFIG_REALS:
  case KP_CONFIG_INTEGERS:
  case KP_CONFIG_TEXTS: break;
  }
  put_text(sink, "[");
  for (size_t i = 0; i < value->count; i++) {
    if (i > 0) put_text(sink, ", ");
    if (value->row->type == KP_CONFIG_REALS) {
      put_real(sink, value->reals[i]);
    } else if (value->row->type == KP_CONFIG_TEXTS) {
      put_quoted(sink, value->texts[i]);
    } else {
      put_integer(sink, value->integers[i]);
    }
  }
  put_text(sink, "]");
}

/* Whether an earlier key stands in the same section, which is written then. */
static bool is_written(const kp_config *config, size_t index, size_t prefix) {
  const char *key = config->values[index].row->key;
  for (size_t i = 0; i < index; i++)
    if (strncmp(config->values[i].row->key, key, prefix) == 0) return true;
  return false;
}

/* Writes all keys that begin with `prefix` bytes of the key of `first`: "" or
 * "model.".  Sections stand where their first key does. */
static void put_section(text_sink *sink, const kp_config *config, size_t first, size_t prefix, size_t depth) {
  const char *section = config->values[first].row->key;
  for (size_t i = first; i < config->count; i++) {
    const char *key = config->values[i].row->key;
    if (strncmp(key, section, prefix) != 0) continue;
    const char *word = key + prefix;
    size_t length = strcspn(word, ".");
    bool is_section = word[length] == '.';
    if (is_section && is_written(config, i, prefix + length + 1)) continue;
    put_spaces(sink, 2 * depth);
    put(sink, word, length);
    if (is_section) {
      put_text(sink, ":\n");
      put_section(sink, config, i, prefix + length + 1, depth + 1);
    } else {
      put_text(sink, ": ");
      put_value(sink, &config->values[i]);
      put_text(sink, "\n");
    }
  }
}

static void put_config(text_sink *sink, const void *config_pointer) {
  const kp_config *config = config_pointer;
  if (config->count == 0) {
    put_text(sink, "{}\n");
  } else {
    put_section(sink, config, 0, 0, 0);
  }
}

static kp_status produce(void (*write)(text_sink *, const void *), const void *what, char **text,
                         size_t *size, kp_error *error) {
  text_sink counter = {.hash = fnv_offset};
  write(&counter, what);
  *size = counter.size;
  *text = malloc(counter.size + 1);
  if (*text == NULL) return kp_fail(error, KP_ERR_MEMORY, "not enough memory to write the configuration");
  text_sink writer = {.buffer = *text, .hash = fnv_offset};
  write(&writer, what);
  (*text)[*size] = 0;
  return KP_OK;
}

kp_status kp_config_text(const kp_config *config, char **text, size_t *size, kp_error *error) {
  return produce(put_config, config, text, size, error);
}

static void put_assignment(text_sink *sink, const void *value_pointer) {
  const kp_config_value *value = value_pointer;
  put_text(sink, value->row->key);
  put_text(sink, "=");
  put_value(sink, value);
}

kp_status kp_config_assignment(const kp_config *config, const char *key, char **text, kp_error *error) {
  const kp_config_value *value = kp_config_find(config, key);
  size_t size;
  kp_assert(value != NULL, "the schema has no key %s", key);
  return produce(put_assignment, value, text, &size, error);
}

uint64_t kp_config_hash(const kp_config *config) {
  text_sink counter = {.hash = fnv_offset};
  put_config(&counter, config);
  return counter.hash;
}

enum { COLUMNS = 5 };

/* The cells of a line of the table; the first line is the heading. */
static void table_line(const kp_schema *schema, size_t line, const char *cells[COLUMNS]) {
  static const char *const types[] = {
      [KP_CONFIG_INTEGER] = "integer",   [KP_CONFIG_REAL] = "real",   [KP_CONFIG_BOOLEAN] = "boolean",
      [KP_CONFIG_STRING] = "text",       [KP_CONFIG_CHOICE] = "word", [KP_CONFIG_REALS] = "reals",
      [KP_CONFIG_INTEGERS] = "integers", [KP_CONFIG_TEXTS] = "texts"};
  static const char *const heading[COLUMNS] = {"key", "type", "default", "allowed", "meaning"};
  if (line == 0) {
    memcpy(cells, heading, sizeof heading);
    return;
  }
  const kp_config_row *row = kp_schema_row(schema, line - 1);
  cells[0] = row->key;
  cells[1] = types[row->type];
  cells[2] = row->fallback == NULL ? "(required)" : *row->fallback == 0 ? "\"\"" : row->fallback;
  cells[3] = row->allowed != NULL ? row->allowed : row->type == KP_CONFIG_BOOLEAN ? "true|false" : "any";
  cells[4] = row->help;
}

static void put_table(text_sink *sink, const void *schema_pointer) {
  const kp_schema *schema = schema_pointer;
  size_t lines = kp_schema_size(schema) + 1, widths[COLUMNS] = {0};
  const char *cells[COLUMNS];
  for (size_t i = 0; i < lines; i++) {
    table_line(schema, i, cells);
    for (size_t j = 0; j < COLUMNS; j++)
      if (strlen(cells[j]) > widths[j]) widths[j] = strlen(cells[j]);
  }
  for (size_t i = 0; i < lines; i++) {
    table_line(schema, i, cells);
    for (size_t j = 0; j < COLUMNS; j++) {
      put_text(sink, cells[j]);
      if (j + 1 < COLUMNS) put_spaces(sink, widths[j] + 2 - strlen(cells[j]));
    }
    put_text(sink, "\n");
  }
}

kp_status kp_config_describe(const kp_schema *schema, char **text, size_t *size, kp_error *error) {
  kp_schema_check(schema);
  return produce(put_table, schema, text, size, error);
}
