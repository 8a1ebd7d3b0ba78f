/* The runs of a study. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/config_yaml.h"
#include "core/directory.h"
#include "core/lock.h"
#include "study/analyze.h"
#include "study/study.h"
#include "train/run.h"
#include "train/settings.h"

typedef struct session {
  const kp_study_plan *plan;
  const kp_study_options *options;
  const char *folder;
  kp_study_progress progress;
  double seconds; /* spent on runs that were trained from their beginning in this session */
  int trained;    /* how many these are */
  double run_started;
} session;

/* ---- progress ---- */

static void tell(session *s, kp_study_event event, const kp_progress *training) {
  s->progress.event = event;
  s->progress.training = training;
  if (s->options->progress != NULL) s->options->progress(s->options->context, &s->progress);
}

/* A run takes about as long as the mean of those before it; the first, as its own steps say. */
static void estimate(session *s, const kp_progress *p) {
  const double spent = omp_get_wtime() - s->run_started;
  const double whole = s->trained > 0 ? s->seconds / s->trained : spent + p->seconds_left;
  const int behind = s->progress.count - s->progress.index - 1;
  s->progress.seconds_left = p->seconds_left + behind * whole;
}

static void forward(void *context, const kp_progress *p) {
  session *s = context;
  estimate(s, p);
  tell(s, KP_STUDY_TRAINS, p);
}

/* ---- one run ---- */

/* Keys that training resolves from the data and from other keys when they are not given. */
static bool is_resolved(const char *key) {
  static const char *const keys[] = {"model.vocabulary", "train.warmup"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
    if (strcmp(key, keys[i]) == 0) return true;
  return false;
}

static bool same_value(const kp_yaml_entry *a, const kp_yaml_entry *b) {
  if (a->count != b->count) return false;
  for (size_t i = 0; i < a->count; i++)
    if (strcmp(a->items[i].text, b->items[i].text) != 0) return false;
  return true;
}

/* Fails unless the run in the folder has the plan's configuration. */
static kp_status check_same(const kp_config *wanted, const kp_run_record *record, kp_error *error) {
  char *text;
  size_t size;
  kp_yaml_document document = {0};
  KP_TRY(kp_config_text(wanted, &text, &size, error));
  kp_status status = kp_yaml_read(text, size, record->path, &document, error);
  for (size_t i = 0; i < document.count && status == KP_OK; i++) {
    const kp_yaml_entry *entry = &document.entries[i];
    if (is_resolved(entry->key) && !kp_config_is_set(wanted, entry->key)) continue;
    if (i < record->settings.count && same_value(entry, &record->settings.entries[i])) continue;
    status =
        kp_fail(error, KP_ERR_INPUT,
                "%s was trained with another %s than the plan asks for: remove the run, or choose another "
                "folder for the study",
                record->path, entry->key);
  }
  kp_yaml_clear(&document);
  free(text);
  return status;
}

/* Whether the run has ended, all steps or stopped early by train.patience, and its last state is saved. */
static bool is_finished(const kp_run_record *record) {
  int64_t saved;
  if (record->evaluation_count == 0 || kp_checkpoint_find(record->path, "last", &saved, NULL) != KP_OK ||
      (double)saved < record->evaluations[record->evaluation_count - 1].step)
    return false;
  if (record->evaluations[record->evaluation_count - 1].step >= (double)record->planned_steps) return true;
  const int64_t patience = kp_config_integer(record->config, "train.patience");
  int64_t best = 0;
  for (int64_t i = 1; i < record->evaluation_count; i++)
    if (record->evaluations[i].validation_loss < record->evaluations[best].validation_loss) best = i;
  return patience > 0 && record->evaluation_count - 1 - best >= patience;
}

typedef enum run_state { RUN_NEW, RUN_UNFINISHED, RUN_FINISHED } run_state;

static kp_status look_at(const char *folder, const kp_config *wanted, run_state *state, kp_error *error) {
  char path[KP_PATH_SIZE];
  kp_run_record record;
  *state = RUN_NEW;
  KP_TRY(kp_path_join(path, folder, "config.yaml", error));
  if (kp_path_kind_of(path) == KP_PATH_MISSING) return KP_OK;
  KP_TRY(kp_run_record_open(folder, &record, error));
  kp_status status = check_same(wanted, &record, error);
  *state = is_finished(&record) ? RUN_FINISHED : RUN_UNFINISHED;
  kp_run_record_close(&record);
  return status;
}

static kp_status train(session *s, const char *folder, kp_config *config, run_state state, kp_error *error) {
  const kp_train_options options = {.backend = s->options->backend,
                                    .threads = s->options->threads,
                                    .resume = state == RUN_UNFINISHED,
                                    .progress = forward,
                                    .context = s,
                                    .stop = s->options->stop};
  s->run_started = omp_get_wtime();
  tell(s, KP_STUDY_BEGINS, NULL);
  KP_TRY(kp_train(options.resume ? NULL : config, folder, &options, error));
  if (options.resume) return KP_OK;
  s->seconds += omp_get_wtime() - s->run_started;
  s->trained++;
  return KP_OK;
}

static kp_status analyze(session *s, const char *folder, kp_error *error) {
  char out[KP_PATH_SIZE], path[KP_PATH_SIZE];
  kp_analysis *analysis;
  const kp_analysis_options options = {
      .tokens = s->plan->analyze, .backend = s->options->backend, .threads = s->options->threads};
  KP_TRY(kp_path_join(out, folder, "analysis", error));
  KP_TRY(kp_path_join(path, out, "analysis.json", error));
  if (s->plan->analyze == 0 || kp_path_kind_of(path) == KP_PATH_FILE) return KP_OK;
  tell(s, KP_STUDY_ANALYZES, NULL);
  KP_TRY(kp_analysis_create(folder, &options, &analysis, error));
  kp_status status = kp_analysis_write(analysis, out, false, error);
  kp_analysis_destroy(analysis);
  return status;
}

static kp_status do_run(session *s, int index, kp_error *error) {
  char folder[KP_PATH_SIZE];
  kp_config *config;
  run_state state;
  s->progress.index = index;
  s->progress.run = kp_study_plan_run(s->plan, index);
  KP_TRY(kp_study_run_folder(&s->progress.run, s->folder, folder, error));
  KP_TRY(kp_study_run_config(s->plan, &s->progress.run, &config, error));
  kp_status status = look_at(folder, config, &state, error);
  if (status == KP_OK && state == RUN_FINISHED)
    tell(s, KP_STUDY_SKIPPED, NULL);
  else if (status == KP_OK)
    status = train(s, folder, config, state, error);
  kp_config_destroy(config);
  return status == KP_OK ? analyze(s, folder, error) : status;
}

/* Every configuration is read before the first is trained: a mistake in the last variant shows at once. */
static kp_status check_configs(const kp_study_plan *plan, kp_error *error) {
  for (int i = 0; i < kp_study_plan_runs(plan); i += plan->seed_count) {
    const kp_study_run run = kp_study_plan_run(plan, i);
    kp_config *config;
    kp_train_settings settings;
    KP_TRY(kp_study_run_config(plan, &run, &config, error));
    kp_status status = kp_train_settings_read(config, &settings, error);
    kp_config_destroy(config);
    if (status != KP_OK) return kp_context(error, "%s: variant %s", plan->path, run.variant->name);
  }
  return KP_OK;
}

kp_status kp_study_train(const kp_study_plan *plan, const char *folder, const kp_study_options *options,
                         kp_error *error) {
  session s = {.plan = plan, .options = options, .folder = folder};
  char path[KP_PATH_SIZE];
  kp_lock *lock;
  s.progress.count = kp_study_plan_runs(plan);
  s.progress.seconds_left = (double)NAN;
  KP_TRY(check_configs(plan, error));
  KP_TRY(kp_directory_create(folder, error));
  KP_TRY(kp_path_join(path, folder, "lock", error));
  KP_TRY(kp_lock_acquire(path, &lock, error));
  kp_status status = KP_OK;
  for (int i = 0; i < s.progress.count && status == KP_OK; i++) status = do_run(&s, i, error);
  kp_lock_release(lock);
  return status;
}
