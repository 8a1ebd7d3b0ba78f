/* The fair Euclidean twin of a model: what the same sizes and settings give without curvature. */
#include <stdio.h>
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

/* ---- curved parts of any model ---- */

/* Choices that curve, and what stands for them in a flat model. */
static const struct {
  const char *key, *curved, *flat;
} flattened[] = {
    {"model.residual", "stereographic", "add"},
    {"model.residual", "lerp", "add"},
    {"model.residual", "slerp", "add"},
    {"model.residual", "lorentz", "add"},
    {"model.attention.query_norm", "scaled", "plain"}, /* before the score, which decides whether it counts */
    {"model.attention.score", "distance", "dot"},
    {"model.attention.score", "distance_squared", "dot"},
    {"model.attention.score", "lorentz", "dot"},
    {"model.attention.values", "lorentz", "mean"},
    {"model.attention.values", "midpoint", "mean"},
    {"model.feed_forward", "lorentz", "gated"},
    {"model.feed_forward", "mice", "moe"},
    {"model.positions", "hope", "rotary"},
    {"model.embedding", "manifold", "table"},
    {"model.head", "lorentz", "untied"},
    {"model.head", "lorentz_mlr", "untied"},
};
enum { FLATTENED = sizeof flattened / sizeof *flattened };

static bool applies(const kp_config *config, int i) {
  const kp_config_row *row = kp_schema_find(kp_model_schema(), flattened[i].key);
  const bool of_score = strcmp(row->key, "model.attention.query_norm") == 0;
  if (of_score && kp_config_choice(config, "model.attention.score") == KP_SCORE_DOT) return false;
  return kp_config_choice(config, row->key) == kp_config_choice_find(row, flattened[i].curved);
}

/* Whether the family's own twin speaks of the key: a preset of the family, as it was given. */
static bool is_preset(const kp_config *config, const kp_family *family, const char *key) {
  if (family->twin == NULL) return false;
  for (const char *const *preset = family->presets; *preset != NULL; preset++)
    if (is_key_of(*preset, key)) return is_untouched(config, family, key);
  return false;
}

static kp_status flatten(kp_config *config, kp_error *error) {
  for (int i = 0; i < FLATTENED; i++) {
    char assignment[128];
    if (!applies(config, i)) continue;
    snprintf(assignment, sizeof assignment, "%s=%s", flattened[i].key, flattened[i].flat);
    KP_TRY(kp_config_set(config, assignment, error));
  }
  return KP_OK;
}

static bool reads_origin(const kp_config *config) {
  return kp_config_choice(config, "model.residual") == KP_RESIDUAL_STEREOGRAPHIC &&
         kp_config_choice(config, "model.reference") == KP_CHOICE_ORIGIN;
}

/* With the origin as reference the tangent vector is the stream itself: no token difference is left. */
static const char *family_words(const kp_config *config) {
  const kp_family *family = kp_family_at(kp_config_choice(config, "model.family"));
  if (family->twin != NULL && reads_origin(config)) return "model.family=gpt model.token_difference=false";
  return family->twin == NULL ? "" : family->twin;
}

void kp_model_twin_words(const kp_config *config, char *text, size_t size) {
  const kp_family *family = kp_family_at(kp_config_choice(config, "model.family"));
  snprintf(text, size, "%s", family_words(config));
  for (int i = 0; i < FLATTENED; i++)
    if (applies(config, i) && !is_preset(config, family, flattened[i].key))
      snprintf(text + strlen(text), size - strlen(text), "%s%s=%s", *text == 0 ? "" : " ", flattened[i].key,
               flattened[i].flat);
}

/* ---- the twin ---- */

kp_status kp_model_set_twin(kp_config *config, kp_error *error) {
  const kp_family *family = kp_family_at(kp_config_choice(config, "model.family"));
  if (family->twin == NULL) return flatten(config, error);
  const char *words = family_words(config);
  KP_TRY(set_words(config, words, error));
  const kp_family *twin = kp_family_at(kp_config_choice(config, "model.family"));
  KP_TRY(set_keys(config, family, twin, family->presets, error));
  KP_TRY(set_keys(config, family, twin, twin->presets, error));
  KP_TRY(set_words(config, words, error)); /* the presets may have changed what they say */
  return flatten(config, error);
}
