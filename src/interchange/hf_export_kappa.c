/* Models that transformers does not know: config.json with kappa's own keys, which modeling_kappa.py reads.
 */
#include <stdio.h>
#include <string.h>

#include "interchange/hf_export.h"

kp_status kp_hf_check_kappa(const kp_trained *model, kp_error *error) {
  const kp_model_options *o = &model->options;
  if (o->variant != KP_VARIANT_UPSTREAM) return KP_OK;
  if (o->residual == KP_RESIDUAL_STEREOGRAPHIC)
    return kp_config_fail(model->config, "model.variant", error,
                          "modeling_kappa.py has the exact geometry of model.residual: stereographic alone");
  if (o->feed_forward == KP_FEED_FORWARD_MICE)
    return kp_config_fail(model->config, "model.variant", error,
                          "modeling_kappa.py has the exact merge of model.feed_forward: mice alone");
  return KP_OK;
}

/* ---- the keys ---- */

static json_t *reals(const kp_config *config, const char *key) {
  size_t count;
  const double *values = kp_config_reals(config, key, &count);
  json_t *list = json_array();
  for (size_t i = 0; i < count; i++) json_array_append_new(list, json_real(values[i]));
  return list;
}

static json_t *choice(const kp_config *config, const kp_config_row *row) {
  size_t length;
  const char *word = kp_config_choice_word(row, (size_t)kp_config_choice(config, row->key), &length);
  return json_stringn(word, length);
}

/* NULL: a type that the model section does not have. */
static json_t *value_of(const kp_config *config, const kp_config_row *row) {
  switch (row->type) {
  case KP_CONFIG_INTEGER: return json_integer(kp_config_integer(config, row->key));
  case KP_CONFIG_REAL: return json_real(kp_config_real(config, row->key));
  case KP_CONFIG_BOOLEAN: return json_boolean(kp_config_boolean(config, row->key));
  case KP_CONFIG_STRING: return json_string(kp_config_string(config, row->key));
  case KP_CONFIG_CHOICE: return choice(config, row);
  case KP_CONFIG_REALS: return reals(config, row->key);
  case KP_CONFIG_INTEGERS:
  case KP_CONFIG_TEXTS: break;
  }
  return NULL;
}

/* What the configuration leaves to other keys has its number here. */
static void resolve(json_t *keys, const kp_model_options *o) {
  json_object_set_new(keys, "vocabulary", json_integer(o->vocabulary));
  json_object_set_new(keys, "hidden", json_integer(o->hidden));
  json_object_set_new(keys, "sphere_scale", json_real(o->sphere_scale));
  json_object_set_new(keys, "attention.kv_heads", json_integer(o->attention.kv_heads));
  json_object_set_new(keys, "attention.head_size", json_integer(o->attention.head_size));
  if (o->feed_forward >= KP_FEED_FORWARD_MOE)
    json_object_set_new(keys, "experts.hidden", json_integer(o->experts.hidden));
}

/* The model section, "attention.score" for model.attention.score. */
static json_t *model_keys(const kp_trained *model) {
  static const char section[] = "model.";
  const kp_schema *schema = kp_model_schema();
  json_t *keys = json_object();
  for (size_t i = 0; i < kp_schema_size(schema); i++) {
    const kp_config_row *row = kp_schema_row(schema, i);
    json_object_set_new(keys, row->key + sizeof section - 1, value_of(model->config, row));
  }
  resolve(keys, &model->options);
  return keys;
}

static json_t *parameter_shapes(const kp_parameters *parameters) {
  json_t *shapes = json_object();
  for (int i = 0; i < parameters->count; i++) {
    const kp_parameter *p = &parameters->list[i];
    if (!p->used) continue;
    json_t *shape = json_array();
    for (int d = 0; d < p->dimensions; d++) json_array_append_new(shape, json_integer(p->shape[d]));
    json_object_set_new(shapes, p->name, shape);
  }
  return shapes;
}

static json_t *kappa_config(const kp_trained *model) {
  const kp_model_options *o = &model->options;
  return json_pack("{s:[s], s:{s:s, s:s}, s:I, s:I, s:I, s:I, s:I, s:b, s:o, s:o}", "architectures",
                   "KappaForCausalLM", "auto_map", "AutoConfig", "modeling_kappa.KappaConfig",
                   "AutoModelForCausalLM", "modeling_kappa.KappaForCausalLM", "vocab_size",
                   (json_int_t)o->vocabulary, "hidden_size", (json_int_t)o->width, "num_hidden_layers",
                   (json_int_t)o->layers, "num_attention_heads", (json_int_t)o->heads,
                   "max_position_embeddings", (json_int_t)o->context, "tie_word_embeddings", false, "kappa",
                   model_keys(model), "parameter_shapes", parameter_shapes(model->parameters));
}

const kp_hf_target kp_hf_target_kappa = {.model_type = "kappa", .config = kappa_config};
