/* Runs become models of Hugging Face's transformers: a folder with config.json, safetensors and the
 * tokenizer.
 *
 * What GPT-2 and LLaMA can express is written as those, and transformers needs nothing else.  All other
 * models keep kappa's names and come with modeling_kappa.py, which transformers loads with
 * trust_remote_code=True. The logits are kappa's; what cannot be exported so is refused by its key. */
#ifndef KAPPA_INTERCHANGE_EXPORT_H
#define KAPPA_INTERCHANGE_EXPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "core/dtype.h"
#include "core/error.h"

enum { KP_EXPORT_NOTES = 1024 };

typedef struct kp_export_options {
  kp_dtype dtype;         /* of the tensors: KP_F32, KP_BF16 or KP_F16 */
  const char *checkpoint; /* "best", "last", or a step */
} kp_export_options;

typedef struct kp_export_report {
  char model_type[16]; /* "gpt2", "llama", "kappa" */
  int64_t parameters;  /* numbers */
  int64_t step;
  bool tokenizer;              /* whether it could be written */
  char notes[KP_EXPORT_NOTES]; /* what its user should know, lines */
} kp_export_report;

/* Writes the folder, which must not be there; a failure leaves none behind. */
kp_status kp_export_hf(const char *run, const kp_export_options *options, const char *folder,
                       kp_export_report *report, kp_error *error);

#endif
