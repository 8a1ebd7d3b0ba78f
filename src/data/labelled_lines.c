/* JSON lines: one example an object. */
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "data/labelled_text.h"

static bool has_field(const void *context, const char *name) {
  return json_object_get(context, name) != NULL;
}

static kp_status sentence_of(const json_t *object, const char *name, const char **text, size_t *size,
                             kp_error *error) {
  const json_t *value = json_object_get(object, name);
  if (!json_is_string(value)) return kp_fail(error, KP_ERR_INPUT, "its \"%s\" is not a text", name);
  *text = json_string_value(value);
  *size = json_string_length(value);
  return KP_OK;
}

/* A label is a text, a whole number or a truth value. */
static kp_status label_of(const json_t *object, const char *name, char digits[32], const char **label,
                          kp_error *error) {
  const json_t *value = json_object_get(object, name);
  *label = digits;
  if (json_is_string(value))
    *label = json_string_value(value);
  else if (json_is_integer(value))
    snprintf(digits, 32, "%lld", (long long)json_integer_value(value));
  else if (json_is_boolean(value))
    *label = json_is_true(value) ? "true" : "false";
  else
    return kp_fail(error, KP_ERR_INPUT, "its \"%s\" is neither a text nor a whole number", name);
  return KP_OK;
}

/* A text that was decoded is never longer than it stood in the file, so it takes the place of its line. */
static const char *keep(char **place, const char *text, size_t size) {
  char *kept = *place;
  memcpy(kept, text, size);
  *place += size;
  return kept;
}

static kp_status add_object(kp_labelled_texts *texts, const json_t *object, const kp_labelled_names *names,
                            const kp_labelled_line *line, const char *path, kp_error *error) {
  const char *text[2] = {NULL, NULL}, *label;
  size_t size[2] = {0, 0};
  char digits[32], *place = line->text;
  KP_TRY(sentence_of(object, names->text, &text[0], &size[0], error));
  if (names->second != NULL) KP_TRY(sentence_of(object, names->second, &text[1], &size[1], error));
  KP_TRY(label_of(object, names->label, digits, &label, error));
  for (int i = 0; i < 2 && text[i] != NULL; i++) text[i] = keep(&place, text[i], size[i]);
  return kp_labelled_add_sentences(texts, text, size, label, strlen(label), line, path, error);
}

static bool is_blank(const kp_labelled_line *line) {
  return strspn(line->text, " \t\r") >= line->size;
}

kp_status kp_labelled_parse_lines(kp_labelled_texts *texts, const kp_labelled_format *format,
                                  const char *path, char *data, size_t size, kp_error *error) {
  char *at = data;
  kp_labelled_line line = {0};
  kp_labelled_names names = {0};
  while (kp_labelled_next_line(&at, data + size, &line)) {
    if (is_blank(&line)) continue;
    json_error_t fault;
    json_t *object = json_loadb(line.text, line.size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &fault);
    kp_status status = KP_OK;
    if (object == NULL)
      status = kp_fail(error, KP_ERR_INPUT, "it is not JSON: %s at byte %d", fault.text, fault.position);
    else if (!json_is_object(object))
      status = kp_fail(error, KP_ERR_INPUT, "it is JSON, but not an object");
    else if (names.text == NULL)
      status = kp_labelled_find_names(format, has_field, object, &names, error);
    if (status == KP_OK) status = add_object(texts, object, &names, &line, path, error);
    json_decref(object);
    if (status != KP_OK) return kp_context(error, "line %zu", line.number);
  }
  return KP_OK;
}
