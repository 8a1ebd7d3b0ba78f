#include "interchange/merge.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend/cpu/cpu.h"
#include "core/atomic_file.h"
#include "core/json_text.h"
#include "core/safetensors.h"
#include "data/labelled.h"
#include "interchange/whole_folder.h"
#include "train/lora.h"
#include "train/run.h"

static kp_status write_text(const char *folder, const char *name, const char *text, size_t size,
                            kp_error *error) {
  char path[KP_PATH_SIZE];
  KP_TRY(kp_path_join(path, folder, name, error));
  return kp_file_write_atomic(path, text, size, error);
}

static kp_status write_description(const kp_trained *model, const char *folder, kp_error *error) {
  char path[KP_PATH_SIZE];
  KP_TRY(kp_path_join(path, folder, "run.json", error));
  json_t *json =
      json_pack("{s:s, s:s, s:I, s:{s:s, s:I}}", "program", "kappa", "family", model->options.family->name,
                "parameters", (json_int_t)kp_parameters_elements(model->parameters), "merged", "run",
                model->run, "step", (json_int_t)model->step);
  const kp_status status = json == NULL ? kp_fail(error, KP_ERR_MEMORY, "no memory for run.json")
                                        : kp_json_write_file(path, json, KP_JSON_DOUBLE_DIGITS, error);
  json_decref(json);
  return status;
}

static kp_status write_config(const kp_trained *model, const char *folder, kp_error *error) {
  char *text;
  size_t size;
  KP_TRY(kp_config_text(model->config, &text, &size, error));
  const kp_status status = write_text(folder, "config.yaml", text, size, error);
  free(text);
  return status;
}

static kp_status copy_labels(const kp_trained *model, const char *folder, kp_error *error) {
  kp_labelling labelling;
  if (!kp_labelling_stands_in(model->run)) return KP_OK;
  KP_TRY(kp_labelling_read(model->run, &labelling, error));
  const kp_status status = kp_labelling_write(folder, &labelling, error);
  kp_labelling_clear(&labelling);
  return status;
}

static kp_status fill_run(const void *context, const char *folder, kp_error *error) {
  const kp_trained *model = context;
  const kp_run_state state = {.step = model->step,
                              .best_loss = HUGE_VAL,
                              .best_validation = HUGE_VAL,
                              .best_step = -1,
                              .evaluated_step = -1};
  char path[KP_PATH_SIZE];
  KP_TRY(kp_checkpoint_write(folder, model->parameters, &state, 1, error));
  if (model->tokenizer != NULL) {
    KP_TRY(kp_path_join(path, folder, KP_TOKENIZER_FILE, error));
    KP_TRY(kp_tokenizer_save(model->tokenizer, path, error));
  }
  KP_TRY(copy_labels(model, folder, error));
  KP_TRY(write_description(model, folder, error));
  return write_config(model, folder, error);
}

/* The numbers of adapters in the checkpoint that was opened. */
static kp_status count_adapters(const kp_trained *model, int64_t *numbers, kp_error *error) {
  char name[64], path[KP_PATH_SIZE];
  kp_safetensors *file;
  *numbers = 0;
  snprintf(name, sizeof name, "checkpoints/step-%lld/model.safetensors", (long long)model->step);
  KP_TRY(kp_path_join(path, model->run, name, error));
  KP_TRY(kp_safetensors_open(path, &file, error));
  for (size_t i = 0; i < kp_safetensors_count(file); i++) {
    const kp_safetensors_entry *entry = kp_safetensors_entry_at(file, i);
    if (kp_is_adapter(entry->name)) *numbers += entry->elements;
  }
  kp_safetensors_close(file);
  if (*numbers > 0) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "run %s has no adapters to merge: it was not trained with train.lora",
                 model->run);
}

/* As of a run that was never trained with adapters, and that starts from no other. */
static kp_status forget_adapters(kp_trained *model, kp_error *error) {
  static const char *const keys[] = {"train.lora.rank=0", "train.only=[]", "train.freeze=[]",
                                     "train.init=\"\""};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
    KP_TRY(kp_config_set(model->config, keys[i], error));
  for (int p = 0; p < model->parameters->count; p++) model->parameters->list[p].moments = 0;
  return KP_OK;
}

kp_status kp_merge(const char *run, const char *which, const char *merged, kp_merge_report *report,
                   kp_error *error) {
  kp_trained model;
  KP_TRY(kp_path_check(merged, error));
  KP_TRY(kp_whole_folder_check(merged, error));
  KP_TRY(kp_trained_open(run, which, kp_backend_cpu(), &model, error));
  report->step = model.step;
  report->parameters = kp_parameters_elements(model.parameters);
  kp_status status = count_adapters(&model, &report->adapters, error);
  if (status == KP_OK) status = forget_adapters(&model, error);
  if (status == KP_OK) status = kp_whole_folder_create(merged, fill_run, &model, error);
  kp_trained_close(&model);
  return status;
}
