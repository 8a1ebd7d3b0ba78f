#include "interchange/export.h"

#include <stdio.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "core/atomic_file.h"
#include "core/json_text.h"
#include "interchange/hf_export.h"
#include "interchange/modeling/modeling.h"
#include "interchange/whole_folder.h"

typedef struct export {
  kp_trained model;
  const kp_hf_target *target;
  const kp_export_options *options;
  kp_export_report *report;
}
export;

static kp_status choose_target(export *e, kp_error *error) {
  if (e->model.options.task != KP_TASK_LANGUAGE)
    return kp_fail(error, KP_ERR_INPUT, "%s gives labels (model.task): only language models are exported",
                   e->model.run);
  e->target = &kp_hf_target_kappa;
  if (kp_hf_is_gpt2(&e->model.options)) e->target = &kp_hf_target_gpt2;
  if (kp_hf_is_llama(&e->model.options)) e->target = &kp_hf_target_llama;
  return e->target == &kp_hf_target_kappa ? kp_hf_check_kappa(&e->model, error) : KP_OK;
}

static kp_status write_json(json_t *json, const char *folder, const char *name, kp_error *error) {
  char path[KP_PATH_SIZE];
  if (json == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %s", name);
  kp_status status = kp_path_join(path, folder, name, error);
  if (status == KP_OK) status = kp_json_write_file(path, json, KP_JSON_DOUBLE_DIGITS, error);
  json_decref(json);
  return status;
}

static json_t *token_id(int32_t id) {
  return id < 0 ? json_null() : json_integer(id);
}

static json_t *generation_config(const kp_trained *model) {
  const kp_tokenizer *t = model->tokenizer;
  return json_pack("{s:b, s:o, s:o}", "_from_model_config", true, "bos_token_id",
                   token_id(t == NULL ? -1 : t->begin), "eos_token_id", token_id(t == NULL ? -1 : t->end));
}

static kp_status write_modeling(const char *folder, kp_error *error) {
  char path[KP_PATH_SIZE];
  KP_TRY(kp_path_join(path, folder, "modeling_kappa.py", error));
  return kp_file_write_atomic(path, kp_modeling_kappa, kp_modeling_kappa_size, error);
}

static kp_status fill(const void *context, const char *folder, kp_error *error) {
  const export *e = context;
  KP_TRY(
      write_json(kp_hf_config_json(e->target, &e->model, e->options->dtype), folder, "config.json", error));
  KP_TRY(write_json(generation_config(&e->model), folder, "generation_config.json", error));
  KP_TRY(kp_hf_write_weights(e->target, &e->model, e->options->dtype, folder, error));
  if (e->target == &kp_hf_target_kappa) KP_TRY(write_modeling(folder, error));
  return kp_hf_write_tokenizer(&e->model, folder, &e->report->tokenizer, error);
}

static void describe(export *e) {
  kp_export_report *r = e->report;
  snprintf(r->model_type, sizeof r->model_type, "%s", e->target->model_type);
  r->parameters = kp_parameters_elements(e->model.parameters);
  r->step = e->model.step;
  if (e->model.tokenizer == NULL)
    snprintf(r->notes, sizeof r->notes, "the run has no tokenizer, so none was written\n");
  else if (!r->tokenizer)
    snprintf(r->notes, sizeof r->notes,
             "transformers has no tokenizer like the run's (%s), so none was written\n",
             kp_tokenizer_name(e->model.tokenizer));
}

kp_status kp_export_hf(const char *run, const kp_export_options *options, const char *folder,
                       kp_export_report *report, kp_error *error) {
  export e = {.options = options, .report = report};
  *report = (kp_export_report){0};
  KP_TRY(kp_whole_folder_check(folder, error));
  KP_TRY(kp_trained_open(run, options->checkpoint, kp_backend_cpu(), &e.model, error));
  kp_status status = choose_target(&e, error);
  if (status == KP_OK) status = kp_whole_folder_create(folder, fill, &e, error);
  if (status == KP_OK) describe(&e);
  kp_trained_close(&e.model);
  return status;
}
