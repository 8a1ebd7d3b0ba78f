#include "study/verify_settings.h"

#include <stdio.h>
#include <string.h>

static int64_t integer(const json_t *config, const char *key, int64_t fallback) {
  const json_t *value = json_object_get(config, key);
  return json_is_integer(value) ? json_integer_value(value) : fallback;
}

static double number(const json_t *config, const char *key, double fallback) {
  const json_t *value = json_object_get(config, key);
  return json_is_number(value) ? json_number_value(value) : fallback;
}

static bool boolean(const json_t *config, const char *key, bool fallback) {
  const json_t *value = json_object_get(config, key);
  return json_is_boolean(value) ? json_is_true(value) : fallback;
}

static const char *text_of(const json_t *object, const char *key, const char *fallback) {
  const char *text = json_string_value(json_object_get(object, key));
  return text == NULL ? fallback : text;
}

static const char *yes(bool value) {
  return value ? "true" : "false";
}

/* The published configuration: c > 0 is the curvature -c; per head, dynamic and embedding curvature are on by
 * default. */
static void upstream_settings(const json_t *config, char *text, size_t size) {
  const double c = (double)(float)json_number_value(json_object_get(config, "curvature"));
  snprintf(
      text, size, "model.curvature: {mode: %s, value: [%.17g], per_head: %s, dynamic: %s, embedding: %s}\n",
      text_of(config, "curvature_mode", "random"), -c, yes(boolean(config, "per_head_curvature", true)),
      yes(boolean(config, "dynamic_curvature", true)), yes(boolean(config, "use_embedding_curvature", true)));
}

/* Curvatures are learned, so that they have gradients; the case's own values overwrite their start. */
static void exact_settings(const kp_case *c, const json_t *config, char *text, size_t size) {
  const char *wiring = text_of(c->json, "wiring", "E3");
  snprintf(text, size,
           "model.wiring: e%c\nmodel.reference: %s\n"
           "model.curvature: {mode: parametric, map: identity, value: [0], per_head: %s}\n",
           strlen(wiring) == 2 ? wiring[1] : '3', text_of(config, "reference", "previous"),
           yes(integer(config, "groups", 1) > 1));
}

/* The mixed-curvature transformer and its baseline. */
static void mixed_settings(const kp_case *c, const json_t *config, char *text, size_t size) {
  const bool mixed = strcmp(c->report->family, "mixed") == 0;
  const bool upstream = mixed && strcmp(c->report->variant, "upstream") == 0;
  char curvature[512] = "";
  if (upstream)
    upstream_settings(config, curvature, sizeof curvature);
  else if (mixed)
    exact_settings(c, config, curvature, sizeof curvature);
  snprintf(text, size,
           "model.family: %s\nmodel.variant: %s\nmodel.vocabulary: %lld\nmodel.layers: %lld\n"
           "model.heads: %lld\nmodel.width: %lld\nmodel.context: %lld\nmodel.bias: %s\n"
           "model.attention.output_projection: %s\n%s",
           mixed ? "mixed" : "gpt", upstream ? "upstream" : "exact",
           (long long)integer(config, "vocab_size", 0), (long long)integer(config, "n_layer", 0),
           (long long)integer(config, "n_head", 0), (long long)integer(config, "n_embd", 0),
           (long long)integer(config, "block_size", 0), yes(boolean(config, "bias", true)), yes(!mixed),
           curvature);
}

/* nGPT and its baseline; its position encoding as published is no rotation. */
static void ngpt_settings(const kp_case *c, const json_t *config, char *text, size_t size) {
  const bool upstream = strcmp(text_of(c->json, "rope", "exact"), "upstream") == 0;
  snprintf(text, size,
           "model.family: %s\nmodel.variant: %s\nmodel.vocabulary: %lld\nmodel.layers: %lld\n"
           "model.heads: %lld\nmodel.width: %lld\nmodel.context: %lld\nmodel.bias: %s\n"
           "model.sphere_scale: %.17g\n",
           integer(config, "use_nGPT", 0) != 0 ? "ngpt" : "llama", upstream ? "upstream" : "exact",
           (long long)integer(config, "vocab_size", 0), (long long)integer(config, "n_layer", 0),
           (long long)integer(config, "n_head", 0), (long long)integer(config, "n_embd", 0),
           (long long)integer(config, "block_size", 0), yes(boolean(config, "bias", false)),
           json_number_value(json_object_get(config, "base_scale")));
}

/* HELM-D by its name, "L2_W52_A4": widths there count time. */
static void helm_d_settings(const kp_case *c, const json_t *config, char *text, size_t size) {
  long long layers = 0, ambient = 0, heads = 1;
  sscanf(text_of(config, "arch", ""), "L%lld_W%lld_A%lld", &layers, &ambient, &heads);
  snprintf(text, size,
           "model.family: helm_d\nmodel.variant: %s\nmodel.vocabulary: %lld\nmodel.layers: %lld\n"
           "model.heads: %lld\nmodel.width: %lld\nmodel.context: %lld\nmodel.attention.head_size: %lld\n",
           c->report->variant, (long long)integer(config, "vocab_size", 0), layers, heads, ambient - 1,
           (long long)integer(config, "max_seq_len", 0), heads > 0 ? ambient / heads - 1 : 0);
}

/* HELM-MiCE: sizes there count time, but for the latent's and the plain part of a key. */
static void helm_mice_settings(const kp_case *c, const json_t *config, char *text, size_t size) {
  snprintf(
      text, size,
      "model.family: helm_mice\nmodel.variant: %s\nmodel.vocabulary: %lld\nmodel.layers: %lld\n"
      "model.heads: %lld\nmodel.width: %lld\nmodel.context: %lld\nmodel.hidden: %lld\n"
      "model.embedding: %s\nmodel.rotary.base: %lld\n"
      "model.latent: {rank: %lld, query_rank: %lld, plain: %lld, rotary: %lld, value: %lld}\n"
      "model.experts: {routed: %lld, shared: %lld, active: %lld, groups: %lld, limited_groups: %lld, "
      "dense_layers: %lld, hidden: %lld, score: %s, route_scale: %.17g, balance_rate: %.17g, "
      "balance_loss: %.17g}\nmodel.experts.curvature.mode: %s\n",
      c->report->variant, (long long)integer(config, "vocab_size", 0),
      (long long)integer(config, "n_layers", 0), (long long)integer(config, "n_heads", 0),
      (long long)integer(config, "dim", 0) - 1, (long long)integer(config, "max_seq_len", 0),
      (long long)integer(config, "inter_dim", 0) - 1,
      boolean(config, "project_emb", false) ? "table" : "manifold",
      (long long)integer(config, "rope_theta", 10000), (long long)integer(config, "kv_lora_rank", 0),
      (long long)integer(config, "q_lora_rank", 0), (long long)integer(config, "qk_nope_head_dim", 0),
      (long long)integer(config, "qk_rope_head_dim", 0) - 1, (long long)integer(config, "v_head_dim", 0) - 1,
      (long long)integer(config, "n_routed_experts", 0), (long long)integer(config, "n_shared_experts", 1),
      (long long)integer(config, "n_activated_experts", 2), (long long)integer(config, "n_expert_groups", 1),
      (long long)integer(config, "n_limited_groups", 1), (long long)integer(config, "n_dense_layers", 0),
      (long long)integer(config, "mice_inter_dim", 0) - 1, text_of(config, "score_func", "softmax"),
      number(config, "route_scale", 1), number(config, "bias_update_speed", 0),
      number(config, "seq_bal_alpha", 0), boolean(config, "train_curv", false) ? "parametric" : "fixed");
}

static const struct {
  const char *family;
  void (*settings)(const kp_case *c, const json_t *config, char *text, size_t size);
} families[] = {
    {"mixed", mixed_settings},   {"gpt-no-geometry", mixed_settings}, {"ngpt", ngpt_settings},
    {"gpt-rope", ngpt_settings}, {"helm-d", helm_d_settings},         {"helm-mice", helm_mice_settings},
};

kp_status kp_case_options(const kp_case *c, kp_model_options *options, kp_error *error) {
  char text[2048];
  for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
    kp_config *config;
    if (strcmp(families[i].family, c->report->family) != 0) continue;
    families[i].settings(c, json_object_get(c->json, "config"), text, sizeof text);
    KP_TRY(kp_config_parse(text, strlen(text), "case.json", kp_model_schema(), NULL, 0, &config, error));
    kp_status status = kp_model_options_read(config, NULL, options, error);
    kp_config_destroy(config);
    return status;
  }
  return kp_fail(error, KP_ERR_UNSUPPORTED, "family \"%s\" is none that kappa verifies", c->report->family);
}
