#include "study/analyze.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/directory.h"
#include "core/json_text.h"
#include "study/analyze_private.h"

/* data.path=PATH for kp_config_set, whatever characters the path has. */
static kp_status choose_data(kp_config *config, const char *path, kp_error *error) {
  char assignment[2 * KP_PATH_SIZE + 16] = "data.path=\"";
  size_t length = strlen(assignment);
  KP_TRY(kp_path_check(path, error));
  for (; *path != 0; path++) {
    if (*path == '"' || *path == '\\') assignment[length++] = '\\';
    assignment[length++] = *path;
  }
  snprintf(assignment + length, sizeof assignment - length, "\"");
  KP_TRY(kp_config_set(config, assignment, error));
  KP_TRY(kp_config_set(config, "data.train=\"\"", error));
  return kp_config_set(config, "data.validation=\"\"", error);
}

static kp_status read_data(kp_analysis *a, kp_trained *trained, const kp_analysis_options *options,
                           kp_error *error) {
  kp_data_source data;
  if (options->data != NULL) KP_TRY(choose_data(trained->config, options->data, error));
  KP_TRY(kp_data_source_open(trained->config, &data, error));
  kp_status status = kp_analysis_read_states(a, trained, &data, options, error);
  if (status == KP_OK) status = kp_analysis_read_embedding(a, trained, &data, error);
  kp_data_source_close(&data);
  return status;
}

static kp_status read_parameters(kp_analysis *a, const kp_trained *trained, kp_error *error) {
  const kp_model_options *o = &trained->options;
  KP_TRY(kp_analysis_read_weights(a, trained->parameters, error));
  KP_TRY(kp_condition_numbers_read(trained->parameters, o, a->arena, &a->conditions, error));
  return kp_learning_rates_read(trained->parameters, (int)o->layers, o->sphere_scale, o->sphere_rate,
                                a->arena, &a->rates, error);
}

static kp_status analyze(const char *run, const kp_analysis_options *options, kp_analysis **result,
                         kp_error *error) {
  kp_arena *arena = kp_arena_create();
  kp_analysis *a = kp_arena_take(arena, sizeof *a);
  kp_trained trained = {0};
  *a = (kp_analysis){.arena = arena, .embedding_curvature = NAN, .embedding_start = NAN};
  *result = NULL;
  kp_status status = kp_run_record_open(run, &a->record, error);
  if (status == KP_OK)
    status = kp_trained_open(a->record.path, options->checkpoint == NULL ? "last" : options->checkpoint,
                             options->backend, &trained, error);
  if (status == KP_OK) {
    a->step = trained.step;
    a->width = trained.options.width;
    status = read_data(a, &trained, options, error);
    if (status == KP_OK) status = read_parameters(a, &trained, error);
    kp_trained_close(&trained);
  }
  if (status == KP_OK)
    *result = a;
  else
    kp_analysis_destroy(a);
  return status;
}

/* An analysis of every checkpoint; `a` itself stands for its own. */
static kp_status read_history(kp_analysis *a, const kp_analysis_options *options, kp_error *error) {
  int64_t *steps;
  size_t count;
  KP_TRY(kp_checkpoint_list(a->record.path, &steps, &count, error));
  a->history = kp_arena_take(a->arena, (count + 1) * sizeof *a->history);
  kp_status status = KP_OK;
  for (size_t i = 0; i < count && status == KP_OK; i++) {
    char step[32];
    kp_analysis_options one = *options;
    snprintf(step, sizeof step, "%lld", (long long)steps[i]);
    one.checkpoint = step;
    if (steps[i] == a->step)
      a->history[a->history_count] = a;
    else
      status = analyze(a->record.path, &one, &a->history[a->history_count], error);
    if (status == KP_OK) a->history_count++;
  }
  free(steps);
  return status;
}

kp_status kp_analysis_create(const char *run, const kp_analysis_options *options, kp_analysis **result,
                             kp_error *error) {
  KP_TRY(analyze(run, options, result, error));
  kp_status status = options->over_training ? read_history(*result, options, error) : KP_OK;
  if (status == KP_OK) return KP_OK;
  kp_analysis_destroy(*result);
  *result = NULL;
  return status;
}

void kp_analysis_destroy(kp_analysis *a) {
  if (a == NULL) return;
  for (int i = 0; i < a->history_count; i++)
    if (a->history[i] != a) kp_analysis_destroy(a->history[i]);
  kp_run_record_close(&a->record);
  kp_arena_destroy(a->arena);
}

kp_status kp_analysis_write(const kp_analysis *a, const char *folder, bool figures, kp_error *error) {
  char path[KP_PATH_SIZE];
  KP_TRY(kp_directory_create(folder, error));
  KP_TRY(kp_path_join(path, folder, "analysis.json", error));
  json_t *json = kp_analysis_json(a);
  kp_status status = kp_json_write_file(path, json, KP_JSON_FLOAT_DIGITS, error);
  json_decref(json);
  if (status != KP_OK || !figures) return status;
  return kp_analysis_plot(a, folder, error);
}
