/* Back from an export: config.json with kappa's own keys. */
#include <stdlib.h>
#include <string.h>

#include "interchange/hf_import.h"
#include "train/settings.h"

/* JSON is YAML: the keys are read like any configuration, and checked by its schema. */
static kp_status parse(const kp_hf_config *config, json_t *keys, const kp_import_options *options,
                       kp_config **result, kp_error *error) {
  json_t *document = json_pack("{s:{s:s}, s:O}", "data", "path", "", "model", keys);
  char *text = document == NULL ? NULL : json_dumps(document, JSON_COMPACT | JSON_REAL_PRECISION(17));
  json_decref(document);
  if (text == NULL) return kp_fail(error, KP_ERR_MEMORY, "%s: no memory for its keys", config->label);
  const kp_status status = kp_config_parse(text, strlen(text), config->label, kp_training_schema(),
                                           options->sets, options->set_count, result, error);
  free(text);
  return status;
}

static kp_status configure(kp_hf_config *config, const kp_import_options *options, kp_config **result,
                           kp_error *error) {
  static const char *const ignored[] = {"auto_map",
                                        "hidden_size",
                                        "max_position_embeddings",
                                        "num_attention_heads",
                                        "num_hidden_layers",
                                        "parameter_shapes",
                                        "tie_word_embeddings",
                                        "vocab_size",
                                        NULL};
  kp_hf_ignore(config, ignored);
  if (!kp_hf_has(config, "kappa") || !json_is_object(json_object_get(config->object, "kappa")))
    return kp_hf_refuse(config, "kappa", error, "an object with the keys of the model was expected");
  return parse(config, json_object_get(config->object, "kappa"), options, result, error);
}

static const char *const none[] = {NULL};

const kp_hf_family kp_hf_kappa = {.model_type = "kappa", .base = "", .buffers = none, .configure = configure};
