/* The parts of an export.  Internal to src/interchange. */
#ifndef KAPPA_INTERCHANGE_HF_EXPORT_H
#define KAPPA_INTERCHANGE_HF_EXPORT_H

#include <jansson.h>

#include "interchange/export.h"
#include "interchange/hf_names.h"
#include "train/run.h"

/* One kind of config.json. */
typedef struct kp_hf_target {
  const char *model_type;
  const char *base;      /* prefix of the base model's tensors */
  kp_hf_parts_of *parts; /* NULL: kappa's own names */
  bool biased;           /* linear maps and norms have biases: those that the model lacks are zeros */
  /* config.json but for what all have; NULL when there is no memory. */
  json_t *(*config)(const kp_trained *model);
} kp_hf_target;

extern const kp_hf_target kp_hf_target_gpt2, kp_hf_target_llama, kp_hf_target_kappa;

/* Whether the options are those of a GPT-2 or a LLaMA. */
bool kp_hf_is_gpt2(const kp_model_options *options);
bool kp_hf_is_llama(const kp_model_options *options);
/* Refuses what modeling_kappa.py does not know. */
kp_status kp_hf_check_kappa(const kp_trained *model, kp_error *error);

/* The target's config.json; NULL when there is no memory. */
json_t *kp_hf_config_json(const kp_hf_target *target, const kp_trained *model, kp_dtype dtype);

/* model.safetensors of `folder`. */
kp_status kp_hf_write_weights(const kp_hf_target *target, const kp_trained *model, kp_dtype dtype,
                              const char *folder, kp_error *error);

/* tokenizer.json and tokenizer_config.json of `folder`, as `tokenizers` reads them; `*written` says whether
 * that kind of tokenizer can be.  Kinds that kappa would not read back from there keep their own file too. */
kp_status kp_hf_write_tokenizer(const kp_trained *model, const char *folder, bool *written, kp_error *error);

#endif
