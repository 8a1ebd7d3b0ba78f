/* The model section of a configuration. */
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "models/model.h"

static const kp_config_row rows[] = {
    {"model.family", KP_CONFIG_CHOICE, "gpt", "gpt|mixed", "kind of model (docs/families.md)"},
    {"model.vocabulary", KP_CONFIG_INTEGER, "0", "[0, 16777216]",
     "number of tokens; 0: as many as the data has"},
    {"model.layers", KP_CONFIG_INTEGER, "6", "[1, 512]", "blocks"},
    {"model.heads", KP_CONFIG_INTEGER, "6", "[1, 512]", "attention heads; must divide model.width"},
    {"model.width", KP_CONFIG_INTEGER, "384", "[1, 65536]", "channels of the residual stream"},
    {"model.context", KP_CONFIG_INTEGER, "256", "[1, 1048576]",
     "tokens of a training row, and the longest attention"},
    {"model.dropout", KP_CONFIG_REAL, "0", "[0, 1)", "dropout of embedding and branches"},
    {"model.bias", KP_CONFIG_BOOLEAN, "true", NULL, "biases in linear maps and norms"},
    {"model.activation", KP_CONFIG_CHOICE, "gelu_erf", "gelu_erf|gelu_tanh|silu", "of the feed-forward"},
    {"model.positions", KP_CONFIG_CHOICE, "learned", "learned|rotary", "how tokens know their place"},
    {"model.output_projection", KP_CONFIG_BOOLEAN, "true", NULL,
     "linear map after attention (the published mixed model lacks it)"},
    {"model.token_difference", KP_CONFIG_BOOLEAN, "false", NULL,
     "gpt: sub-layers read LN(x_t - x_{t-1}), the flat twin of mixed"},
    {"model.variant", KP_CONFIG_CHOICE, "exact", "exact|upstream",
     "correct geometry, or what the published code computes"},
    {"model.wiring", KP_CONFIG_CHOICE, "e3", "e1|e2|e3", "mixed, exact: how a block moves the stream"},
    {"model.reference", KP_CONFIG_CHOICE, "previous", "previous|origin|mean|midpoint",
     "mixed: reference point of a token's tangent space"},
    {"model.window", KP_CONFIG_INTEGER, "4", "[1, 64]", "tokens in the midpoint reference"},
    {"model.curvature.mode", KP_CONFIG_CHOICE, "fixed", "fixed|parametric|tied|random",
     "fixed, learned per block, learned once, or learned from random starts"},
    {"model.curvature.value", KP_CONFIG_REALS, "[-0.1]", "[-100, 100]",
     "κ (its start, where learned): one, one a block, or one a block and head"},
    {"model.curvature.map", KP_CONFIG_CHOICE, "tanh", "identity|negate|tanh|softplus|sigmoid",
     "from the learned number to κ: tanh is 2 tanh θ, softplus and sigmoid are hyperbolic"},
    {"model.curvature.per_head", KP_CONFIG_BOOLEAN, "false", NULL,
     "one κ for each head's channels instead of one for all"},
    {"model.curvature.dynamic", KP_CONFIG_BOOLEAN, "false", NULL,
     "κ predicted from each token (upstream: from the last one, which leaks the future)"},
    {"model.curvature.embedding", KP_CONFIG_BOOLEAN, "false", NULL,
     "embeddings are steps from the previous token's, on a curvature of their own"},
};

const kp_config_table kp_model_config = {rows, sizeof rows / sizeof *rows};

static kp_status check_shape(const kp_config *config, const kp_model_options *o, kp_error *error) {
  if (o->vocabulary < 1)
    return kp_config_fail(config, "model.vocabulary", error,
                          "the data does not say how many tokens it has: set it");
  if (o->width % o->heads != 0)
    return kp_config_fail(config, "model.heads", error, "%lld heads do not divide model.width %lld",
                          (long long)o->heads, (long long)o->width);
  if (o->positions == KP_POSITIONS_ROTARY && o->width / o->heads % 2 != 0)
    return kp_config_fail(config, "model.positions", error,
                          "rotary positions need an even head size, not %lld",
                          (long long)(o->width / o->heads));
  return KP_OK;
}

static kp_status check_curvature_values(const kp_config *config, const kp_model_options *o, kp_error *error) {
  const int64_t count = o->curvature.count, both = o->layers * o->heads;
  const bool list_per_head = o->curvature.per_head && count == both;
  if (count != 1 && count != o->layers && !list_per_head)
    return kp_config_fail(
        config, "model.curvature.value", error,
        "%lld values; give 1, one for each of %lld blocks, or with per_head one for each of %lld heads",
        (long long)count, (long long)o->layers, (long long)both);
  if (o->curvature.mode == KP_CURVATURE_FIXED && !o->curvature.dynamic) return KP_OK;
  for (int64_t i = 0; i < count; i++) {
    const double kappa = o->curvature.values[i];
    const bool outside = (o->curvature.map == KP_CURVATURE_TANH && (kappa <= -2 || kappa >= 2)) ||
                         (o->curvature.map == KP_CURVATURE_SOFTPLUS && kappa >= 0) ||
                         (o->curvature.map == KP_CURVATURE_SIGMOID && (kappa >= 0 || kappa <= -1));
    if (outside && o->variant == KP_VARIANT_EXACT)
      return kp_config_fail(config, "model.curvature.value", error,
                            "%g is outside what model.curvature.map can reach (tanh: -2 to 2, softplus: "
                            "below 0, sigmoid: -1 to 0)",
                            kappa);
  }
  return KP_OK;
}

/* What the published code cannot be asked for. */
static kp_status check_upstream(const kp_config *config, const kp_model_options *o, kp_error *error) {
  if (o->reference != KP_CHOICE_PREVIOUS)
    return kp_config_fail(config, "model.reference", error,
                          "the upstream variant has the previous token alone; use variant exact");
  if (o->output_projection && kp_config_is_set(config, "model.output_projection"))
    return kp_config_fail(config, "model.output_projection", error,
                          "the upstream variant applies none; use variant exact");
  for (int i = 0; i < o->curvature.count; i++)
    if (o->curvature.values[i] > 0)
      return kp_config_fail(config, "model.curvature.value", error,
                            "the upstream variant is hyperbolic: κ = -c must not be positive");
  return KP_OK;
}

static kp_status read_curvature(const kp_config *config, kp_model_options *o, kp_error *error) {
  size_t count;
  const double *values = kp_config_reals(config, "model.curvature.value", &count);
  o->curvature.mode = (kp_curvature_mode)kp_config_choice(config, "model.curvature.mode");
  o->curvature.map = (kp_curvature_map)kp_config_choice(config, "model.curvature.map");
  o->curvature.per_head = kp_config_boolean(config, "model.curvature.per_head");
  o->curvature.dynamic = kp_config_boolean(config, "model.curvature.dynamic");
  o->curvature.embedding = kp_config_boolean(config, "model.curvature.embedding");
  o->curvature.values = malloc((count + 1) * sizeof *values);
  kp_assert(o->curvature.values != NULL, "out of memory");
  memcpy(o->curvature.values, values, count * sizeof *values);
  o->curvature.count = (int)count;
  return check_curvature_values(config, o, error);
}

kp_status kp_model_options_read(const kp_config *config, int64_t vocabulary, kp_model_options *o,
                                kp_error *error) {
  const int64_t wanted = kp_config_integer(config, "model.vocabulary");
  *o = (kp_model_options){
      .family = kp_family_at(kp_config_choice(config, "model.family")),
      .vocabulary = wanted > 0 ? wanted : vocabulary,
      .layers = kp_config_integer(config, "model.layers"),
      .heads = kp_config_integer(config, "model.heads"),
      .width = kp_config_integer(config, "model.width"),
      .context = kp_config_integer(config, "model.context"),
      .dropout = kp_config_real(config, "model.dropout"),
      .bias = kp_config_boolean(config, "model.bias"),
      .output_projection = kp_config_boolean(config, "model.output_projection"),
      .token_difference = kp_config_boolean(config, "model.token_difference"),
      .activation = (kp_activation_kind)kp_config_choice(config, "model.activation"),
      .positions = (kp_positions)kp_config_choice(config, "model.positions"),
      .variant = (kp_variant)kp_config_choice(config, "model.variant"),
      .wiring = (kp_wiring)kp_config_choice(config, "model.wiring"),
      .reference = (kp_reference_choice)kp_config_choice(config, "model.reference"),
      .window = (int)kp_config_integer(config, "model.window"),
  };
  kp_status status = check_shape(config, o, error);
  if (status == KP_OK && o->family->curved) status = read_curvature(config, o, error);
  if (status == KP_OK && o->family->curved && o->variant == KP_VARIANT_UPSTREAM) {
    status = check_upstream(config, o, error);
    o->output_projection = false;
  }
  if (status == KP_OK && vocabulary > 0 && o->vocabulary < vocabulary)
    status = kp_config_fail(config, "model.vocabulary", error, "smaller than the data's %lld tokens",
                            (long long)vocabulary);
  if (status != KP_OK) kp_model_options_destroy(o);
  return status;
}
