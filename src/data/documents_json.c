/* The text of a document that is written in JSON. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/documents_private.h"
#include "data/utf8_repair.h"

/* Numbers beside the text may be of any size. */
enum { FLAGS = JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL };

static const char *kind_of(const json_t *value) {
  switch (json_typeof(value)) {
  case JSON_OBJECT: return "an object";
  case JSON_ARRAY: return "an array";
  case JSON_STRING: return "a string";
  case JSON_INTEGER:
  case JSON_REAL: return "a number";
  case JSON_NULL: return "null";
  default: return "true or false";
  }
}

/* "text, title, url": the keys of an object, as far as there is room. */
static void list_fields(const json_t *object, char *out, size_t room) {
  enum { SHOWN = 40 };
  size_t used = 0, shown = 0;
  const char *key;
  json_t *value;
  out[0] = 0;
  json_object_foreach((json_t *)(uintptr_t)object, key, value) {
    if (shown++ == SHOWN || used + strlen(key) + 8 > room) {
      snprintf(out + used, room - used, ", ...");
      return;
    }
    used += (size_t)snprintf(out + used, room - used, "%s%s", used > 0 ? ", " : "", key);
  }
  for (char *at = out; *at != 0; at++) /* a message is one line */
    if ((unsigned char)*at < ' ') *at = '?';
}

/* What stands under the first word of a path: a key, or a place in a list. */
static json_t *step(const json_t *from, const char *word, size_t size) {
  if (json_is_object(from)) return json_object_getn(from, word, size);
  size_t place = 0;
  for (size_t i = 0; i < size; i++) {
    if (!isdigit((unsigned char)word[i]) || place > 1000000) return NULL;
    place = 10 * place + (size_t)(word[i] - '0');
  }
  return size == 0 ? NULL : json_array_get(from, place);
}

/* The value of a field; NULL when there is none, and *deepest is where the path broke off. */
static const json_t *find_field(const json_t *root, const char *field, const json_t **deepest) {
  const json_t *value = json_object_get(root, field); /* a key may have dots itself */
  *deepest = root;
  if (value != NULL) return value;
  for (value = root;;) {
    const char *dot = strchr(field, '.');
    *deepest = value;
    value = step(value, field, dot == NULL ? strlen(field) : (size_t)(dot - field));
    if (value == NULL || dot == NULL) return value;
    field = dot + 1;
  }
}

static kp_status fail_missing(const kp_documents *documents, const json_t *deepest, kp_error *error) {
  char fields[512];
  const char *field = documents->options.field;
  if (!json_is_object(deepest))
    return kp_fail(error, KP_ERR_INPUT, "%s, line %zu: there is no '%s': %s stands on the way to it",
                   documents->path, documents->first_line, field, kind_of(deepest));
  list_fields(deepest, fields, sizeof fields);
  return kp_fail(
      error, KP_ERR_INPUT,
      "%s, line %zu: there is no field '%s'; the fields%s are: %s. Name that of the text (--field)",
      documents->path, documents->first_line, field, strchr(field, '.') == NULL ? "" : " there", fields);
}

static kp_status load(kp_documents *documents, kp_error *error) {
  const kp_byte_buffer *raw = &documents->raw;
  json_error_t fault;
  json_decref(documents->value);
  documents->value = json_loadb(raw->data, raw->size, FLAGS, &fault);
  if (documents->value == NULL && documents->options.replace_invalid) {
    KP_TRY(kp_utf8_repair_json(raw->data, raw->size, &documents->repaired, error));
    documents->value = json_loadb(documents->repaired.data, documents->repaired.size, FLAGS, &fault);
  }
  if (documents->value != NULL) return KP_OK;
  if (!documents->options.replace_invalid) { /* the better message */
    const char *text;
    size_t size;
    KP_TRY(kp_documents_check(documents, &text, &size, error));
  }
  const bool pair = strstr(fault.text, "invalid Unicode") != NULL;
  return kp_fail(error, KP_ERR_INPUT, "%s, line %zu, column %d: %s%s", documents->path,
                 documents->first_line + (size_t)(fault.line > 0 ? fault.line - 1 : 0), fault.column,
                 fault.text, pair ? "; have such characters replaced (--invalid replace)" : "");
}

kp_status kp_documents_parse(kp_documents *documents, const char **text, size_t *size, kp_error *error) {
  const json_t *value, *deepest;
  KP_TRY(load(documents, error));
  value = documents->value;
  *size = 0;
  if (documents->options.objects && json_is_object(value)) {
    *text = documents->raw.data;
    *size = documents->raw.size;
    return KP_OK;
  }
  if (json_is_object(value)) {
    value = find_field(documents->value, documents->options.field, &deepest);
    if (value == NULL) return fail_missing(documents, deepest, error);
    if (json_is_null(value)) return KP_OK;
    if (!json_is_string(value))
      return kp_fail(error, KP_ERR_INPUT, "%s, line %zu: the field '%s' is %s, not a string", documents->path,
                     documents->first_line, documents->options.field, kind_of(value));
  }
  const bool strings = !documents->options.objects;
  if (!json_is_string(value) || !strings)
    return kp_fail(error, KP_ERR_INPUT, "%s, line %zu: a document is an object%s; this is %s%s",
                   documents->path, documents->first_line, strings ? " or a string" : "", kind_of(value),
                   json_is_array(value) && documents->format == KP_DOCUMENTS_LINES
                       ? ". Is the file a JSON array (--format json)?"
                       : "");
  *text = json_string_value(value);
  *size = json_string_length(value);
  return KP_OK;
}
