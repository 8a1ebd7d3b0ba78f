#include "train/learned.h"

#include <string.h>

#include "models/name_pattern.h"
#include "train/lora.h"

kp_learned kp_learned_read(const kp_config *config) {
  kp_learned learned;
  learned.only = kp_config_texts(config, "train.only", &learned.only_count);
  learned.adapters = kp_config_integer(config, "train.lora.rank") > 0;
  learned.freeze = kp_config_texts(config, "train.freeze", &learned.freeze_count);
  return learned;
}

static bool is_learned(const kp_learned *l, const char *name) {
  if (kp_name_is_among(l->freeze, l->freeze_count, name)) return false;
  if (l->adapters && kp_is_adapter(name)) return true;
  if (l->only_count > 0) return kp_name_is_among(l->only, l->only_count, name);
  return !l->adapters || strncmp(name, "classifier.", strlen("classifier.")) == 0;
}

static kp_status check_patterns(const char *key, const char *const *patterns, size_t count,
                                const kp_parameters *parameters, kp_error *error) {
  for (size_t i = 0; i < count; i++) {
    bool found = false;
    for (int p = 0; p < parameters->count; p++)
      found |= kp_name_matches(patterns[i], parameters->list[p].name);
    if (!found)
      return kp_fail(error, KP_ERR_INPUT,
                     "%s: no parameter matches \"%s\"; `kappa info` lists their names, and embedding, head, "
                     "blocks.0-5, attention, feed_forward, norms and curvature are understood",
                     key, patterns[i]);
  }
  return KP_OK;
}

/* Whether the steps of other parameters are counted in the moments of this one. */
static bool counts(const kp_parameters *parameters, int index) {
  for (int p = 0; p < parameters->count; p++)
    if (parameters->list[p].counter == index + 1) return true;
  return false;
}

static kp_status freeze(const kp_learned *l, kp_parameters *parameters, kp_error *error) {
  bool left = false;
  if (l->adapters) KP_TRY(kp_lora_check(parameters, error));
  KP_TRY(check_patterns("train.only", l->only, l->only_count, parameters, error));
  KP_TRY(check_patterns("train.freeze", l->freeze, l->freeze_count, parameters, error));
  for (int p = 0; p < parameters->count; p++) {
    const kp_parameter *parameter = &parameters->list[p];
    const bool wanted = is_learned(l, parameter->name);
    left |= wanted && parameter->trainable && parameter->used;
    if (!wanted && parameter->used && !counts(parameters, p)) kp_parameters_freeze(parameters, p);
  }
  return left ? KP_OK
              : kp_fail(error, KP_ERR_INPUT, "train.only and train.freeze leave no parameter to train");
}

kp_status kp_learned_apply(const kp_learned *learned, const kp_model_options *model,
                           kp_parameters *parameters, kp_error *error) {
  const kp_build build = {
      .mode = KP_BUILD_LOGITS, .batch = 1, .length = 1, .documents = kp_model_reads_documents(model)};
  kp_network *network; /* building any graph fills the table */
  if (learned == NULL) return KP_OK;
  if (learned->only_count + learned->freeze_count == 0 && !learned->adapters) return KP_OK;
  KP_TRY(kp_network_create(model, parameters, build, &network, error));
  kp_network_destroy(network);
  return freeze(learned, parameters, error);
}
