/* config.json of an export.  What stands in it is what transformers must compute; training is not its
 * business. */
#include <stdio.h>
#include <string.h>

#include "interchange/hf_export.h"

static bool is_plain_attention(const kp_model_options *o) {
  const kp_attention_options *a = &o->attention;
  return a->kind == KP_ATTENTION_HEADS && a->score == KP_SCORE_DOT && a->values == KP_VALUES_MEAN &&
         a->query_norm == KP_QUERY_PLAIN && o->output_projection;
}

static bool is_plain_stream(const kp_model_options *o) {
  return o->residual == KP_RESIDUAL_ADD && !o->token_difference && o->variant == KP_VARIANT_EXACT &&
         o->embedding == KP_EMBEDDING_TABLE && (o->head == KP_HEAD_TIED || o->head == KP_HEAD_UNTIED);
}

bool kp_hf_is_gpt2(const kp_model_options *o) {
  return is_plain_stream(o) && is_plain_attention(o) && o->positions == KP_POSITIONS_LEARNED &&
         o->norm == KP_NORM_LAYER && o->feed_forward == KP_FEED_FORWARD_MLP &&
         o->attention.kv_heads == o->heads && o->attention.head_size * o->heads == o->width;
}

bool kp_hf_is_llama(const kp_model_options *o) {
  return is_plain_stream(o) && is_plain_attention(o) && o->positions == KP_POSITIONS_ROTARY &&
         o->norm == KP_NORM_RMS && o->feed_forward == KP_FEED_FORWARD_GATED;
}

/* transformers' words for the activations, by kp_activation_kind. */
static const char *activation_word(kp_activation_kind kind) {
  switch (kind) {
  case KP_GELU_ERF: return "gelu";
  case KP_GELU_TANH: return "gelu_new";
  default: return "silu";
  }
}

static json_t *gpt2_config(const kp_trained *model) {
  const kp_model_options *o = &model->options;
  return json_pack("{s:[s], s:s, s:f, s:f, s:f, s:f, s:I, s:I, s:I, s:I, s:I, s:b, s:I}", "architectures",
                   "GPT2LMHeadModel", "activation_function", activation_word(o->activation), "attn_pdrop",
                   0.0, "embd_pdrop", o->dropout, "resid_pdrop", o->dropout, "layer_norm_epsilon",
                   o->norm_epsilon, "n_embd", (json_int_t)o->width, "n_head", (json_int_t)o->heads, "n_inner",
                   (json_int_t)o->hidden, "n_layer", (json_int_t)o->layers, "n_positions",
                   (json_int_t)o->context, "tie_word_embeddings", o->head == KP_HEAD_TIED, "vocab_size",
                   (json_int_t)o->vocabulary);
}

const kp_hf_target kp_hf_target_gpt2 = {.model_type = "gpt2",
                                        .base = "transformer.",
                                        .parts = kp_hf_gpt2_parts,
                                        .biased = true,
                                        .config = gpt2_config};

static bool is_stretched(const kp_model_options *o) {
  const kp_rotary_options *r = &o->rotary;
  return r->original_context > 0 &&
         (r->stretching == KP_STRETCHING_LLAMA3 || r->original_context < o->context);
}

static json_t *rope_parameters(const kp_model_options *o) {
  const kp_rotary_options *r = &o->rotary;
  const bool llama3 = r->stretching == KP_STRETCHING_LLAMA3;
  if (!is_stretched(o)) return json_pack("{s:f, s:s}", "rope_theta", r->base, "rope_type", "default");
  return json_pack("{s:f, s:s, s:f, s:I, s:f, s:f}", "rope_theta", r->base, "rope_type",
                   llama3 ? "llama3" : "yarn", "factor", r->factor, "original_max_position_embeddings",
                   (json_int_t)r->original_context, llama3 ? "high_freq_factor" : "beta_fast", r->beta_fast,
                   llama3 ? "low_freq_factor" : "beta_slow", r->beta_slow);
}

/* The rotation stands where releases 4 and where releases from 5 on look for it. */
static json_t *llama_config(const kp_trained *model) {
  const kp_model_options *o = &model->options;
  return json_pack(
      "{s:[s], s:b, s:f, s:I, s:s, s:I, s:I, s:I, s:b, s:I, s:I, s:I, s:f, s:f, s:o, s:b, s:I}",
      "architectures", "LlamaForCausalLM", "attention_bias", o->bias, "attention_dropout", 0.0, "head_dim",
      (json_int_t)o->attention.head_size, "hidden_act", activation_word(o->activation), "hidden_size",
      (json_int_t)o->width, "intermediate_size", (json_int_t)o->hidden, "max_position_embeddings",
      (json_int_t)o->context, "mlp_bias", o->bias, "num_attention_heads", (json_int_t)o->heads,
      "num_hidden_layers", (json_int_t)o->layers, "num_key_value_heads", (json_int_t)o->attention.kv_heads,
      "rms_norm_eps", o->norm_epsilon, "rope_theta", o->rotary.base, "rope_parameters", rope_parameters(o),
      "tie_word_embeddings", o->head == KP_HEAD_TIED, "vocab_size", (json_int_t)o->vocabulary);
}

const kp_hf_target kp_hf_target_llama = {
    .model_type = "llama", .base = "model.", .parts = kp_hf_llama_parts, .config = llama_config};

static const char *dtype_word(kp_dtype dtype) {
  return dtype == KP_BF16 ? "bfloat16" : dtype == KP_F16 ? "float16" : "float32";
}

static json_t *token_id(int32_t id) {
  return id < 0 ? json_null() : json_integer(id);
}

json_t *kp_hf_config_json(const kp_hf_target *target, const kp_trained *model, kp_dtype dtype) {
  const kp_tokenizer *t = model->tokenizer;
  json_t *config = target->config(model);
  if (config == NULL) return NULL;
  json_object_set_new(config, "model_type", json_string(target->model_type));
  json_object_set_new(config, "torch_dtype", json_string(dtype_word(dtype)));
  json_object_set_new(config, "bos_token_id", token_id(t == NULL ? -1 : t->begin));
  json_object_set_new(config, "eos_token_id", token_id(t == NULL ? -1 : t->end));
  return config;
}
