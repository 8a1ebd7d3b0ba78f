/* The model section of a configuration: sizes, the stream, and what surrounds it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "models/options_private.h"

static const kp_config_row rows[] = {
    {"model.family", KP_CONFIG_CHOICE, "gpt", "gpt|llama|deepseek|mixed|geometric|ngpt|helm_d|helm_mice",
     "preset of all other choices (docs/families.md)"},
    {"model.vocabulary", KP_CONFIG_INTEGER, "0", "[0, 16777216]",
     "number of tokens; 0: as many as the data has"},
    {"model.layers", KP_CONFIG_INTEGER, "6", "[1, 512]", "blocks"},
    {"model.heads", KP_CONFIG_INTEGER, "6", "[1, 512]", "attention heads"},
    {"model.width", KP_CONFIG_INTEGER, "384", "[1, 65536]",
     "channels of the residual stream; of a Lorentz stream, its space coordinates"},
    {"model.context", KP_CONFIG_INTEGER, "256", "[1, 1048576]",
     "tokens of a training row, and the longest attention"},
    {"model.task", KP_CONFIG_CHOICE, "language", "language|classify|tag",
     "the next token, a label a sequence, or a label a token"},
    {"model.classes", KP_CONFIG_INTEGER, "0", "[0, 65536]",
     "labels of a classifier or tagger; 0: as many as the data has"},
    {"model.pooling", KP_CONFIG_CHOICE, "mean", "mean|first",
     "what a classifier reads: the mean over the tokens of a sequence, or the first one"},
    {"model.dropout", KP_CONFIG_REAL, "0", "[0, 1)", "dropout of embedding and branches"},
    {"model.bias", KP_CONFIG_BOOLEAN, "true", NULL, "biases in linear maps and layer norms"},
    {"model.variant", KP_CONFIG_CHOICE, "exact", "exact|upstream",
     "correct geometry, or what the published code computes"},
    {"model.embedding", KP_CONFIG_CHOICE, "table", "table|manifold",
     "coordinates of the stream, or points of the hyperboloid moved by Riemannian steps"},
    {"model.head", KP_CONFIG_CHOICE, "tied", "tied|untied|scaled|lorentz|lorentz_mlr",
     "where logits come from: the embedding's table, an own one, one with a learned scale a token, one that "
     "reads time and space, or Lorentz logistic regression"},
    {"model.positions", KP_CONFIG_CHOICE, "learned", "learned|rotary|hope",
     "how tokens know their place; hope: rotary on the space coordinates of Lorentz points"},
    {"model.rotary.base", KP_CONFIG_REAL, "10000", "(1, 1e12]", "of the rotary angles"},
    {"model.rotary.original_context", KP_CONFIG_INTEGER, "0", "[0, 1048576]",
     "the context that the angles were made for, of yarn below model.context; 0: no stretching"},
    {"model.rotary.stretching", KP_CONFIG_CHOICE, "yarn", "yarn|llama3",
     "YaRN, which also sharpens the scores, or what Llama 3.1 does"},
    {"model.rotary.factor", KP_CONFIG_REAL, "40", "[1, 1e6]", "how far slow angles are stretched"},
    {"model.rotary.beta_fast", KP_CONFIG_REAL, "32", "(0, 1e6]", "turns above which nothing changes"},
    {"model.rotary.beta_slow", KP_CONFIG_REAL, "1", "(0, 1e6]", "turns below which all is stretched"},
    {"model.residual", KP_CONFIG_CHOICE, "add", "add|bounded|stereographic|lerp|slerp|lorentz",
     "how the stream moves: x + u, the same within a ball, in a space of curvature κ, on the unit sphere, or "
     "on the hyperboloid"},
    {"model.residual_scale", KP_CONFIG_REAL, "1", "(0, 1e4]",
     "Lorentz stream: its space part is scaled by this times the root of width + 1"},
    {"model.sphere_rate", KP_CONFIG_REAL, "0.05", "(0, 1]",
     "stream on the sphere: the eigen learning rate to start with"},
    {"model.sphere_scale", KP_CONFIG_REAL, "0", "[0, 1e4]",
     "stream on the sphere: what learned scales are stored as; 0: one over the root of the width"},
    {"model.wiring", KP_CONFIG_CHOICE, "e3", "e1|e2|e3",
     "stereographic: Möbius addition of exp_r(u), exp of the transported u, or Möbius addition of exp_0(u)"},
    {"model.reference", KP_CONFIG_CHOICE, "previous", "previous|origin|mean|midpoint",
     "stereographic: reference point of a token's tangent space"},
    {"model.window", KP_CONFIG_INTEGER, "4", "[1, 64]", "tokens in the midpoint reference"},
    {"model.token_difference", KP_CONFIG_BOOLEAN, "false", NULL,
     "flat stream: sub-layers read norm(x_t - x_{t-1}), the flat twin of mixed"},
    {"model.norm", KP_CONFIG_CHOICE, "layer", "none|layer|rms", "in front of each sub-layer"},
    {"model.norm_epsilon", KP_CONFIG_REAL, "1e-5", "(0, 1]", "added to the norm's variance"},
};

const kp_config_table kp_model_config = {rows, sizeof rows / sizeof *rows};

const kp_schema *kp_model_schema(void) {
  static const kp_config_table *const tables[KP_MODEL_TABLES] = {&kp_model_config, &kp_model_curvature_config,
                                                                 &kp_model_attention_config,
                                                                 &kp_model_feed_forward_config};
  static const kp_schema schema = {tables, KP_MODEL_TABLES, kp_model_presets};
  return &schema;
}

kp_status kp_model_presets(kp_config *config, kp_error *error) {
  const kp_family *family = kp_family_at(kp_config_choice(config, "model.family"));
  for (const char *const *preset = family->presets; *preset != NULL; preset++)
    KP_TRY(kp_config_preset(config, *preset, error));
  /* The published mixed model applies no output projection. */
  if (kp_config_choice(config, "model.residual") == KP_RESIDUAL_STEREOGRAPHIC &&
      kp_config_choice(config, "model.variant") == KP_VARIANT_UPSTREAM)
    return kp_config_preset(config, "model.attention.output_projection=false", error);
  return KP_OK;
}

static void read_sizes(const kp_config *config, kp_model_options *o) {
  o->family = kp_family_at(kp_config_choice(config, "model.family"));
  o->vocabulary = kp_config_integer(config, "model.vocabulary");
  o->layers = kp_config_integer(config, "model.layers");
  o->heads = kp_config_integer(config, "model.heads");
  o->width = kp_config_integer(config, "model.width");
  o->context = kp_config_integer(config, "model.context");
  o->task = (kp_task)kp_config_choice(config, "model.task");
  o->classes = kp_config_integer(config, "model.classes");
  o->pooling = (kp_pooling)kp_config_choice(config, "model.pooling");
  o->dropout = kp_config_real(config, "model.dropout");
  o->bias = kp_config_boolean(config, "model.bias");
  o->variant = (kp_variant)kp_config_choice(config, "model.variant");
  o->embedding = (kp_embedding_kind)kp_config_choice(config, "model.embedding");
  o->head = (kp_head)kp_config_choice(config, "model.head");
}

static void read_stream(const kp_config *config, kp_model_options *o) {
  o->positions = (kp_positions)kp_config_choice(config, "model.positions");
  o->rotary = (kp_rotary_options){
      .stretching = (kp_stretching)kp_config_choice(config, "model.rotary.stretching"),
      .base = kp_config_real(config, "model.rotary.base"),
      .factor = kp_config_real(config, "model.rotary.factor"),
      .beta_fast = kp_config_real(config, "model.rotary.beta_fast"),
      .beta_slow = kp_config_real(config, "model.rotary.beta_slow"),
      .original_context = kp_config_integer(config, "model.rotary.original_context"),
  };
  o->residual = (kp_residual)kp_config_choice(config, "model.residual");
  o->residual_scale = kp_config_real(config, "model.residual_scale");
  o->sphere_rate = kp_config_real(config, "model.sphere_rate");
  o->sphere_scale = kp_config_real(config, "model.sphere_scale");
  if (o->sphere_scale == 0) o->sphere_scale = 1 / sqrt((double)o->width);
  o->wiring = (kp_wiring)kp_config_choice(config, "model.wiring");
  o->reference = (kp_reference_choice)kp_config_choice(config, "model.reference");
  o->window = (int)kp_config_integer(config, "model.window");
  o->token_difference = kp_config_boolean(config, "model.token_difference");
  o->norm = (kp_norm)kp_config_choice(config, "model.norm");
  o->norm_epsilon = kp_config_real(config, "model.norm_epsilon");
}

static kp_status read_vocabulary(const kp_config *config, int64_t vocabulary, kp_model_options *o,
                                 kp_error *error) {
  if (o->vocabulary == 0) o->vocabulary = vocabulary;
  if (o->vocabulary < 1)
    return kp_config_fail(config, "model.vocabulary", error,
                          "the data does not say how many tokens it has: set it");
  if (o->vocabulary < vocabulary)
    return kp_config_fail(config, "model.vocabulary", error, "smaller than the data's %lld tokens",
                          (long long)vocabulary);
  return KP_OK;
}

static kp_status read_task(const kp_config *config, const kp_data_shape *data, kp_model_options *o,
                           kp_error *error) {
  if (data == NULL) return KP_OK;
  if (o->task != data->task)
    return kp_config_fail(config, "model.task", error, "the data is made for the task %s: set model.task=%s",
                          kp_task_name(data->task), kp_task_name(data->task));
  if (o->task == KP_TASK_LANGUAGE) return KP_OK;
  if (o->classes == 0) o->classes = data->classes;
  if (o->classes < data->classes)
    return kp_config_fail(config, "model.classes", error, "smaller than the data's %lld labels",
                          (long long)data->classes);
  return KP_OK;
}

kp_status kp_model_options_read(const kp_config *config, const kp_data_shape *data, kp_model_options *o,
                                kp_error *error) {
  *o = (kp_model_options){0};
  read_sizes(config, o);
  read_stream(config, o);
  kp_status status = read_vocabulary(config, data == NULL ? 0 : data->vocabulary, o, error);
  if (status == KP_OK) status = read_task(config, data, o, error);
  if (status == KP_OK) status = kp_read_stream_curvature(config, o, error);
  if (status == KP_OK) status = kp_read_attention(config, o, error);
  if (status == KP_OK) status = kp_read_feed_forward(config, o, error);
  if (status == KP_OK) status = kp_check_combination(config, o, error);
  if (status != KP_OK) kp_model_options_destroy(o);
  return status;
}

void kp_model_options_destroy(kp_model_options *o) {
  kp_curvature_options *all[] = {&o->curvature, &o->attention.curvature, &o->experts.curvature};
  for (int i = 0; i < 3; i++) {
    free(all[i]->values);
    all[i]->values = NULL;
  }
}

bool kp_model_is_curved(const kp_model_options *o) {
  return o->residual >= KP_RESIDUAL_STEREOGRAPHIC || o->attention.score != KP_SCORE_DOT ||
         o->attention.values != KP_VALUES_MEAN || o->feed_forward == KP_FEED_FORWARD_LORENTZ ||
         o->feed_forward == KP_FEED_FORWARD_MICE || o->head >= KP_HEAD_LORENTZ;
}
