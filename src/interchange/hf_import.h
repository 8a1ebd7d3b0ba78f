/* Models of Hugging Face's transformers: a folder with config.json and safetensors. */
#ifndef KAPPA_INTERCHANGE_HF_IMPORT_H
#define KAPPA_INTERCHANGE_HF_IMPORT_H

#include "interchange/hf_config.h"
#include "interchange/hf_names.h"
#include "interchange/import.h"

extern const kp_importer kp_importer_hf;

/* One value of "model_type" in config.json. */
typedef struct kp_hf_family {
  const char *model_type;
  const char *base;           /* prefix of the base model's tensors; files without it are read too */
  const char *const *buffers; /* what names of tensors that hold no parameters end in, NULL behind the last */
  kp_hf_parts_of *parts;      /* NULL: kappa's own names */
  /* Translates config.json, or refuses by key what kappa would compute otherwise. */
  kp_status (*configure)(kp_hf_config *config, const kp_import_options *options, kp_config **result,
                         kp_error *error);
} kp_hf_family;

extern const kp_hf_family kp_hf_gpt2, kp_hf_llama, kp_hf_mistral, kp_hf_qwen2, kp_hf_kappa;

/* What config.json says: the family, and the configuration, source and notes of `imported`. */
kp_status kp_hf_translate(const json_t *document, const char *label, const kp_import_options *options,
                          const kp_hf_family **family, kp_imported *imported, kp_error *error);

/* Keys of every model that do not change its numbers, NULL behind the last. */
extern const char *const kp_hf_common_keys[];

/* kappa's word for an activation, or a refusal. */
kp_status kp_hf_activation(kp_hf_config *config, const char *key, const char *otherwise, const char **word,
                           kp_error *error);

#endif
