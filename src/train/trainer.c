/* The training loop. */
#include "train/trainer.h"

#include <jansson.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "core/assert.h"
#include "core/directory.h"
#include "core/file.h"
#include "core/atomic_file.h"
#include "core/json_text.h"
#include "core/random.h"
#include "optim/stepper.h"
#include "train/data_source.h"
#include "train/feed.h"
#include "train/judge.h"
#include "train/metrics.h"
#include "train/settings.h"

typedef struct trainer {
  const char *run;
  const kp_train_options *options;
  kp_config *config;
  int threads;
  kp_train_settings settings;
  kp_model_options model;
  kp_data_source data;
  kp_feed feed;
  kp_judge judge;
  kp_trained source;      /* what a new run with train.init starts from, until it is copied */
  kp_transfers transfers; /* what was */
  kp_engine *engine;
  kp_stepper *stepper;
  kp_metrics metrics;
  kp_run_state state;
  kp_lock *lock;
  double seconds_now; /* of this process's training, for the rate */
  double since;       /* when the steps began that are not in it yet */
  int64_t steps_now, steps_timed;
  kp_error reason; /* of the first skipped step since the last report */
  bool restarted;  /* a resumed run that had not been evaluated yet */
} trainer;

/* ---- setting up ---- */

static kp_status refuse_existing(const trainer *t, kp_error *error) {
  char path[KP_PATH_SIZE];
  KP_TRY(kp_path_join(path, t->run, "config.yaml", error));
  if (kp_path_kind_of(path) == KP_PATH_MISSING) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT,
                 "%s holds a run already: go on with --resume, or choose another folder with --out", t->run);
}

static kp_status lock_run(trainer *t, kp_error *error) {
  char path[KP_PATH_SIZE];
  KP_TRY(kp_path_join(path, t->run, "lock", error));
  return kp_lock_acquire(path, &t->lock, error);
}

/* Refused before the lock, so that an existing run is not touched, and again under it: another process may
 * have been first. */
static kp_status open_new_run(trainer *t, kp_error *error) {
  KP_TRY(refuse_existing(t, error));
  KP_TRY(kp_directory_create(t->run, error));
  KP_TRY(lock_run(t, error));
  return refuse_existing(t, error);
}

static kp_status open_old_run(trainer *t, kp_error *error) {
  char path[KP_PATH_SIZE];
  KP_TRY(kp_path_join(path, t->run, "config.yaml", error));
  if (kp_path_kind_of(path) != KP_PATH_FILE)
    return kp_fail(error, KP_ERR_INPUT, "there is no run %s to resume", t->run);
  KP_TRY(lock_run(t, error));
  KP_TRY(kp_directory_remove_temporaries(t->run, error));
  KP_TRY(kp_path_join(path, t->run, "checkpoints", error));
  return kp_path_kind_of(path) == KP_PATH_FOLDER ? kp_directory_remove_temporaries(path, error) : KP_OK;
}

static bool starts_from_run(const trainer *t) {
  return !t->options->resume && kp_config_string(t->config, "train.init")[0] != 0;
}

static kp_status read_config(trainer *t, kp_error *error) {
  if (t->options->resume) {
    char path[KP_PATH_SIZE];
    KP_TRY(kp_path_join(path, t->run, "config.yaml", error));
    KP_TRY(kp_config_load(path, kp_training_schema(), NULL, 0, &t->config, error));
  }
  KP_TRY(kp_initial_complete(t->config, error));
  KP_TRY(kp_train_settings_read(t->config, &t->settings, error));
  KP_TRY(kp_data_source_open(t->config, &t->data, error));
  if (!t->data.dialogue)
    KP_TRY(kp_train_settings_separate(t->config, t->data.separator, &t->settings, error));
  if (starts_from_run(t))
    KP_TRY(kp_initial_open(t->config, &t->data, t->options->backend, &t->source, error));
  KP_TRY(kp_model_options_read(t->config, &t->data.shape, &t->model, error));
  t->model.recompute = t->settings.recompute;
  t->model.lora = t->settings.lora;
  t->model.packed = t->data.dialogue || t->settings.packing != KP_PACKING_NONE;
  return KP_OK;
}

static kp_status open_data(trainer *t, kp_error *error) {
  KP_TRY(kp_feed_init(&t->feed, &t->data, &t->settings, &t->model, error));
  return kp_judge_init(&t->judge, t->config, &t->data, &t->model, t->settings.batch, error);
}

/* What the configuration left to the data and to other keys becomes a value of its own, so that the run's
 * configuration reads the same without them. */
static kp_status resolve_config(trainer *t, kp_error *error) {
  char assignment[64];
  snprintf(assignment, sizeof assignment, "model.vocabulary=%lld", (long long)t->model.vocabulary);
  KP_TRY(kp_config_set(t->config, assignment, error));
  if (t->feed.packed) {
    snprintf(assignment, sizeof assignment, "data.separator=%d", t->settings.separator);
    KP_TRY(kp_config_set(t->config, assignment, error));
  }
  if (t->feed.labelled) {
    snprintf(assignment, sizeof assignment, "model.classes=%lld", (long long)t->model.classes);
    KP_TRY(kp_config_set(t->config, assignment, error));
  }
  snprintf(assignment, sizeof assignment, "train.warmup=%lld", (long long)t->settings.schedule.warmup);
  return kp_config_set(t->config, assignment, error);
}

static kp_status write_config(trainer *t, kp_error *error) {
  char path[KP_PATH_SIZE], *text;
  size_t size;
  KP_TRY(resolve_config(t, error));
  KP_TRY(kp_config_text(t->config, &text, &size, error));
  kp_status status = kp_path_join(path, t->run, "config.yaml", error);
  if (status == KP_OK) status = kp_file_write_atomic(path, text, size, error);
  free(text);
  return status;
}

static kp_status write_description(trainer *t, kp_error *error) {
  char path[KP_PATH_SIZE], hash[32];
  struct utsname machine;
  uname(&machine);
  snprintf(hash, sizeof hash, "%016llx", (unsigned long long)kp_config_hash(t->config));
  kp_memory_plan memory = kp_engine_memory(t->engine, &t->settings.optimizer);
  json_t *json = json_pack(
      "{s:s, s:s, s:s, s:I, s:I, s:s, s:s, s:s, s:i, s:s, s:I, s:I, s:I}", "program", "kappa", "family",
      t->model.family->name, "config_hash", hash, "seed", (json_int_t)t->settings.seed, "parameters",
      (json_int_t)kp_parameters_elements(kp_engine_parameters(t->engine)), "system", machine.sysname,
      "machine", machine.machine, "backend", t->options->backend->name, "threads", t->threads, "data",
      t->data.folder, "training_tokens", (json_int_t)kp_tokens_count(t->data.train), "validation_tokens",
      (json_int_t)kp_tokens_count(t->data.validation), "planned_bytes", (json_int_t)memory.total);
  if (t->transfers.list != NULL)
    json_object_set_new(
        json, "init",
        json_pack("{s:s, s:I}", "run", t->transfers.run, "step", (json_int_t)t->transfers.step));
  kp_status status = kp_path_join(path, t->run, "run.json", error);
  if (status == KP_OK) status = kp_json_write_file(path, json, KP_JSON_DOUBLE_DIGITS, error);
  json_decref(json);
  if (status == KP_OK && t->feed.labelled)
    status = kp_labelling_write(t->run, &t->data.labelled.labelling, error);
  if (status != KP_OK || t->data.tokenizer == NULL) return status;
  KP_TRY(kp_path_join(path, t->run, KP_TOKENIZER_FILE, error));
  return kp_tokenizer_save(t->data.tokenizer, path, error);
}

/* The other run's parameters; they are the new run's own from here on. */
static kp_status take_parameters(trainer *t, kp_error *error) {
  kp_parameters *parameters = kp_engine_parameters(t->engine);
  KP_TRY(kp_initial_copy(&t->source, &t->data, &t->model, parameters, &t->transfers, error));
  kp_trained_close(&t->source);
  kp_parameters_retract_learned(parameters, t->threads);
  return KP_OK;
}

/* What a run needs to be gone on with: its configuration comes last. */
static kp_status write_new_run(trainer *t, kp_error *error) {
  KP_TRY(write_description(t, error));
  if (starts_from_run(t))
    KP_TRY(kp_checkpoint_write(t->run, kp_engine_parameters(t->engine), &t->state, t->settings.keep, error));
  return write_config(t, error);
}

static kp_status start_or_resume(trainer *t, kp_error *error) {
  kp_parameters *parameters = kp_engine_parameters(t->engine);
  t->state = (kp_run_state){
      .best_loss = HUGE_VAL, .best_validation = HUGE_VAL, .best_step = -1, .evaluated_step = -1};
  if (!t->options->resume) return write_new_run(t, error);
  int64_t step;
  if (kp_checkpoint_find(t->run, "last", &step, NULL) != KP_OK) {
    t->restarted = true; /* stopped before its first checkpoint */
    return KP_OK;
  }
  if (kp_checkpoint_read(t->run, step, parameters, &t->state, error) == KP_OK) {
    t->restarted = t->state.step == 0 && t->state.evaluated_step < 0; /* the start from another run */
    return kp_stepper_resume(t->stepper,
                             &(kp_step_outcome){.taken = t->state.adam_steps,
                                                .skipped = t->state.skipped,
                                                .skipped_in_a_row = t->state.skipped_in_a_row},
                             error);
  }
  return kp_context(error,
                    "cannot go on from step %lld; remove %s/checkpoints/step-%lld to go on from before it",
                    (long long)step, t->run, (long long)step);
}

static kp_status set_up(trainer *t, kp_error *error) {
  if (t->options->resume)
    KP_TRY(open_old_run(t, error));
  else
    KP_TRY(refuse_existing(t, error));
  KP_TRY(read_config(t, error));
  KP_TRY(open_data(t, error));
  KP_TRY(kp_engine_create_for(&t->model, &t->settings.learned, t->settings.batch, t->settings.seed,
                              t->options->backend, t->threads, &t->engine, error));
  KP_TRY(kp_stepper_create(kp_engine_parameters(t->engine), &t->settings.optimizer, t->threads, &t->stepper,
                           error));
  if (starts_from_run(t)) KP_TRY(take_parameters(t, error));
  if (!t->options->resume)
    KP_TRY(open_new_run(t, error)); /* only now: a wrong configuration leaves no folder behind */
  KP_TRY(start_or_resume(t, error));
  if (t->transfers.list != NULL && t->options->initialised != NULL)
    t->options->initialised(t->options->context, &t->transfers);
  return kp_metrics_open(t->run, t->restarted ? -1 : t->state.step, &t->metrics, error);
}

static void tear_down(trainer *t) {
  kp_metrics_close(&t->metrics);
  kp_stepper_destroy(t->stepper);
  kp_engine_destroy(t->engine);
  kp_trained_close(&t->source);
  kp_transfers_clear(&t->transfers);
  kp_model_options_destroy(&t->model);
  kp_data_source_close(&t->data);
  if (t->options->resume) kp_config_destroy(t->config);
  kp_feed_clear(&t->feed);
  kp_judge_clear(&t->judge);
  kp_lock_release(t->lock);
}

/* ---- a step ---- */

/* All micro-batches of the present step, from zero gradients. */
static kp_status accumulate(trainer *t, kp_error *error) {
  const int64_t micro = t->settings.accumulate;
  const double factor = kp_schedule_factor(&t->settings.schedule, t->state.step);
  KP_TRY(kp_stepper_begin(t->stepper, factor, t->settings.clip, error));
  for (int64_t m = 0; m < micro; m++) {
    const double weight = kp_feed_weight(&t->feed, t->state.step, m);
    KP_TRY(kp_feed_training(&t->feed, t->state.step, m, error));
    KP_TRY(kp_engine_accumulate(t->engine, &t->feed.batch, weight, (uint64_t)(t->state.step * micro + m),
                                error));
    KP_TRY(kp_stepper_add_loss(t->stepper, kp_engine_loss(t->engine), weight, error));
  }
  return KP_OK;
}

/* The gradient that is not finite, or else the largest: its parameter. */
static const kp_parameter *worst_gradient(const kp_parameters *parameters, double *worst) {
  const kp_parameter *found = NULL;
  double *gradient = malloc((size_t)parameters->total * sizeof *gradient);
  kp_assert(gradient != NULL, "out of memory for a copy of a gradient");
  *worst = -1;
  for (int p = 0; p < parameters->count; p++) {
    const kp_parameter *parameter = &parameters->list[p];
    if (!parameter->trainable || !parameter->used) continue;
    kp_parameters_read(parameters, parameters->gradients, p, gradient);
    for (int64_t i = 0; i < parameter->count; i++) {
      const double size = fabs(gradient[i]);
      if (size <= *worst) continue;
      found = parameter;
      *worst = size;
      if (!isfinite(size)) break;
    }
    if (!isfinite(*worst)) break;
  }
  free(gradient);
  return found;
}

/* Runs the last step again and stops at the first operator whose output is not finite. */
static kp_status explain(trainer *t, kp_error *error) {
  double worst;
  kp_executor *executor = kp_engine_executor(t->engine);
  t->state.step--;
  kp_executor_set_trap(executor, true);
  kp_gradient_zero(kp_engine_parameters(t->engine), t->threads);
  kp_status status = accumulate(t, error);
  kp_executor_set_trap(executor, false);
  t->state.step++;
  if (status != KP_OK) return status;
  const kp_parameter *parameter = worst_gradient(kp_engine_parameters(t->engine), &worst);
  return kp_fail(
      error, KP_ERR_NUMERIC,
      "each operator's output is finite, but not the norm of the gradients: the largest is %g, of %s", worst,
      parameter->name);
}

/* A step whose loss or gradient is not finite changed nothing and was counted.  Where one since the last
 * report came from is said in the next one; too many in a row end the run. */
static kp_status skipped(trainer *t, kp_progress *p, kp_error *error) {
  const long long step = (long long)t->state.step;
  if (t->state.skipped_in_a_row >= t->settings.skip_limit) {
    explain(t, error);
    return kp_context(
        error,
        "%lld steps in a row were not finite, the last being step %lld; try a smaller train.learning_rate",
        (long long)t->state.skipped_in_a_row, step);
  }
  if (p->reason != NULL) return KP_OK;
  p->reason = t->reason.message;
  if (t->state.skipped_in_a_row == 0) { /* on a device: some steps ago, and the batch is gone */
    kp_fail(&t->reason, KP_ERR_NUMERIC, "a step before step %lld was not finite", step);
    return KP_OK;
  }
  const kp_status status = explain(t, &t->reason);
  if (status != KP_ERR_NUMERIC) return kp_fail(error, status, "%s", t->reason.message);
  kp_context(&t->reason, "step %lld", step);
  kp_gradient_zero(kp_engine_parameters(t->engine), t->threads);
  return KP_OK;
}

/* How the steps went that were submitted since the last look; waits for a device. */
static kp_status look(trainer *t, kp_progress *p, kp_error *error) {
  kp_step_outcome outcome;
  KP_TRY(kp_stepper_outcome(t->stepper, &outcome, error));
  const double seconds = omp_get_wtime() - t->since;
  const bool new = outcome.skipped > t->state.skipped;
  p->loss = outcome.loss;
  p->gradient_norm = outcome.norm;
  p->step_ms = seconds * 1e3 / (double)(t->steps_now - t->steps_timed);
  t->state.seconds += seconds;
  t->seconds_now += seconds;
  t->steps_timed = t->steps_now;
  t->state.adam_steps = outcome.taken;
  t->state.skipped = outcome.skipped;
  t->state.skipped_in_a_row = outcome.skipped_in_a_row;
  return new ? skipped(t, p, error) : KP_OK;
}

static bool is_due(const trainer *t) {
  const int64_t step = t->state.step;
  return !kp_stepper_is_asynchronous(t->stepper) || step == t->settings.steps ||
         step % t->settings.log_every == 0 || step % t->settings.evaluate_every == 0 ||
         step % t->settings.checkpoint_every == 0 || (t->options->stop != NULL && *t->options->stop);
}

static kp_status train_step(trainer *t, kp_progress *p, kp_error *error) {
  if (t->steps_timed == t->steps_now) t->since = omp_get_wtime();
  p->learning_rate =
      t->settings.optimizer.adamw.learning_rate * kp_schedule_factor(&t->settings.schedule, t->state.step);
  KP_TRY(accumulate(t, error));
  KP_TRY(kp_stepper_submit(t->stepper, error));
  t->state.step++;
  t->state.tokens += t->settings.batch * t->settings.accumulate * t->model.context;
  t->steps_now++;
  p->step = t->state.step;
  if (is_due(t)) KP_TRY(look(t, p, error));
  return kp_engine_end_step(t->engine, t->state.skipped_in_a_row == 0, error);
}

/* ---- evaluation, checkpoints, progress ---- */

/* A model that was just drawn may score well by luck, and no checkpoint has it. */
static bool is_a_candidate(const trainer *t) {
  return t->state.step > 0 || t->judge.metric == KP_METRIC_LOSS ||
         kp_config_string(t->config, "train.init")[0] != 0;
}

static bool is_best(const trainer *t, const kp_progress *p, double loss) {
  if (!is_a_candidate(t)) return false;
  return loss < t->state.best_loss ||
         (loss == t->state.best_loss && p->validation_loss < t->state.best_validation);
}

static kp_status evaluate(trainer *t, kp_progress *p, kp_error *error) {
  KP_TRY(kp_judge_evaluate(&t->judge, t->engine, &t->feed, p, error));
  p->evaluated = true;
  p->bits_per_byte =
      t->data.bytes_per_token > 0 ? p->validation_loss / log(2) / t->data.bytes_per_token : (double)NAN;
  const double loss = kp_judge_loss(&t->judge, p);
  p->best = is_best(t, p, loss);
  t->state.evaluated_step = t->state.step;
  t->state.since_best = p->best || !is_a_candidate(t) ? 0 : t->state.since_best + 1;
  if (p->best) {
    t->state.best_loss = loss;
    t->state.best_validation = p->validation_loss;
    t->state.best_step = t->state.step;
  }
  return KP_OK;
}

static void complete_progress(const trainer *t, kp_progress *p) {
  const double tokens_per_step = (double)(t->settings.batch * t->settings.accumulate * t->model.context);
  p->step = t->state.step;
  p->steps = t->settings.steps;
  p->seconds = t->state.seconds;
  p->skipped = t->state.skipped;
  p->tokens_per_s =
      t->seconds_now > 0 ? tokens_per_step * (double)t->steps_timed / t->seconds_now : (double)NAN;
  p->seconds_left = t->steps_timed > 0
                        ? t->seconds_now / (double)t->steps_timed * (double)(p->steps - p->step)
                        : (double)NAN;
  p->resident_bytes = kp_resident_bytes();
  p->packed_share = t->feed.packed ? kp_packed_stream_efficiency(&t->feed.stream) : (double)NAN;
  p->boundary_share = t->steps_now > 0
                          ? kp_boundary_share(kp_engine_network(t->engine), kp_engine_executor(t->engine))
                          : (double)NAN;
}

static kp_status save(trainer *t, kp_error *error) {
  return kp_checkpoint_write(t->run, kp_engine_parameters(t->engine), &t->state, t->settings.keep, error);
}

/* What is due after a step (or before the first): evaluation, metrics, checkpoint. */
static kp_status after_step(trainer *t, kp_progress *p, kp_error *error) {
  const int64_t step = t->state.step;
  const bool last = step == t->settings.steps, first = t->steps_now == 0;
  const bool logged = !first && (step % t->settings.log_every == 0 || last);
  const bool due = step % t->settings.evaluate_every == 0 || last;
  p->evaluated = false;
  if (logged || due) complete_progress(t, p);
  if (logged) KP_TRY(kp_metrics_step(&t->metrics, p, error));
  if (due && t->state.evaluated_step != step) {
    KP_TRY(evaluate(t, p, error));
    KP_TRY(kp_metrics_evaluation(&t->metrics, p, t->state.tokens, kp_engine_evaluation_network(t->engine),
                                 kp_engine_evaluator(t->engine), error));
  }
  if (last || (p->evaluated && p->best && step > 0) || (step > 0 && step % t->settings.checkpoint_every == 0))
    KP_TRY(save(t, error));
  if (t->options->progress != NULL && (p->evaluated || (!first && step % t->settings.log_every == 0))) {
    t->options->progress(t->options->context, p);
    p->reason = NULL;
  }
  return KP_OK;
}

static kp_status interrupted(trainer *t, kp_progress *p, kp_error *error) {
  if (t->steps_timed < t->steps_now) KP_TRY(look(t, p, error));
  KP_TRY(save(t, error));
  return kp_fail(error, KP_ERR_INTERRUPTED,
                 "stopped after step %lld of %lld; go on with: kappa train --resume %s",
                 (long long)t->state.step, (long long)t->settings.steps, t->run);
}

static kp_status loop(trainer *t, kp_error *error) {
  kp_progress progress = {.loss = (double)NAN, .gradient_norm = (double)NAN};
  KP_TRY(after_step(t, &progress, error));
  while (t->state.step < t->settings.steps) {
    if (t->options->stop != NULL && *t->options->stop) return interrupted(t, &progress, error);
    if (t->settings.patience > 0 && t->state.since_best >= t->settings.patience) return save(t, error);
    KP_TRY(train_step(t, &progress, error));
    KP_TRY(after_step(t, &progress, error));
  }
  return KP_OK;
}

kp_status kp_train(kp_config *config, const char *run, const kp_train_options *options, kp_error *error) {
  trainer t = {
      .run = run, .options = options, .config = config, .threads = kp_thread_count(options->threads)};
  KP_TRY(kp_path_check(run, error));
  kp_status status = set_up(&t, error);
  if (status == KP_OK) status = loop(&t, error);
  tear_down(&t);
  return status;
}
