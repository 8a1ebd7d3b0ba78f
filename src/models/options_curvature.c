/* Curvatures: those of the stream, and the reader that attention heads and experts share. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "models/options_private.h"

static const kp_config_row rows[] = {
    {"model.curvature.mode", KP_CONFIG_CHOICE, "fixed", "fixed|parametric|tied|random",
     "of the stream: fixed, learned per block, learned once, or learned from random starts"},
    {"model.curvature.value", KP_CONFIG_REALS, "[-0.1]", "[-100, 100]",
     "κ (its start, where learned): one, one a block, or one a block and group"},
    {"model.curvature.map", KP_CONFIG_CHOICE, "tanh", "identity|negate|tanh|softplus|sigmoid",
     "from the learned number to κ: tanh is 2 tanh θ, softplus and sigmoid are hyperbolic"},
    {"model.curvature.per_head", KP_CONFIG_BOOLEAN, "false", NULL,
     "a product of spaces: one κ for each group of channels instead of one for all"},
    {"model.curvature.groups", KP_CONFIG_INTEGER, "0", "[0, 512]",
     "with per_head, how many spaces the product has; 0: one a head"},
    {"model.curvature.dynamic", KP_CONFIG_BOOLEAN, "false", NULL,
     "κ predicted from each token (upstream: from the last one, which leaks the future)"},
    {"model.curvature.embedding", KP_CONFIG_BOOLEAN, "false", NULL,
     "embeddings are steps from the previous token's, on a curvature of their own"},
};

const kp_config_table kp_model_curvature_config = {rows, sizeof rows / sizeof *rows};

int64_t kp_model_groups(const kp_model_options *o) {
  if (!o->curvature.per_head) return 1;
  return o->curvature.groups > 0 ? o->curvature.groups : o->heads;
}

double kp_curvature_start(const kp_curvature_options *c, int64_t layers, int64_t layer, int64_t groups,
                          int64_t group) {
  if (c->count == 1) return c->values[0];
  if (c->count == layers) return c->values[layer];
  if (c->count == groups) return c->values[group];
  return c->values[layer * groups + group];
}

static kp_status check_count(const kp_config *config, const char *key, const kp_model_options *o,
                             int64_t groups, int64_t count, kp_error *error) {
  if (count == 1 || count == o->layers || (groups > 1 && (count == groups || count == o->layers * groups)))
    return KP_OK;
  if (groups == 1)
    return kp_config_fail(config, key, error, "%lld values; give 1, or one for each of %lld blocks",
                          (long long)count, (long long)o->layers);
  return kp_config_fail(
      config, key, error,
      "%lld values; give 1, one for each of %lld blocks, of %lld groups, or of %lld blocks and groups",
      (long long)count, (long long)o->layers, (long long)groups, (long long)(o->layers * groups));
}

/* What the map from the learned number can reach. */
static kp_status check_reach(const kp_config *config, const char *key, const kp_curvature_options *c,
                             kp_error *error) {
  for (int i = 0; i < c->count; i++) {
    const double kappa = c->values[i];
    if ((c->map == KP_CURVATURE_TANH && (kappa <= -2 || kappa >= 2)) ||
        (c->map == KP_CURVATURE_SOFTPLUS && kappa >= 0) ||
        (c->map == KP_CURVATURE_SIGMOID && (kappa >= 0 || kappa <= -1)))
      return kp_config_fail(config, key, error,
                            "%g is outside what the map can reach (tanh: -2 to 2, softplus: below 0, "
                            "sigmoid: -1 to 0)",
                            kappa);
  }
  return KP_OK;
}

kp_status kp_read_curvature_values(const kp_config *config, const char *prefix, const kp_model_options *o,
                                   int64_t groups, kp_curvature_options *c, kp_error *error) {
  char mode[64], value[64];
  size_t count;
  snprintf(mode, sizeof mode, "%s.mode", prefix);
  snprintf(value, sizeof value, "%s.value", prefix);
  const double *values = kp_config_reals(config, value, &count);
  c->mode = (kp_curvature_mode)kp_config_choice(config, mode);
  c->values = malloc((count + 1) * sizeof *values);
  kp_assert(c->values != NULL, "out of memory");
  memcpy(c->values, values, count * sizeof *values);
  c->count = (int)count;
  return check_count(config, value, o, groups, c->count, error);
}

kp_status kp_read_curvature(const kp_config *config, const char *prefix, const kp_model_options *o,
                            int64_t groups, kp_curvature_options *c, kp_error *error) {
  char map[64], value[64];
  snprintf(map, sizeof map, "%s.map", prefix);
  snprintf(value, sizeof value, "%s.value", prefix);
  c->map = (kp_curvature_map)kp_config_choice(config, map);
  KP_TRY(kp_read_curvature_values(config, prefix, o, groups, c, error));
  const bool learned = c->mode != KP_CURVATURE_FIXED || c->dynamic;
  return learned && o->variant == KP_VARIANT_EXACT ? check_reach(config, value, c, error) : KP_OK;
}

kp_status kp_read_stream_curvature(const kp_config *config, kp_model_options *o, kp_error *error) {
  kp_curvature_options *c = &o->curvature;
  c->per_head = kp_config_boolean(config, "model.curvature.per_head");
  c->groups = kp_config_integer(config, "model.curvature.groups");
  c->dynamic = kp_config_boolean(config, "model.curvature.dynamic");
  c->embedding = kp_config_boolean(config, "model.curvature.embedding");
  if (o->residual < KP_RESIDUAL_BOUNDED) return KP_OK;
  if (o->residual == KP_RESIDUAL_STEREOGRAPHIC && o->width % kp_model_groups(o) != 0)
    return kp_config_fail(config, c->groups > 0 ? "model.curvature.groups" : "model.heads", error,
                          "%lld do not divide model.width %lld", (long long)kp_model_groups(o),
                          (long long)o->width);
  return kp_read_curvature(config, "model.curvature", o, kp_model_groups(o), c, error);
}
