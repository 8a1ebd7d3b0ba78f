/* Which keys of the model section nothing reads, given the others: whoever sets one of them expects an
 * effect that it does not have. */
#include "models/model.h"

typedef struct reader {
  const kp_config *config;
  bool curved, upstream, dynamic, embedding, output_projection;
  kp_curvature_mode mode;
  kp_reference_choice reference;
} reader;

static reader read(const kp_config *config) {
  return (reader){.config = config,
                  .curved = kp_family_at(kp_config_choice(config, "model.family"))->curved,
                  .upstream = kp_config_choice(config, "model.variant") == KP_VARIANT_UPSTREAM,
                  .dynamic = kp_config_boolean(config, "model.curvature.dynamic"),
                  .embedding = kp_config_boolean(config, "model.curvature.embedding"),
                  .output_projection = kp_config_boolean(config, "model.output_projection"),
                  .mode = (kp_curvature_mode)kp_config_choice(config, "model.curvature.mode"),
                  .reference = (kp_reference_choice)kp_config_choice(config, "model.reference")};
}

static bool token_difference(const reader *r) {
  return !r->curved;
}

static bool curved(const reader *r) {
  return r->curved;
}

/* A flat model keeps the matrix that the published code does not apply. */
static bool variant(const reader *r) {
  return r->curved || !r->output_projection;
}

static bool wiring(const reader *r) {
  return r->curved && !r->upstream;
}

static bool window(const reader *r) {
  return r->curved && r->reference == KP_CHOICE_MIDPOINT;
}

static bool mode(const reader *r) {
  return r->curved && !r->dynamic;
}

/* A predicted curvature has no start; the embedding's is the first of the list. */
static bool value(const reader *r) {
  if (!r->curved) return false;
  if (r->upstream) return !r->dynamic && r->mode != KP_CURVATURE_RANDOM;
  return !r->dynamic || r->embedding;
}

/* The published code has maps of its own. */
static bool map(const reader *r) {
  return r->curved && !r->upstream && (r->mode != KP_CURVATURE_FIXED || r->dynamic || r->embedding);
}

/* The published code ignores it where it is given a curvature a block. */
static bool per_head(const reader *r) {
  return r->curved && (!r->upstream || r->dynamic || r->mode > KP_CURVATURE_PARAMETRIC);
}

static const struct {
  const char *key;
  bool (*read_by)(const reader *r);
} conditions[] = {
    {"model.token_difference", token_difference},
    {"model.variant", variant},
    {"model.wiring", wiring},
    {"model.reference", curved},
    {"model.window", window},
    {"model.curvature.mode", mode},
    {"model.curvature.value", value},
    {"model.curvature.map", map},
    {"model.curvature.per_head", per_head},
    {"model.curvature.dynamic", curved},
    {"model.curvature.embedding", curved},
};

size_t kp_model_unused_keys(const kp_config *config, const char *keys[], size_t room) {
  const reader r = read(config);
  size_t count = 0;
  for (size_t i = 0; i < sizeof conditions / sizeof *conditions; i++)
    if (!kp_config_is_default(config, conditions[i].key) && !conditions[i].read_by(&r) && count < room)
      keys[count++] = conditions[i].key;
  return count;
}
