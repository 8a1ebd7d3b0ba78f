#include "interchange/hf_config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

kp_status kp_hf_config_begin(kp_hf_config *config, const json_t *object, const char *label, kp_error *error) {
  *config = (kp_hf_config){.object = object};
  snprintf(config->label, sizeof config->label, "%s", label);
  if (!json_is_object(object)) return kp_fail(error, KP_ERR_INPUT, "%s: no JSON object", label);
  return KP_OK;
}

static bool was_asked(const kp_hf_config *config, const char *key) {
  for (size_t i = 0; i < config->asked_count; i++)
    if (strcmp(config->asked[i], key) == 0) return true;
  return false;
}

static const json_t *ask(kp_hf_config *config, const char *key) {
  if (!was_asked(config, key) && config->asked_count < KP_HF_MAX_KEYS)
    config->asked[config->asked_count++] = key;
  const json_t *value = json_object_get(config->object, key);
  return json_is_null(value) ? NULL : value;
}

bool kp_hf_has(kp_hf_config *config, const char *key) {
  return ask(config, key) != NULL;
}

kp_status kp_hf_refuse(const kp_hf_config *config, const char *key, kp_error *error, const char *format,
                       ...) {
  char words[512], text[96];
  va_list values;
  va_start(values, format);
  vsnprintf(words, sizeof words, format, values);
  va_end(values);
  const json_t *value = json_object_get(config->object, key);
  char *printed = value == NULL ? NULL : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
  snprintf(text, sizeof text, "%s", printed == NULL ? "absent" : printed);
  free(printed);
  return kp_fail(error, KP_ERR_INPUT, "%s: \"%s\" is %s: %s", config->label, key, text, words);
}

kp_status kp_hf_integer(kp_hf_config *config, const char *key, int64_t otherwise, int64_t *value,
                        kp_error *error) {
  const json_t *found = ask(config, key);
  *value = otherwise;
  if (found == NULL) return KP_OK;
  if (!json_is_integer(found)) return kp_hf_refuse(config, key, error, "a whole number was expected");
  *value = json_integer_value(found);
  return KP_OK;
}

kp_status kp_hf_size(kp_hf_config *config, const char *key, int64_t *value, kp_error *error) {
  KP_TRY(kp_hf_integer(config, key, 0, value, error));
  if (*value < 1 || *value > INT32_MAX)
    return kp_hf_refuse(config, key, error, "a positive number was expected");
  return KP_OK;
}

kp_status kp_hf_real(kp_hf_config *config, const char *key, double otherwise, double *value,
                     kp_error *error) {
  const json_t *found = ask(config, key);
  *value = otherwise;
  if (found == NULL) return KP_OK;
  if (!json_is_number(found)) return kp_hf_refuse(config, key, error, "a number was expected");
  *value = json_number_value(found);
  return KP_OK;
}

kp_status kp_hf_boolean(kp_hf_config *config, const char *key, bool otherwise, bool *value, kp_error *error) {
  const json_t *found = ask(config, key);
  *value = otherwise;
  if (found == NULL) return KP_OK;
  if (!json_is_boolean(found)) return kp_hf_refuse(config, key, error, "true or false was expected");
  *value = json_is_true(found);
  return KP_OK;
}

kp_status kp_hf_text(kp_hf_config *config, const char *key, const char *otherwise, const char **value,
                     kp_error *error) {
  const json_t *found = ask(config, key);
  *value = otherwise;
  if (found == NULL) return KP_OK;
  if (!json_is_string(found)) return kp_hf_refuse(config, key, error, "a text was expected");
  *value = json_string_value(found);
  return KP_OK;
}

void kp_hf_ignore(kp_hf_config *config, const char *const *keys) {
  for (; *keys != NULL; keys++) ask(config, *keys);
}

size_t kp_hf_unknown(const kp_hf_config *config, char *text, size_t size) {
  void *at = json_object_iter((json_t *)config->object);
  size_t count = 0;
  if (size > 0) text[0] = 0;
  for (; at != NULL; at = json_object_iter_next((json_t *)config->object, at)) {
    const char *key = json_object_iter_key(at);
    if (was_asked(config, key)) continue;
    const size_t used = strlen(text);
    if (used + strlen(key) + 3 <= size)
      snprintf(text + used, size - used, "%s%s", count == 0 ? "" : ", ", key);
    count++;
  }
  return count;
}
