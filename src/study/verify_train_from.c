/* Cases of HELM's training: "train10_NAME" goes ten steps on from the parameters and the batch of the case
 * NAME beside it, with the published script's groups, schedule, clipping, Riemannian Adam and selection bias.
 * Of each of their parameters the case holds the norm and the sum at the end, of small ones all values. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "core/json_text.h"
#include "core/path.h"
#include "optim/stepper.h"
#include "study/verify_names.h"
#include "study/verify_subject.h"
#include "train/expert_load.h"
#include "train/settings.h"

typedef struct trial {
  const kp_case *c;
  kp_case source; /* the case with parameters and batch */
  kp_subject subject;
  kp_stepper *stepper;
  kp_expert_load load;
  double learning_rate, clip, decay;
  kp_schedule schedule;
  double *losses, *norms, *rates; /* (steps, 2), (steps), (steps) */
} trial;

/* One number of the case. */
static kp_status number(const kp_case *c, const char *name, double *value, kp_error *error) {
  double *values;
  int64_t count;
  KP_TRY(kp_case_values(c, name, false, &values, &count, error));
  if (count > 0) *value = values[0];
  free(values);
  return count == 1 ? KP_OK : kp_fail(error, KP_ERR_INPUT, "%s must be one number", name);
}

/* "…/train10_helm_mice_A" -> "…/helm_mice_A" */
static kp_status open_source(trial *t, kp_error *error) {
  const char *slash = strrchr(t->c->folder, '/'), *name = slash == NULL ? t->c->folder : slash + 1;
  const char *rest = strncmp(name, "train", 5) == 0 ? strchr(name, '_') : NULL;
  char folder[KP_PATH_SIZE], path[KP_PATH_SIZE];
  if (rest == NULL)
    return kp_fail(error, KP_ERR_INPUT,
                   "the case has no in/tokens, and is not called train<steps>_<case with the batch>");
  const int before = (int)(name - t->c->folder);
  if (snprintf(folder, sizeof folder, "%.*s%s", before, t->c->folder, rest + 1) >= (int)sizeof folder)
    return kp_fail(error, KP_ERR_INPUT, "the path is too long");
  t->source = *t->c;
  t->source.json = NULL;
  t->source.file = NULL;
  KP_TRY(kp_path_join(path, folder, "case.json", error));
  KP_TRY(kp_json_read_file(path, &t->source.json, error));
  KP_TRY(kp_path_join(path, folder, "tensors.safetensors", error));
  return kp_safetensors_open(path, &t->source.file, error);
}

static kp_status read_lists(trial *t, kp_error *error) {
  const int64_t steps = t->schedule.steps;
  int64_t losses, norms, rates;
  KP_TRY(kp_case_values(t->c, "out/losses", false, &t->losses, &losses, error));
  KP_TRY(kp_case_values(t->c, "out/grad_norm_before_clip", false, &t->norms, &norms, error));
  KP_TRY(kp_case_values(t->c, "out/lr", false, &t->rates, &rates, error));
  if (steps < 1 || losses != 2 * steps || norms != steps || rates != steps)
    return kp_fail(error, KP_ERR_INPUT, "losses, gradient norms and rates are not of cfg/steps steps");
  return KP_OK;
}

static kp_status prepare(trial *t, kp_error *error) {
  double steps = 0, warmup = 0;
  KP_TRY(open_source(t, error));
  KP_TRY(number(t->c, "cfg/steps", &steps, error));
  KP_TRY(number(t->c, "cfg/warmup", &warmup, error));
  KP_TRY(number(t->c, "cfg/lr", &t->learning_rate, error));
  KP_TRY(number(t->c, "cfg/clip", &t->clip, error));
  KP_TRY(number(t->c, "cfg/weight_decay", &t->decay, error));
  t->schedule = (kp_schedule){
      .kind = KP_SCHEDULE_HELM, .steps = (int64_t)steps, .warmup = (int64_t)warmup, .minimum = 0.1};
  KP_TRY(read_lists(t, error));
  KP_TRY(kp_subject_create(&t->source, t->c->backend, &t->subject, error));
  KP_TRY(kp_expert_load_init(&t->load, &t->subject.options, t->subject.network, t->c->backend, error));
  const kp_optimizer_options options = {.adamw = {.learning_rate = t->learning_rate,
                                                  .beta1 = 0.9,
                                                  .beta2 = 0.999,
                                                  .epsilon = 1e-8,
                                                  .weight_decay = t->decay,
                                                  .curvature_rate_multiplier = 1}};
  return kp_stepper_create(t->subject.parameters, &options, t->c->threads, &t->stepper, error);
}

static kp_status step(trial *t, int64_t k, kp_error *error) {
  const double tolerance = kp_case_is_double(t->c) ? 1e-8 : 1e-4;
  const kp_subject *s = &t->subject;
  const double factor = kp_schedule_factor(&t->schedule, k);
  kp_step_outcome outcome;
  double balance = 0;
  KP_TRY(kp_stepper_begin(t->stepper, factor, t->clip, error));
  KP_TRY(kp_subject_run(&t->subject, error));
  KP_TRY(kp_stepper_add_loss(t->stepper, kp_executor_memory(s->executor, s->network->loss), 1, error));
  if (s->network->balance != NULL) kp_executor_read(s->executor, s->network->balance, &balance);
  KP_TRY(kp_stepper_submit(t->stepper, error));
  KP_TRY(kp_stepper_outcome(t->stepper, &outcome, error));
  const long long name = (long long)k + 1;
  kp_case_check(t->c, fabs(outcome.loss - t->losses[2 * k]), tolerance, "loss of step %lld", name);
  kp_case_check(t->c, fabs(balance - t->losses[2 * k + 1]), tolerance, "balance loss of step %lld", name);
  kp_case_check(t->c, fabs(outcome.norm - t->norms[k]) / t->norms[k], tolerance, "gradient norm of step %lld",
                name);
  kp_case_check(t->c, fabs(t->learning_rate * factor - t->rates[k]), 1e-12, "rate of step %lld", name);
  KP_TRY(kp_expert_load_add(&t->load, s->executor, error));
  return kp_expert_load_balance(&t->load, s->parameters, error);
}

/* ---- the parameters at the end ---- */

/* Rounding moves a parameter that has no true gradient, or that nothing reads. */
static bool is_idle(const char *name) {
  const size_t length = strlen(name);
  const char *const end = "attn.bias";
  return strstr(name, "add_pos.") != NULL ||
         (length >= strlen(end) && strcmp(name + length - strlen(end), end) == 0);
}

static kp_status check_against(const trial *t, const char *kind, const char *name, double got, double scale,
                               kp_error *error) {
  char full[256];
  double want = 0;
  snprintf(full, sizeof full, "out/%s/%s", kind, name);
  KP_TRY(number(t->c, full, &want, error));
  kp_case_check(t->c, fabs(got - want) / fmax(scale, 1e-12), kp_case_is_double(t->c) ? 1e-6 : 1e-4, "%s",
                full);
  return KP_OK;
}

/* Norm and sum of their tensor `name`, and all values where the case has them. */
static kp_status check_final(trial *t, const char *name, kp_error *error) {
  char full[256];
  double *theirs, *want, square = 0, sum = 0;
  int64_t count, wanted;
  snprintf(full, sizeof full, "param/%s", name);
  KP_TRY(kp_case_values(&t->source, full, false, &theirs, &count, error));
  kp_status status =
      kp_case_theirs(&t->source, &t->subject.options, t->subject.parameters, name, theirs, count, error);
  for (int64_t i = 0; i < count; i++) {
    square += theirs[i] * theirs[i];
    sum += theirs[i];
  }
  const double norm = sqrt(square);
  if (status == KP_OK) status = check_against(t, "final_l2", name, norm, norm, error);
  if (status == KP_OK) status = check_against(t, "final_sum", name, sum, norm * sqrt((double)count), error);
  snprintf(full, sizeof full, "out/final/%s", name);
  if (status == KP_OK) status = kp_case_values(t->c, full, true, &want, &wanted, error);
  if (status == KP_OK && want != NULL) {
    kp_case_check(t->c, wanted == count ? kp_case_worst(theirs, want, count) / norm : HUGE_VAL,
                  kp_case_is_double(t->c) ? 1e-6 : 1e-4, "%s", full);
    free(want);
  }
  free(theirs);
  return status;
}

static kp_status run(trial *t, kp_error *error) {
  static const char *const prefix = "out/final_l2/";
  KP_TRY(prepare(t, error));
  for (int64_t k = 0; k < t->schedule.steps; k++) KP_TRY(step(t, k, error));
  for (size_t i = 0; i < kp_safetensors_count(t->c->file); i++) {
    const char *name = kp_safetensors_entry_at(t->c->file, i)->name;
    if (strncmp(name, prefix, strlen(prefix)) != 0 || is_idle(name + strlen(prefix))) continue;
    KP_TRY(check_final(t, name + strlen(prefix), error));
  }
  return KP_OK;
}

kp_status kp_verify_train_from(const kp_case *c, kp_error *error) {
  trial t = {.c = c};
  kp_status status = run(&t, error);
  kp_expert_load_destroy(&t.load);
  kp_stepper_destroy(t.stepper);
  kp_subject_destroy(&t.subject);
  kp_safetensors_close(t.source.file);
  json_decref(t.source.json);
  free(t.losses);
  free(t.norms);
  free(t.rates);
  return status;
}
