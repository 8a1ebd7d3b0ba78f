/* GPT-2 and the models of LLaMA's kind: config.json in kappa's words.
 *
 * What kappa would compute otherwise is refused by its key; defaults are those of transformers. */
#include <string.h>

#include "interchange/hf_import.h"

const char *const kp_hf_common_keys[] = {"_name_or_path",
                                         "architectures",
                                         "attention_dropout",
                                         "attn_pdrop",
                                         "bos_token_id",
                                         "dtype",
                                         "embd_pdrop",
                                         "eos_token_id",
                                         "gradient_checkpointing",
                                         "initializer_range",
                                         "model_type",
                                         "output_past",
                                         "pad_token_id",
                                         "resid_pdrop",
                                         "task_specific_params",
                                         "torch_dtype",
                                         "transformers_version",
                                         "use_cache",
                                         NULL};

kp_status kp_hf_activation(kp_hf_config *config, const char *key, const char *otherwise, const char **word,
                           kp_error *error) {
  static const struct {
    const char *theirs, *own;
  } words[] = {{"gelu_new", "gelu_tanh"}, {"gelu_pytorch_tanh", "gelu_tanh"}, {"gelu_fast", "gelu_tanh"},
               {"gelu", "gelu_erf"},      {"gelu_python", "gelu_erf"},        {"silu", "silu"},
               {"swish", "silu"}};
  const char *name;
  KP_TRY(kp_hf_text(config, key, otherwise, &name, error));
  for (size_t i = 0; i < sizeof words / sizeof *words; i++)
    if (strcmp(words[i].theirs, name) == 0) {
      *word = words[i].own;
      return KP_OK;
    }
  return kp_hf_refuse(config, key, error, "kappa has gelu, gelu_new and silu");
}

typedef kp_status translation(kp_hf_config *config, kp_import_settings *settings, kp_error *error);

static kp_status configure(kp_hf_config *config, translation *translate, const kp_import_options *options,
                           kp_config **result, kp_error *error) {
  kp_import_settings settings = {.count = 0};
  KP_TRY(translate(config, &settings, error));
  return kp_import_configure(&settings, options, result, error);
}

/* ---- GPT-2 ---- */

static kp_status refuse_variants(kp_hf_config *config, kp_error *error) {
  bool value;
  KP_TRY(kp_hf_boolean(config, "scale_attn_weights", true, &value, error));
  if (!value)
    return kp_hf_refuse(config, "scale_attn_weights", error,
                        "kappa divides scores by the root of the head size");
  KP_TRY(kp_hf_boolean(config, "scale_attn_by_inverse_layer_idx", false, &value, error));
  if (value)
    return kp_hf_refuse(config, "scale_attn_by_inverse_layer_idx", error,
                        "kappa scales the scores of all layers alike");
  KP_TRY(kp_hf_boolean(config, "add_cross_attention", false, &value, error));
  if (value) return kp_hf_refuse(config, "add_cross_attention", error, "kappa has self-attention alone");
  return KP_OK;
}

static const char *const gpt2_ignored[] = {"n_ctx",
                                           "reorder_and_upcast_attn",
                                           "summary_activation",
                                           "summary_first_dropout",
                                           "summary_proj_to_labels",
                                           "summary_type",
                                           "summary_use_proj",
                                           NULL};

static kp_status translate_gpt2(kp_hf_config *config, kp_import_settings *settings, kp_error *error) {
  int64_t vocabulary, context, width, layers, heads, hidden;
  double epsilon;
  bool tied;
  const char *activation;
  KP_TRY(refuse_variants(config, error));
  KP_TRY(kp_hf_size(config, "vocab_size", &vocabulary, error));
  KP_TRY(kp_hf_size(config, "n_positions", &context, error));
  KP_TRY(kp_hf_size(config, "n_embd", &width, error));
  KP_TRY(kp_hf_size(config, "n_layer", &layers, error));
  KP_TRY(kp_hf_size(config, "n_head", &heads, error));
  KP_TRY(kp_hf_integer(config, "n_inner", 4 * width, &hidden, error));
  KP_TRY(kp_hf_real(config, "layer_norm_epsilon", 1e-5, &epsilon, error));
  KP_TRY(kp_hf_boolean(config, "tie_word_embeddings", true, &tied, error));
  KP_TRY(kp_hf_activation(config, "activation_function", "gelu_new", &activation, error));
  kp_hf_ignore(config, gpt2_ignored);
  kp_import_set(settings, "model.family=gpt");
  kp_import_set(settings, "model.vocabulary=%lld", (long long)vocabulary);
  kp_import_set(settings, "model.context=%lld", (long long)context);
  kp_import_set(settings, "model.width=%lld", (long long)width);
  kp_import_set(settings, "model.layers=%lld", (long long)layers);
  kp_import_set(settings, "model.heads=%lld", (long long)heads);
  kp_import_set(settings, "model.hidden=%lld", (long long)hidden);
  kp_import_set(settings, "model.norm_epsilon=%.17g", epsilon);
  kp_import_set(settings, "model.activation=%s", activation);
  kp_import_set(settings, "model.head=%s", tied ? "tied" : "untied");
  return KP_OK;
}

/* The causal mask was saved with the parameters once. */
static const char *const gpt2_buffers[] = {".attn.bias", ".attn.masked_bias", NULL};

static kp_status configure_gpt2(kp_hf_config *config, const kp_import_options *options, kp_config **result,
                                kp_error *error) {
  return configure(config, translate_gpt2, options, result, error);
}

const kp_hf_family kp_hf_gpt2 = {.model_type = "gpt2",
                                 .base = "transformer.",
                                 .buffers = gpt2_buffers,
                                 .parts = kp_hf_gpt2_parts,
                                 .configure = configure_gpt2};

/* ---- LLaMA and its kind ---- */

static kp_status set_stretching(kp_hf_config *rope, const char *kind, int64_t original, const char *fast_key,
                                double fast, const char *slow_key, double slow, kp_import_settings *settings,
                                kp_error *error) {
  double factor;
  KP_TRY(kp_hf_real(rope, "factor", 0, &factor, error));
  if (factor < 1) return kp_hf_refuse(rope, "factor", error, "a number from 1 on was expected");
  if (fast_key != NULL) KP_TRY(kp_hf_real(rope, fast_key, fast, &fast, error));
  if (slow_key != NULL) KP_TRY(kp_hf_real(rope, slow_key, slow, &slow, error));
  kp_import_set(settings, "model.rotary.stretching=%s", kind);
  kp_import_set(settings, "model.rotary.original_context=%lld", (long long)original);
  kp_import_set(settings, "model.rotary.factor=%.17g", factor);
  kp_import_set(settings, "model.rotary.beta_fast=%.17g", fast);
  kp_import_set(settings, "model.rotary.beta_slow=%.17g", slow);
  return KP_OK;
}

static kp_status read_llama3(kp_hf_config *rope, int64_t context, kp_import_settings *settings,
                             kp_error *error) {
  int64_t original;
  KP_TRY(kp_hf_integer(rope, "original_max_position_embeddings", context, &original, error));
  return set_stretching(rope, "llama3", original, "high_freq_factor", 4, "low_freq_factor", 1, settings,
                        error);
}

/* All angles are slowed down: none turns once in a context of one token. */
static kp_status read_linear(kp_hf_config *rope, kp_import_settings *settings, kp_error *error) {
  return set_stretching(rope, "llama3", 1, NULL, 2, NULL, 1, settings, error);
}

static kp_status read_yarn(kp_hf_config *rope, int64_t context, kp_import_settings *settings,
                           kp_error *error) {
  static const char *const scales[] = {"attention_factor", "mscale", "mscale_all_dim"};
  int64_t original;
  bool truncate;
  for (size_t i = 0; i < sizeof scales / sizeof *scales; i++)
    if (kp_hf_has(rope, scales[i]))
      return kp_hf_refuse(rope, scales[i], error, "kappa sharpens scores by 0.1 ln(factor) + 1, squared");
  KP_TRY(kp_hf_boolean(rope, "truncate", true, &truncate, error));
  if (!truncate) return kp_hf_refuse(rope, "truncate", error, "kappa's ramp begins and ends at whole pairs");
  KP_TRY(kp_hf_integer(rope, "original_max_position_embeddings", context, &original, error));
  if (original >= context)
    return kp_hf_refuse(rope, "original_max_position_embeddings", error,
                        "kappa stretches a context beyond it, and max_position_embeddings is %lld",
                        (long long)context);
  return set_stretching(rope, "yarn", original, "beta_fast", 32, "beta_slow", 1, settings, error);
}

/* What every kind of rotation has; `rope` is config.json itself or an object in it. */
static kp_status read_stretching(kp_hf_config *rope, int64_t context, kp_import_settings *settings,
                                 kp_error *error) {
  const char *type, *key = kp_hf_has(rope, "rope_type") ? "rope_type" : "type";
  KP_TRY(kp_hf_text(rope, key, "default", &type, error));
  if (strcmp(type, "default") == 0) return KP_OK;
  if (strcmp(type, "llama3") == 0) return read_llama3(rope, context, settings, error);
  if (strcmp(type, "linear") == 0) return read_linear(rope, settings, error);
  if (strcmp(type, "yarn") == 0) return read_yarn(rope, context, settings, error);
  return kp_hf_refuse(rope, key, error, "kappa has default, linear, llama3 and yarn");
}

/* Newer files have one object with the base and the stretching, older ones a number and an object. */
static kp_status read_rotation(kp_hf_config *config, int64_t context, kp_import_settings *settings,
                               kp_error *error) {
  const bool one = kp_hf_has(config, "rope_parameters");
  const char *key = one ? "rope_parameters" : "rope_scaling";
  double base, inner;
  KP_TRY(kp_hf_real(config, "rope_theta", 10000, &base, error));
  if (kp_hf_has(config, key)) {
    kp_hf_config rope;
    char label[KP_PATH_SIZE + 32], unknown[256];
    snprintf(label, sizeof label, "%s: %s", config->label, key);
    KP_TRY(kp_hf_config_begin(&rope, json_object_get(config->object, key), label, error));
    KP_TRY(kp_hf_real(&rope, "rope_theta", base, &inner, error));
    base = inner;
    KP_TRY(read_stretching(&rope, context, settings, error));
    if (kp_hf_unknown(&rope, unknown, sizeof unknown) > 0)
      return kp_fail(error, KP_ERR_INPUT, "%s: kappa does not know %s", label, unknown);
  }
  kp_import_set(settings, "model.rotary.base=%.17g", base);
  return KP_OK;
}

/* What the three have in common. */
static kp_status configure_common(kp_hf_config *config, bool biased, kp_import_settings *settings,
                                  kp_error *error) {
  int64_t vocabulary, context, width, layers, heads, kv_heads, head_size, hidden, parallel;
  double epsilon;
  bool tied;
  const char *activation;
  KP_TRY(kp_hf_size(config, "vocab_size", &vocabulary, error));
  KP_TRY(kp_hf_size(config, "max_position_embeddings", &context, error));
  KP_TRY(kp_hf_size(config, "hidden_size", &width, error));
  KP_TRY(kp_hf_size(config, "intermediate_size", &hidden, error));
  KP_TRY(kp_hf_size(config, "num_hidden_layers", &layers, error));
  KP_TRY(kp_hf_size(config, "num_attention_heads", &heads, error));
  KP_TRY(kp_hf_integer(config, "num_key_value_heads", heads, &kv_heads, error));
  KP_TRY(kp_hf_integer(config, "head_dim", width / heads, &head_size, error));
  KP_TRY(kp_hf_integer(config, "pretraining_tp", 1, &parallel, error)); /* the order of sums alone */
  KP_TRY(kp_hf_real(config, "rms_norm_eps", 1e-6, &epsilon, error));
  KP_TRY(kp_hf_boolean(config, "tie_word_embeddings", false, &tied, error));
  KP_TRY(kp_hf_activation(config, "hidden_act", "silu", &activation, error));
  if (kv_heads < 1) return kp_hf_refuse(config, "num_key_value_heads", error, "there must be one");
  if (head_size < 2) return kp_hf_refuse(config, "head_dim", error, "a head needs two channels");
  kp_import_set(settings, "model.family=llama");
  kp_import_set(settings, "model.bias=%s", biased ? "true" : "false");
  kp_import_set(settings, "model.vocabulary=%lld", (long long)vocabulary);
  kp_import_set(settings, "model.context=%lld", (long long)context);
  kp_import_set(settings, "model.width=%lld", (long long)width);
  kp_import_set(settings, "model.layers=%lld", (long long)layers);
  kp_import_set(settings, "model.heads=%lld", (long long)heads);
  kp_import_set(settings, "model.attention.kv_heads=%lld", (long long)kv_heads);
  kp_import_set(settings, "model.attention.head_size=%lld", (long long)head_size);
  kp_import_set(settings, "model.hidden=%lld", (long long)hidden);
  kp_import_set(settings, "model.norm_epsilon=%.17g", epsilon);
  kp_import_set(settings, "model.activation=%s", activation);
  kp_import_set(settings, "model.head=%s", tied ? "tied" : "untied");
  return read_rotation(config, context, settings, error);
}

/* With biases anywhere, all maps get them; those that the file lacks are zero. */
static kp_status translate_llama(kp_hf_config *config, kp_import_settings *settings, kp_error *error) {
  bool attention, feed_forward;
  KP_TRY(kp_hf_boolean(config, "attention_bias", false, &attention, error));
  KP_TRY(kp_hf_boolean(config, "mlp_bias", false, &feed_forward, error));
  return configure_common(config, attention || feed_forward, settings, error);
}

/* A window that no text of the context exceeds is none. */
static kp_status refuse_window(kp_hf_config *config, kp_error *error) {
  int64_t window, context;
  KP_TRY(kp_hf_integer(config, "sliding_window", INT64_MAX, &window, error));
  KP_TRY(kp_hf_size(config, "max_position_embeddings", &context, error));
  if (window >= context) return KP_OK;
  return kp_hf_refuse(
      config, "sliding_window", error,
      "kappa attends to the whole text; for texts no longer than the window, set it to null and "
      "max_position_embeddings to %lld",
      (long long)window);
}

static kp_status translate_mistral(kp_hf_config *config, kp_import_settings *settings, kp_error *error) {
  KP_TRY(refuse_window(config, error));
  return configure_common(config, false, settings, error);
}

static kp_status refuse_layer_types(kp_hf_config *config, kp_error *error) {
  if (!kp_hf_has(config, "layer_types")) return KP_OK;
  size_t i;
  json_t *type;
  json_array_foreach(json_object_get(config->object, "layer_types"), i,
                     type) if (!json_is_string(type) ||
                               strcmp(json_string_value(type), "full_attention") !=
                                   0) return kp_hf_refuse(config, "layer_types", error,
                                                          "kappa has full_attention alone");
  return KP_OK;
}

static kp_status translate_qwen2(kp_hf_config *config, kp_import_settings *settings, kp_error *error) {
  static const char *const ignored[] = {"sliding_window", "max_window_layers", NULL};
  bool windowed;
  KP_TRY(kp_hf_boolean(config, "use_sliding_window", false, &windowed, error));
  if (windowed) KP_TRY(refuse_window(config, error));
  kp_hf_ignore(config, ignored);
  KP_TRY(refuse_layer_types(config, error));
  return configure_common(config, true, settings, error);
}

static const char *const llama_buffers[] = {".rotary_emb.inv_freq", NULL};

static kp_status configure_llama(kp_hf_config *config, const kp_import_options *options, kp_config **result,
                                 kp_error *error) {
  return configure(config, translate_llama, options, result, error);
}

const kp_hf_family kp_hf_llama = {.model_type = "llama",
                                  .base = "model.",
                                  .buffers = llama_buffers,
                                  .parts = kp_hf_llama_parts,
                                  .configure = configure_llama};

static kp_status configure_mistral(kp_hf_config *config, const kp_import_options *options, kp_config **result,
                                   kp_error *error) {
  return configure(config, translate_mistral, options, result, error);
}

const kp_hf_family kp_hf_mistral = {.model_type = "mistral",
                                    .base = "model.",
                                    .buffers = llama_buffers,
                                    .parts = kp_hf_llama_parts,
                                    .configure = configure_mistral};

static kp_status configure_qwen2(kp_hf_config *config, const kp_import_options *options, kp_config **result,
                                 kp_error *error) {
  return configure(config, translate_qwen2, options, result, error);
}

const kp_hf_family kp_hf_qwen2 = {.model_type = "qwen2",
                                  .base = "model.",
                                  .buffers = llama_buffers,
                                  .parts = kp_hf_llama_parts,
                                  .configure = configure_qwen2};
