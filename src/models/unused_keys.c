/* Which keys of the model section nothing reads, given the others: whoever sets one of them expects an
 * effect that it does not have. */
#include <string.h>

#include "models/model.h"

typedef struct reader {
  const kp_config *config;
  kp_residual residual;
  bool stereographic, upstream, dynamic, embedding, experts, mice, latent, curved_heads;
  kp_curvature_mode mode, heads_mode;
  kp_reference_choice reference;
} reader;

static reader read(const kp_config *config) {
  const kp_residual residual = (kp_residual)kp_config_choice(config, "model.residual");
  const int feed_forward = kp_config_choice(config, "model.feed_forward");
  return (reader){.config = config,
                  .residual = residual,
                  .stereographic = residual == KP_RESIDUAL_STEREOGRAPHIC,
                  .upstream = kp_config_choice(config, "model.variant") == KP_VARIANT_UPSTREAM,
                  .dynamic = kp_config_boolean(config, "model.curvature.dynamic"),
                  .embedding = kp_config_boolean(config, "model.curvature.embedding"),
                  .experts = feed_forward >= KP_FEED_FORWARD_MOE,
                  .mice = feed_forward == KP_FEED_FORWARD_MICE,
                  .latent = kp_config_choice(config, "model.attention.kind") == KP_ATTENTION_LATENT,
                  .curved_heads = kp_config_choice(config, "model.attention.score") != KP_SCORE_DOT ||
                                  kp_config_choice(config, "model.attention.values") != KP_VALUES_MEAN,
                  .mode = (kp_curvature_mode)kp_config_choice(config, "model.curvature.mode"),
                  .heads_mode = (kp_curvature_mode)kp_config_choice(config, "model.attention.curvature.mode"),
                  .reference = (kp_reference_choice)kp_config_choice(config, "model.reference")};
}

static bool token_difference(const reader *r) {
  return r->residual <= KP_RESIDUAL_BOUNDED;
}

static bool stereographic(const reader *r) {
  return r->stereographic;
}

/* A flat model keeps the matrix that the published mixed code does not apply; nGPT has its own rotation, HELM
 * its own merge of experts. */
static bool variant(const reader *r) {
  return r->residual > KP_RESIDUAL_BOUNDED || r->mice ||
         kp_config_choice(r->config, "model.positions") == KP_POSITIONS_ROTARY ||
         !kp_config_boolean(r->config, "model.attention.output_projection");
}

static bool wiring(const reader *r) {
  return r->stereographic && !r->upstream;
}

static bool window(const reader *r) {
  return r->stereographic && r->reference == KP_CHOICE_MIDPOINT;
}

static bool residual_scale(const reader *r) {
  return r->residual == KP_RESIDUAL_LORENTZ;
}

static bool sphere_rate(const reader *r) {
  return r->residual == KP_RESIDUAL_LERP || r->residual == KP_RESIDUAL_SLERP;
}

/* Learned scales are stored in its terms. */
static bool scaled(const reader *r) {
  return sphere_rate(r) || kp_config_choice(r->config, "model.head") == KP_HEAD_SCALED ||
         kp_config_choice(r->config, "model.attention.query_norm") == KP_QUERY_UNIT;
}

static bool norm_epsilon(const reader *r) {
  return kp_config_choice(r->config, "model.norm") != KP_NORM_NONE;
}

static bool rotary(const reader *r) {
  return kp_config_choice(r->config, "model.positions") != KP_POSITIONS_LEARNED;
}

static bool stretched(const reader *r) {
  return rotary(r) && kp_config_integer(r->config, "model.rotary.original_context") > 0;
}

static bool classes(const reader *r) {
  return kp_config_choice(r->config, "model.task") != KP_TASK_LANGUAGE;
}

static bool pooling(const reader *r) {
  return kp_config_choice(r->config, "model.task") == KP_TASK_CLASSIFY;
}

static bool head(const reader *r) {
  return !classes(r);
}

/* A predicted curvature has no start; the embedding's is the first of the list. */
static bool value(const reader *r) {
  if (r->residual == KP_RESIDUAL_BOUNDED || r->residual == KP_RESIDUAL_LORENTZ) return true;
  if (!r->stereographic) return false;
  if (r->upstream) return !r->dynamic && r->mode != KP_CURVATURE_RANDOM;
  return !r->dynamic || r->embedding;
}

static bool mode(const reader *r) {
  return (r->stereographic && !r->dynamic) || r->residual == KP_RESIDUAL_BOUNDED ||
         r->residual == KP_RESIDUAL_LORENTZ;
}

/* The published code has maps of its own. */
static bool map(const reader *r) {
  if (r->residual == KP_RESIDUAL_BOUNDED) return r->mode != KP_CURVATURE_FIXED;
  return r->stereographic && !r->upstream && (r->mode != KP_CURVATURE_FIXED || r->dynamic || r->embedding);
}

/* The published code ignores it where it is given a curvature a block. */
static bool per_head(const reader *r) {
  return (r->stereographic && (!r->upstream || r->dynamic || r->mode > KP_CURVATURE_PARAMETRIC)) ||
         r->residual == KP_RESIDUAL_BOUNDED;
}

static bool groups(const reader *r) {
  return per_head(r) && kp_config_boolean(r->config, "model.curvature.per_head");
}

static bool curved_heads(const reader *r) {
  return r->curved_heads;
}

static bool heads_map(const reader *r) {
  return r->curved_heads && r->heads_mode != KP_CURVATURE_FIXED;
}

/* A dot product is over the root of the head size anyway. */
static bool query_norm(const reader *r) {
  return kp_config_choice(r->config, "model.attention.query_norm") != KP_QUERY_SCALED ||
         kp_config_choice(r->config, "model.attention.score") != KP_SCORE_DOT;
}

static bool with_heads(const reader *r) {
  return !r->latent;
}

static bool latent(const reader *r) {
  return r->latent;
}

static bool experts(const reader *r) {
  return r->experts;
}

static bool mice(const reader *r) {
  return r->mice;
}

static const struct {
  const char *key; /* or the beginning of keys, with a dot at its end */
  bool (*read_by)(const reader *r);
} conditions[] = {
    {"model.token_difference", token_difference},
    {"model.variant", variant},
    {"model.wiring", wiring},
    {"model.reference", stereographic},
    {"model.window", window},
    {"model.residual_scale", residual_scale},
    {"model.sphere_rate", sphere_rate},
    {"model.sphere_scale", scaled},
    {"model.norm_epsilon", norm_epsilon},
    {"model.rotary.base", rotary},
    {"model.rotary.stretching", stretched},
    {"model.rotary.factor", stretched},
    {"model.rotary.beta_fast", stretched},
    {"model.rotary.beta_slow", stretched},
    {"model.classes", classes},
    {"model.pooling", pooling},
    {"model.head", head},
    {"model.curvature.mode", mode},
    {"model.curvature.value", value},
    {"model.curvature.map", map},
    {"model.curvature.per_head", per_head},
    {"model.curvature.groups", groups},
    {"model.curvature.dynamic", stereographic},
    {"model.curvature.embedding", stereographic},
    {"model.attention.query_norm", query_norm},
    {"model.attention.curvature.map", heads_map},
    {"model.attention.curvature.", curved_heads},
    {"model.attention.kv_heads", with_heads},
    {"model.attention.head_size", with_heads},
    {"model.latent.", latent},
    {"model.experts.curvature.", mice},
    {"model.experts.", experts},
};

/* The first condition that speaks of the key decides. */
static bool is_read(const char *key, const reader *r) {
  for (size_t i = 0; i < sizeof conditions / sizeof *conditions; i++) {
    const size_t length = strlen(conditions[i].key);
    const bool prefix = conditions[i].key[length - 1] == '.';
    if (prefix ? strncmp(conditions[i].key, key, length) == 0 : strcmp(conditions[i].key, key) == 0)
      return conditions[i].read_by(r);
  }
  return true;
}

size_t kp_model_unused_keys(const kp_config *config, const char *keys[], size_t room) {
  const reader r = read(config);
  const kp_schema *schema = kp_model_schema();
  size_t count = 0;
  for (size_t i = 0; i < kp_schema_size(schema); i++) {
    const char *key = kp_schema_row(schema, i)->key;
    if (!kp_config_is_default(config, key) && !is_read(key, &r) && count < room) keys[count++] = key;
  }
  return count;
}
