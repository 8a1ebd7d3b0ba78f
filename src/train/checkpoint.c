/* Checkpoints: parameters, moments and state of one step, a folder that is there whole or not at all. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/directory.h"
#include "core/json_text.h"
#include "core/safetensors.h"
#include "train/run.h"
#include "train/settings.h"

static kp_dtype dtype_of(const kp_parameters *parameters) {
  return parameters->backend->wide_size == sizeof(double) ? KP_F64 : KP_F32;
}

/* Room on the host for any one parameter. */
static kp_status create_room(const kp_parameters *parameters, void **room, kp_error *error) {
  int64_t largest = 0;
  for (int i = 0; i < parameters->count; i++)
    if (parameters->list[i].count > largest) largest = parameters->list[i].count;
  return kp_buffer_create((size_t)largest * parameters->backend->wide_size, "a parameter of a checkpoint",
                          room, error);
}

/* ---- writing ---- */

/* One buffer of all parameters, each tensor's name with `prefix` in front; of the first or second moments
 * those that the optimizer keeps, of values (`moment` 0) all. */
static kp_status declare(kp_safetensors_writer *writer, const kp_parameters *parameters, const char *prefix,
                         int moment, kp_error *error) {
  for (int i = 0; i < parameters->count; i++) {
    const kp_parameter *p = &parameters->list[i];
    char name[256];
    if (p->moments < moment) continue;
    snprintf(name, sizeof name, "%s%s", prefix, p->name);
    KP_TRY(kp_safetensors_writer_declare(writer, name, dtype_of(parameters), p->dimensions, p->shape, error));
  }
  return KP_OK;
}

static kp_status write_buffer(kp_safetensors_writer *writer, const kp_parameters *parameters,
                              const char *prefix, int moment, const void *buffer, kp_error *error) {
  void *room;
  KP_TRY(create_room(parameters, &room, error));
  kp_status status = KP_OK;
  for (int i = 0; i < parameters->count && status == KP_OK; i++) {
    const kp_parameter *p = &parameters->list[i];
    char name[256];
    if (p->moments < moment) continue;
    snprintf(name, sizeof name, "%s%s", prefix, p->name);
    status = kp_parameters_copy_out(parameters, buffer, i, room, error);
    if (status == KP_OK)
      status = kp_safetensors_writer_write(writer, name, room,
                                           (size_t)p->count * parameters->backend->wide_size, error);
  }
  kp_buffer_destroy(room);
  return status;
}

static kp_status write_model(const char *folder, const kp_parameters *parameters, kp_error *error) {
  char path[KP_PATH_SIZE];
  kp_safetensors_writer *writer;
  KP_TRY(kp_path_join(path, folder, "model.safetensors", error));
  KP_TRY(kp_safetensors_writer_create(path, &writer, error));
  kp_status status = declare(writer, parameters, "", 0, error);
  if (status == KP_OK) status = write_buffer(writer, parameters, "", 0, parameters->values, error);
  if (status == KP_OK) status = kp_safetensors_writer_commit(writer, error);
  kp_safetensors_writer_destroy(writer);
  return status;
}

static kp_status write_optimizer(const char *folder, const kp_parameters *parameters, kp_error *error) {
  char path[KP_PATH_SIZE];
  kp_safetensors_writer *writer;
  KP_TRY(kp_path_join(path, folder, "optimizer.safetensors", error));
  KP_TRY(kp_safetensors_writer_create(path, &writer, error));
  kp_status status = declare(writer, parameters, "moment1/", 1, error);
  if (status == KP_OK) status = declare(writer, parameters, "moment2/", 2, error);
  if (status == KP_OK) status = write_buffer(writer, parameters, "moment1/", 1, parameters->moment1, error);
  if (status == KP_OK) status = write_buffer(writer, parameters, "moment2/", 2, parameters->moment2, error);
  if (status == KP_OK) status = kp_safetensors_writer_commit(writer, error);
  kp_safetensors_writer_destroy(writer);
  return status;
}

/* The integers of the state, by name. */
typedef struct state_field {
  const char *name;
  size_t offset;
} state_field;

static const state_field fields[] = {
    {"step", offsetof(kp_run_state, step)},
    {"adam_steps", offsetof(kp_run_state, adam_steps)},
    {"tokens", offsetof(kp_run_state, tokens)},
    {"skipped", offsetof(kp_run_state, skipped)},
    {"skipped_in_a_row", offsetof(kp_run_state, skipped_in_a_row)},
    {"best_step", offsetof(kp_run_state, best_step)},
    {"since_best", offsetof(kp_run_state, since_best)},
    {"evaluated_step", offsetof(kp_run_state, evaluated_step)},
};
enum { FIELD_COUNT = sizeof fields / sizeof *fields };

static kp_status write_state(const char *folder, const kp_run_state *state, kp_error *error) {
  char path[KP_PATH_SIZE];
  KP_TRY(kp_path_join(path, folder, "state.json", error));
  json_t *json = json_object();
  for (int i = 0; i < FIELD_COUNT; i++)
    json_object_set_new(json, fields[i].name,
                        json_integer(*(const int64_t *)((const char *)state + fields[i].offset)));
  json_object_set_new(json, "seconds", kp_json_number(state->seconds));
  json_object_set_new(json, "best_loss", kp_json_number(state->best_loss));
  json_object_set_new(json, "best_validation", kp_json_number(state->best_validation));
  kp_status status = kp_json_write_file(path, json, KP_JSON_DOUBLE_DIGITS, error);
  json_decref(json);
  return status;
}

static kp_status checkpoint_path(char out[KP_PATH_SIZE], const char *run, int64_t step, kp_error *error) {
  char name[64];
  snprintf(name, sizeof name, "checkpoints/step-%lld", (long long)step);
  return kp_path_join(out, run, name, error);
}

kp_status kp_checkpoint_list(const char *run, int64_t **steps, size_t *count, kp_error *error) {
  char folder[KP_PATH_SIZE];
  kp_directory_listing listing;
  *steps = NULL;
  *count = 0;
  KP_TRY(kp_path_join(folder, run, "checkpoints", error));
  if (kp_path_kind_of(folder) != KP_PATH_FOLDER) return KP_OK;
  KP_TRY(kp_directory_list(folder, &listing, error));
  *steps = malloc((listing.count + 1) * sizeof **steps);
  for (size_t i = 0; i < listing.count && *steps != NULL; i++) {
    char *end;
    if (strncmp(listing.names[i], "step-", 5) != 0) continue;
    long long step = strtoll(listing.names[i] + 5, &end, 10);
    if (*end != 0 || step < 0) continue;
    size_t at = (*count)++;
    for (; at > 0 && (*steps)[at - 1] > step; at--) (*steps)[at] = (*steps)[at - 1];
    (*steps)[at] = step;
  }
  kp_directory_listing_clear(&listing);
  return *steps == NULL ? kp_fail(error, KP_ERR_MEMORY, "no memory for a list of checkpoints") : KP_OK;
}

static kp_status remove_old(const char *run, int64_t keep, int64_t best, kp_error *error) {
  int64_t *steps;
  size_t count;
  KP_TRY(kp_checkpoint_list(run, &steps, &count, error));
  kp_status status = KP_OK;
  for (size_t i = 0; i + (size_t)keep < count && status == KP_OK; i++) {
    char path[KP_PATH_SIZE];
    if (steps[i] == best) continue;
    status = checkpoint_path(path, run, steps[i], error);
    if (status == KP_OK) status = kp_directory_remove_tree(path, error);
  }
  free(steps);
  return status;
}

kp_status kp_checkpoint_write(const char *run, const kp_parameters *parameters, const kp_run_state *state,
                              int64_t keep, kp_error *error) {
  char path[KP_PATH_SIZE], temporary[KP_PATH_SIZE], folder[KP_PATH_SIZE];
  KP_TRY(kp_path_join(folder, run, "checkpoints", error));
  KP_TRY(kp_directory_create(folder, error));
  KP_TRY(checkpoint_path(path, run, state->step, error));
  if (kp_path_kind_of(path) == KP_PATH_FOLDER) return KP_OK; /* the same step again gives the same bits */
  KP_TRY(kp_directory_create_temporary(path, temporary, error));
  kp_status status = write_model(temporary, parameters, error);
  if (status == KP_OK) status = write_optimizer(temporary, parameters, error);
  if (status == KP_OK) status = write_state(temporary, state, error);
  if (status == KP_OK) status = kp_directory_rename_atomic(temporary, path, error);
  if (status != KP_OK) {
    kp_directory_remove_tree(temporary, NULL);
    return status;
  }
  return remove_old(run, keep, state->best_step, error);
}

/* ---- reading ---- */

static kp_status read_buffer(kp_safetensors *file, const char *prefix, int moment, kp_parameters *parameters,
                             void *buffer, kp_error *error) {
  void *room;
  KP_TRY(create_room(parameters, &room, error));
  kp_status status = KP_OK;
  for (int i = 0; i < parameters->count && status == KP_OK; i++) {
    const kp_parameter *p = &parameters->list[i];
    const kp_safetensors_entry *entry;
    char name[256];
    if (p->moments < moment) continue;
    snprintf(name, sizeof name, "%s%s", prefix, p->name);
    if (!p->used && kp_safetensors_find(file, name) == NULL) continue;
    status = kp_safetensors_require_shape(file, name, p->dimensions, p->shape, &entry, error);
    if (status == KP_OK) status = kp_safetensors_read(entry, dtype_of(parameters), room, error);
    if (status == KP_OK) status = kp_parameters_copy_in(parameters, buffer, i, room, error);
  }
  kp_buffer_destroy(room);
  return status;
}

kp_status kp_parameters_load(const char *path, kp_parameters *parameters, kp_error *error) {
  kp_safetensors *file;
  KP_TRY(kp_safetensors_open(path, &file, error));
  kp_status status = read_buffer(file, "", 0, parameters, parameters->values, error);
  kp_safetensors_close(file);
  return status;
}

static kp_status load_moments(const char *path, kp_parameters *parameters, kp_error *error) {
  kp_safetensors *file;
  KP_TRY(kp_safetensors_open(path, &file, error));
  kp_status status = read_buffer(file, "moment1/", 1, parameters, parameters->moment1, error);
  if (status == KP_OK) status = read_buffer(file, "moment2/", 2, parameters, parameters->moment2, error);
  kp_safetensors_close(file);
  return status;
}

static kp_status read_state(const char *path, kp_run_state *state, kp_error *error) {
  json_t *json;
  KP_TRY(kp_json_read_file(path, &json, error));
  kp_status status = KP_OK;
  for (int i = 0; i < FIELD_COUNT && status == KP_OK; i++) {
    const json_t *value = json_object_get(json, fields[i].name);
    if (json_is_integer(value))
      *(int64_t *)((char *)state + fields[i].offset) = json_integer_value(value);
    else
      status = kp_fail(error, KP_ERR_INPUT, "%s: key \"%s\" is missing or no integer", path, fields[i].name);
  }
  const json_t *best = json_object_get(json, "best_loss");
  const json_t *beside = json_object_get(json, "best_validation"); /* older checkpoints have none */
  state->seconds = json_number_value(json_object_get(json, "seconds"));
  state->best_loss = json_is_number(best) ? json_number_value(best) : HUGE_VAL;
  state->best_validation = json_is_number(beside) ? json_number_value(beside) : state->best_loss;
  json_decref(json);
  return status;
}

kp_status kp_checkpoint_read(const char *run, int64_t step, kp_parameters *parameters, kp_run_state *state,
                             kp_error *error) {
  char folder[KP_PATH_SIZE], path[KP_PATH_SIZE];
  KP_TRY(checkpoint_path(folder, run, step, error));
  KP_TRY(kp_path_join(path, folder, "model.safetensors", error));
  KP_TRY(kp_parameters_load(path, parameters, error));
  if (state == NULL) return KP_OK;
  KP_TRY(kp_path_join(path, folder, "optimizer.safetensors", error));
  KP_TRY(load_moments(path, parameters, error));
  KP_TRY(kp_path_join(path, folder, "state.json", error));
  return read_state(path, state, error);
}

static kp_status best_step(const char *run, int64_t last, int64_t *step, kp_error *error) {
  char folder[KP_PATH_SIZE], path[KP_PATH_SIZE];
  kp_run_state state;
  KP_TRY(checkpoint_path(folder, run, last, error));
  KP_TRY(kp_path_join(path, folder, "state.json", error));
  KP_TRY(read_state(path, &state, error));
  *step = state.best_step;
  return KP_OK;
}

kp_status kp_checkpoint_find(const char *run, const char *which, int64_t *step, kp_error *error) {
  int64_t *steps;
  size_t count;
  KP_TRY(kp_checkpoint_list(run, &steps, &count, error));
  const int64_t last = count == 0 ? -1 : steps[count - 1];
  char *end;
  const int64_t wanted = strtoll(which, &end, 10);
  bool found = false;
  kp_status status = KP_OK;
  if (count == 0)
    status = kp_fail(error, KP_ERR_INPUT, "%s has no checkpoint: has it been trained?", run);
  else if (strcmp(which, "last") == 0)
    *step = last;
  else if (strcmp(which, "best") == 0)
    status = best_step(run, last, step, error);
  else
    *step = wanted;
  for (size_t i = 0; i < count && status == KP_OK; i++) found |= steps[i] == *step;
  if (status == KP_OK && !found && strcmp(which, "best") == 0)
    *step = last; /* evaluated after its last checkpoint */
  else if (status == KP_OK &&
           (!found || (*end != 0 && strcmp(which, "last") != 0 && strcmp(which, "best") != 0)))
    status = kp_fail(error, KP_ERR_INPUT, "%s has no checkpoint \"%s\"; its last is step %lld", run, which,
                     (long long)last);
  free(steps);
  return status;
}

/* ---- a trained model ---- */

/* The adapters that were trained become part of the weights. */
static kp_status fold_adapters(kp_trained *trained, kp_error *error) {
  const kp_lora_options lora = kp_lora_read(trained->config);
  char folder[KP_PATH_SIZE], path[KP_PATH_SIZE];
  kp_safetensors *file;
  if (lora.rank == 0) return KP_OK;
  KP_TRY(checkpoint_path(folder, trained->run, trained->step, error));
  KP_TRY(kp_path_join(path, folder, "model.safetensors", error));
  KP_TRY(kp_safetensors_open(path, &file, error));
  const kp_status status = kp_lora_fold(file, &lora, trained->parameters, error);
  kp_safetensors_close(file);
  return status;
}

kp_status kp_trained_open(const char *run, const char *which, const kp_backend *backend, kp_trained *trained,
                          kp_error *error) {
  char path[KP_PATH_SIZE];
  *trained = (kp_trained){.backend = backend};
  KP_TRY(kp_path_check(run, error));
  snprintf(trained->run, sizeof trained->run, "%s", run);
  KP_TRY(kp_path_join(path, run, "config.yaml", error));
  if (kp_path_kind_of(path) != KP_PATH_FILE)
    return kp_fail(error, KP_ERR_INPUT, "%s is no run: it has no config.yaml", run);

  kp_status status = kp_config_load(path, kp_training_schema(), NULL, 0, &trained->config, error);
  if (status == KP_OK) status = kp_model_options_read(trained->config, NULL, &trained->options, error);
  if (status == KP_OK) status = kp_checkpoint_find(run, which, &trained->step, error);
  if (status == KP_OK) {
    kp_network *network; /* building any graph fills the table */
    trained->parameters = kp_parameters_create();
    status = kp_network_create(&trained->options, trained->parameters,
                               (kp_build){.mode = KP_BUILD_LOGITS, .batch = 1, .length = 1}, &network, error);
    kp_network_destroy(network);
  }
  if (status == KP_OK) status = kp_parameters_allocate(trained->parameters, backend, false, error);
  if (status == KP_OK) status = kp_checkpoint_read(run, trained->step, trained->parameters, NULL, error);
  if (status == KP_OK) status = fold_adapters(trained, error);
  if (status == KP_OK) status = kp_path_join(path, run, KP_TOKENIZER_FILE, error);
  if (status == KP_OK && kp_path_kind_of(path) == KP_PATH_FILE)
    status = kp_tokenizer_open(path, &trained->tokenizer, error);
  if (status != KP_OK) kp_trained_close(trained);
  return status;
}

void kp_trained_close(kp_trained *trained) {
  kp_config_destroy(trained->config);
  kp_model_options_destroy(&trained->options);
  kp_parameters_destroy(trained->parameters);
  kp_tokenizer_destroy(trained->tokenizer);
  *trained = (kp_trained){0};
}
