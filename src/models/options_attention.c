/* Attention: heads or latent keys, the score and its curvature, what is done to the values. */
#include "models/options_private.h"

static const kp_config_row rows[] = {
    {"model.attention.kind", KP_CONFIG_CHOICE, "heads", "heads|latent",
     "keys and values from the input, or from a latent vector of low rank, which alone is cached"},
    {"model.attention.score", KP_CONFIG_CHOICE, "dot", "dot|distance|distance_squared|lorentz",
     "inner product, minus the geodesic distance or its square (κ a head), or the Lorentz product"},
    {"model.attention.values", KP_CONFIG_CHOICE, "mean", "mean|lorentz|midpoint",
     "weighted mean, Lorentz centroid, or gyromidpoint in the head's curvature"},
    {"model.attention.query_norm", KP_CONFIG_CHOICE, "plain", "plain|scaled|unit",
     "queries and keys as they are, over the root of the head size, or of unit norm times a learned gain"},
    {"model.attention.kv_heads", KP_CONFIG_INTEGER, "0", "[0, 512]",
     "heads of keys and values, each shared by several of queries; 0: as many as model.heads"},
    {"model.attention.head_size", KP_CONFIG_INTEGER, "0", "[0, 1024]",
     "channels of a head; 0: model.width / model.heads"},
    {"model.attention.output_projection", KP_CONFIG_BOOLEAN, "true", NULL,
     "linear map after attention (the published mixed model lacks it)"},
    {"model.attention.curvature.mode", KP_CONFIG_CHOICE, "fixed", "fixed|parametric|tied|random",
     "κ of the heads, where the score or the values are curved"},
    {"model.attention.curvature.value", KP_CONFIG_REALS, "[-1]", "[-100, 100]",
     "κ of the heads (its start): one, one a block, one a head, or one a block and head"},
    {"model.attention.curvature.map", KP_CONFIG_CHOICE, "tanh", "identity|negate|tanh|softplus|sigmoid",
     "from the learned number to κ"},
    {"model.latent.rank", KP_CONFIG_INTEGER, "64", "[1, 65536]", "of the latent vector of keys and values"},
    {"model.latent.query_rank", KP_CONFIG_INTEGER, "0", "[0, 65536]", "of the queries; 0: full"},
    {"model.latent.plain", KP_CONFIG_INTEGER, "32", "[1, 1024]", "channels of a key that do not rotate"},
    {"model.latent.rotary", KP_CONFIG_INTEGER, "16", "[2, 1024]",
     "channels of a key that rotate, shared by all heads"},
    {"model.latent.value", KP_CONFIG_INTEGER, "32", "[1, 1024]", "channels of a head's value"},
};

const kp_config_table kp_model_attention_config = {rows, sizeof rows / sizeof *rows};

static bool is_curved(const kp_attention_options *a) {
  return a->score != KP_SCORE_DOT || a->values != KP_VALUES_MEAN;
}

int64_t kp_model_head_curvatures(const kp_model_options *o) {
  return o->attention.kind == KP_ATTENTION_LATENT && o->attention.score == KP_SCORE_LORENTZ ? 1 : o->heads;
}

static kp_status check_sizes(const kp_config *config, const kp_model_options *o, kp_error *error) {
  const kp_attention_options *a = &o->attention;
  if (a->kind == KP_ATTENTION_LATENT) {
    if (a->latent.rotary % 2 != 0)
      return kp_config_fail(config, "model.latent.rotary", error, "angles turn pairs: it must be even");
    return KP_OK;
  }
  if (kp_config_integer(config, "model.attention.head_size") == 0 && o->width % o->heads != 0)
    return kp_config_fail(config, "model.heads", error, "%lld heads do not divide model.width %lld",
                          (long long)o->heads, (long long)o->width);
  if (o->heads % a->kv_heads != 0)
    return kp_config_fail(config, "model.attention.kv_heads", error, "%lld do not divide model.heads %lld",
                          (long long)a->kv_heads, (long long)o->heads);
  if (o->positions != KP_POSITIONS_LEARNED && a->head_size % 2 != 0)
    return kp_config_fail(config, "model.positions", error,
                          "rotary positions need an even head size, not %lld", (long long)a->head_size);
  return KP_OK;
}

kp_status kp_read_attention(const kp_config *config, kp_model_options *o, kp_error *error) {
  kp_attention_options *a = &o->attention;
  a->kind = (kp_attention_kind)kp_config_choice(config, "model.attention.kind");
  a->score = (kp_score)kp_config_choice(config, "model.attention.score");
  a->values = (kp_values)kp_config_choice(config, "model.attention.values");
  a->query_norm = (kp_query_norm)kp_config_choice(config, "model.attention.query_norm");
  a->kv_heads = kp_config_integer(config, "model.attention.kv_heads");
  a->head_size = kp_config_integer(config, "model.attention.head_size");
  a->latent.rank = kp_config_integer(config, "model.latent.rank");
  a->latent.query_rank = kp_config_integer(config, "model.latent.query_rank");
  a->latent.plain = kp_config_integer(config, "model.latent.plain");
  a->latent.rotary = kp_config_integer(config, "model.latent.rotary");
  a->latent.value = kp_config_integer(config, "model.latent.value");
  o->output_projection = kp_config_boolean(config, "model.attention.output_projection");
  if (a->kv_heads == 0) a->kv_heads = o->heads;
  if (a->head_size == 0) a->head_size = o->width / o->heads;
  KP_TRY(check_sizes(config, o, error));
  if (!is_curved(a)) return KP_OK;
  return kp_read_curvature(config, "model.attention.curvature", o, kp_model_head_curvatures(o), &a->curvature,
                           error);
}
