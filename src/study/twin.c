#include "study/twin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "train/settings.h"

bool kp_key_is_bookkeeping(const char *key) {
  static const char *const keys[] = {"train.keep",       "train.checkpoint_every", "train.log_every",
                                     "train.skip_limit", "train.evaluate_every",   "train.recompute"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
    if (strcmp(key, keys[i]) == 0) return true;
  return false;
}

/* Keys that a flat model does not read. */
static bool is_of_curvature(const char *key) {
  static const char *const keys[] = {"model.variant",    "model.wiring",         "model.reference",
                                     "model.window",     "train.curvature_rate", "model.residual_scale",
                                     "model.sphere_rate"};
  static const char *const prefixes[] = {"model.curvature.", "model.attention.curvature.",
                                         "model.experts.curvature."};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
    if (strcmp(key, keys[i]) == 0) return true;
  for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
    if (strncmp(key, prefixes[i], strlen(prefixes[i])) == 0) return true;
  return false;
}

void kp_twin_words(const kp_run_record *curved, char *text, size_t size) {
  char settings[512];
  size_t length = 0;
  kp_model_twin_words(curved->config, settings, sizeof settings);
  if (!kp_config_boolean(curved->config, "model.attention.output_projection"))
    snprintf(settings + strlen(settings), sizeof settings - strlen(settings),
             " model.attention.output_projection=false");
  text[0] = 0;
  for (const char *word = settings; *word != 0 && length < size;) {
    const int word_length = (int)strcspn(word, " ");
    length += (size_t)snprintf(text + length, size - length, "%s--set %.*s", length == 0 ? "" : " ",
                               word_length, word);
    word += word_length;
    word += strspn(word, " ");
  }
}

/* The configuration of the fair twin, resolved; for the caller to free. */
static kp_status twin_text(const kp_run_record *curved, char **text, size_t *size, kp_error *error) {
  kp_config *config;
  KP_TRY(kp_config_parse(curved->config_text, strlen(curved->config_text), curved->path, kp_training_schema(),
                         NULL, 0, &config, error));
  kp_status status = kp_model_set_twin(config, error);
  if (status == KP_OK) status = kp_config_text(config, text, size, error);
  kp_config_destroy(config);
  return status;
}

/* On the unit sphere every vector is normalised after each step: decay leaves no trace. */
static bool is_without_effect(const kp_run_record *curved, const char *key) {
  const kp_residual residual = curved->options.residual;
  return (residual == KP_RESIDUAL_LERP || residual == KP_RESIDUAL_SLERP) &&
         strcmp(key, "train.weight_decay") == 0;
}

static bool same_value(const kp_yaml_entry *a, const kp_yaml_entry *b) {
  if (a->count != b->count) return false;
  for (size_t i = 0; i < a->count; i++)
    if (strcmp(a->items[i].text, b->items[i].text) != 0) return false;
  return true;
}

kp_status kp_twin_compare(const kp_run_record *curved, const kp_run_record *flat,
                          kp_twin_difference *difference, kp_error *error) {
  char *text;
  size_t size;
  kp_yaml_document twin = {0};
  *difference = (kp_twin_difference){0};
  KP_TRY(twin_text(curved, &text, &size, error));
  kp_status status = kp_yaml_read(text, size, curved->path, &twin, error);
  /* Both texts have every key of the schema in its order. */
  kp_assert(status != KP_OK || twin.count == flat->settings.count, "two schemas: %zu and %zu keys",
            twin.count, flat->settings.count);
  for (size_t i = 0; i < twin.count && status == KP_OK; i++) {
    const char *key = twin.entries[i].key;
    const kp_config_row *row = kp_schema_find(kp_training_schema(), key);
    if (is_without_effect(curved, key)) continue;
    if (row == NULL || is_of_curvature(key) || kp_key_is_bookkeeping(key) || strcmp(key, "train.seed") == 0)
      continue;
    if (same_value(&twin.entries[i], &flat->settings.entries[i])) continue;
    if (difference->count < KP_TWIN_KEYS) difference->keys[difference->count] = row->key;
    difference->count++;
  }
  kp_yaml_clear(&twin);
  free(text);
  return status;
}

bool kp_twin_wants_bounded(const kp_run_record *curved) {
  const kp_model_options *o = &curved->options;
  if (o->residual != KP_RESIDUAL_STEREOGRAPHIC || o->curvature.mode != KP_CURVATURE_FIXED ||
      o->curvature.dynamic)
    return false;
  for (int i = 0; i < o->curvature.count; i++)
    if (o->curvature.values[i] >= 0) return false;
  return true;
}

kp_status kp_twin_is_bounded(const kp_run_record *curved, const kp_run_record *other, bool *bounded,
                             kp_error *error) {
  const kp_curvature_options *a = &curved->options.curvature, *b = &other->options.curvature;
  kp_twin_difference difference;
  *bounded = false;
  if (!kp_twin_wants_bounded(curved) || other->options.residual != KP_RESIDUAL_BOUNDED) return KP_OK;
  KP_TRY(kp_twin_compare(curved, other, &difference, error));
  *bounded =
      difference.count == 1 && strcmp(difference.keys[0], "model.residual") == 0 && a->count == b->count;
  for (int i = 0; i < a->count && *bounded; i++) *bounded = a->values[i] == b->values[i];
  return KP_OK;
}

/* Keys in which a model with frozen curvatures may differ: that they are learned, how fast, and the map from
 * the learned number. */
static bool is_of_learning(const char *key) {
  static const char *const keys[] = {"train.curvature_rate",          "model.curvature.mode",
                                     "model.curvature.map",           "model.attention.curvature.mode",
                                     "model.attention.curvature.map", "model.experts.curvature.mode",
                                     "model.experts.curvature.map"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
    if (strcmp(key, keys[i]) == 0) return true;
  return false;
}

/* Whether any place starts from random curvatures. */
static bool starts_at_random(const kp_run_record *run) {
  const kp_model_options *o = &run->options;
  const kp_curvature_options *all[KP_PLACES] = {&o->curvature, &o->attention.curvature,
                                                &o->experts.curvature};
  for (kp_place place = 0; place < KP_PLACES; place++)
    if (kp_run_record_learns(run, place) && all[place]->mode == KP_CURVATURE_RANDOM) return true;
  return false;
}

bool kp_twin_is_frozen(const kp_run_record *learned, const kp_run_record *other) {
  bool frozen = other->family == learned->family && !kp_run_record_learns_curvature(other);
  /* Random starts can be frozen by the rate alone: a fixed curvature has other values. */
  const bool same_start =
      !starts_at_random(learned) || kp_config_real(other->config, "train.curvature_rate") == 0;
  frozen = frozen && same_start && learned->settings.count == other->settings.count;
  for (size_t i = 0; i < learned->settings.count && frozen; i++) {
    const char *key = learned->settings.entries[i].key;
    if (is_of_learning(key) || kp_key_is_bookkeeping(key) || strcmp(key, "train.seed") == 0) continue;
    frozen = same_value(&learned->settings.entries[i], &other->settings.entries[i]);
  }
  return frozen;
}
