/* The fair Euclidean twin of a model: what the same sizes and settings give without curvature. */
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "models/model.h"

/* The keys that curve a model: the twin always has its own. */
static bool curves(const char *key) {
  static const char *const keys[] = {"model.residual",
                                     "model.attention.score",
                                     "model.attention.values",
                                     "model.attention.query_norm",
                                     "model.feed_forward",
                                     "model.embedding",
                                     "model.head",
                                     "model.norm"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
    if (strcmp(keys[i], key) == 0) return true;
  return false;
}

static bool is_key_of(const char *assignment, const char *key) {
  const size_t length = strlen(key);
  return strncmp(assignment, key, length) == 0 && assignment[length] == '=';
}

/* What a family gives a key: its preset, or the schema's default. */
static const char *given(const kp_family *family, const char *key, char text[128]) {
  for (const char *const *preset = family->presets; *preset != NULL; preset++)
    if (is_key_of(*preset, key)) return *preset;
  const char *fallback = kp_schema_find(kp_model_schema(), key)->fallback;
  kp_assert(strlen(key) + strlen(fallback) + 2 <= 128, "%s is too long", key);
  strcpy(text, key);
  strcat(text, "=");
  return strcat(text, fallback);
}

/* Whether a run's value of `key` is what its family gives. */
static bool is_untouched(const kp_config *config, const kp_family *family, const char *key) {
  char text[128];
  const char *assignment = given(family, key, text) + strlen(key) + 1;
  const kp_config_row *row = kp_schema_find(kp_model_schema(), key);
  switch (row->type) {
  case KP_CONFIG_CHOICE: return kp_config_choice(config, key) == kp_config_choice_find(row, assignment);
  case KP_CONFIG_BOOLEAN: return kp_config_boolean(config, key) == (strcmp(assignment, "true") == 0);
  case KP_CONFIG_REAL: return kp_config_real(config, key) == strtod(assignment, NULL);
  default: return true;
  }
}

/* Gives every key that a preset of `list` names what `twin` gives it. */
static kp_status set_keys(kp_config *config, const kp_family *family, const kp_family *twin,
                          const char *const *list, kp_error *error) {
  for (; *list != NULL; list++) {
    char key[128], text[128];
    const size_t length = strcspn(*list, "=");
    memcpy(key, *list, length);
    key[length] = 0;
    if (curves(key) || is_untouched(config, family, key))
      KP_TRY(kp_config_set(config, given(twin, key, text), error));
  }
  return KP_OK;
}

static kp_status set_words(kp_config *config, const char *words, kp_error *error) {
  while (*words != 0) {
    char assignment[128];
    const size_t length = strcspn(words, " ");
    kp_assert(length < sizeof assignment, "a twin's setting is too long: %s", words);
    memcpy(assignment, words, length);
    assignment[length] = 0;
    KP_TRY(kp_config_set(config, assignment, error));
    words += length + strspn(words + length, " ");
  }
  return KP_OK;
}

kp_status kp_model_set_twin(kp_config *config, kp_error *error) {
  const kp_family *family = kp_family_at(kp_config_choice(config, "model.family"));
  if (family->twin == NULL) return KP_OK;
  const bool reads_origin = kp_config_choice(config, "model.reference") == KP_CHOICE_ORIGIN;
  const bool stereographic = kp_config_choice(config, "model.residual") == KP_RESIDUAL_STEREOGRAPHIC;
  KP_TRY(set_words(config, family->twin, error));
  const kp_family *twin = kp_family_at(kp_config_choice(config, "model.family"));
  KP_TRY(set_keys(config, family, twin, family->presets, error));
  KP_TRY(set_keys(config, family, twin, twin->presets, error));
  /* With the origin as reference the tangent vector is the stream itself: no token difference is left. */
  if (stereographic && reads_origin) return kp_config_set(config, "model.token_difference=false", error);
  return KP_OK;
}
