/* Cases of training: a few steps on one batch, as the published training scripts have them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "optim/stepper.h"
#include "study/verify_subject.h"

/* What a family's script trains with, and where the parameters after a step are found. */
typedef struct recipe {
  const char *family;
  double learning_rate, beta2, weight_decay;
  double parameter_tolerance, float_tolerance;
} recipe;

static const recipe recipes[] = {
    {"mixed", 1e-3, 0.99, 0.1, 1e-7, 2e-5},
    {"gpt-no-geometry", 1e-3, 0.99, 0.1, 1e-7, 2e-5},
    {"ngpt", 15e-4, 0.95, 0, 1e-7, 1e-5},
};

static const recipe *recipe_of(const kp_case *c) {
  for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++)
    if (strcmp(recipes[i].family, c->report->family) == 0) return &recipes[i];
  return NULL;
}

/* A run of a case on its backend, beside the gradients of its first step in double.  Adam's first steps are
 * about as long for a tiny gradient as for a large one, so an element whose true gradient is below float32's
 * resolution of the largest (a key's bias, which softmax cancels) moves in a direction that rounding decides:
 * it is not compared in float32. */
typedef struct trial {
  const kp_case *c;
  const recipe *recipe;
  kp_subject subject, exact;
  kp_stepper *stepper;
  double *losses, *norms;
  int64_t steps;
} trial;

static double largest_element(const kp_subject *s) {
  return kp_case_largest(s->parameters->gradients, s->parameters->learned);
}

static kp_status check_parameter(trial *t, const kp_parameter *p, int index, const char *prefix,
                                 kp_error *error) {
  const bool wide = kp_case_is_double(t->c);
  const double resolution = wide ? 0 : 1e-6 * largest_element(&t->exact);
  const double *gradient = (const double *)t->exact.parameters->gradients + p->offset;
  double *want;
  KP_TRY(kp_subject_parameter(t->c, &t->subject, prefix, p, &want, error));
  if (want == NULL) return KP_OK;
  double *got = malloc((size_t)p->count * sizeof *got);
  kp_assert(got != NULL, "out of memory");
  kp_parameters_read(t->subject.parameters, t->subject.parameters->values, index, got);
  for (int64_t e = 0; e < p->count; e++)
    if (p->used && fabs(gradient[e]) < resolution) got[e] = want[e];
  kp_case_check(t->c, kp_case_worst(got, want, p->count),
                wide ? t->recipe->parameter_tolerance : t->recipe->float_tolerance, "%s%s", prefix, p->name);
  free(got);
  free(want);
  return KP_OK;
}

static kp_status check_parameters(trial *t, const char *prefix, kp_error *error) {
  const kp_parameters *parameters = t->subject.parameters;
  for (int i = 0; i < parameters->count; i++)
    KP_TRY(check_parameter(t, &parameters->list[i], i, prefix, error));
  return KP_OK;
}

static kp_status step(trial *t, int64_t number, kp_error *error) {
  const double clip = 1.0, tolerance = kp_case_is_double(t->c) ? 1e-8 : 1e-5;
  const double want = t->losses[number - 1], want_norm = t->norms[number - 1];
  const kp_subject *s = &t->subject;
  kp_step_outcome outcome;
  char prefix[32];
  KP_TRY(kp_stepper_begin(t->stepper, 1, clip, error));
  KP_TRY(kp_subject_run(&t->subject, error));
  KP_TRY(kp_stepper_add_loss(t->stepper, kp_executor_memory(s->executor, s->network->loss), 1, error));
  KP_TRY(kp_stepper_submit(t->stepper, error));
  KP_TRY(kp_stepper_outcome(t->stepper, &outcome, error));
  kp_case_check(t->c, fabs(outcome.loss - want) / fabs(want), tolerance, "loss of step %lld",
                (long long)number);
  kp_case_check(t->c, fabs(outcome.norm - want_norm) / want_norm, 10 * tolerance,
                "gradient norm of step %lld", (long long)number);
  snprintf(prefix, sizeof prefix, "after_step%lld/", (long long)number);
  return check_parameters(t, prefix, error);
}

static kp_status prepare(trial *t, kp_error *error) {
  const kp_optimizer_options options = {.adamw = {.learning_rate = t->recipe->learning_rate,
                                                  .beta1 = 0.9,
                                                  .beta2 = t->recipe->beta2,
                                                  .epsilon = 1e-8,
                                                  .weight_decay = t->recipe->weight_decay,
                                                  .curvature_rate_multiplier = 1}};
  int64_t norms = 0;
  KP_TRY(kp_subject_create(t->c, t->c->backend, &t->subject, error));
  KP_TRY(kp_subject_create(t->c, kp_backend_ref(), &t->exact, error));
  KP_TRY(kp_subject_run(&t->exact, error));
  KP_TRY(kp_case_values(t->c, "losses", false, &t->losses, &t->steps, error));
  KP_TRY(kp_case_values(t->c, "grad_norms", false, &t->norms, &norms, error));
  if (norms != t->steps) return kp_fail(error, KP_ERR_INPUT, "losses and grad_norms differ in length");
  return kp_stepper_create(t->subject.parameters, &options, t->c->threads, &t->stepper, error);
}

static kp_status run(trial *t, kp_error *error) {
  KP_TRY(prepare(t, error));
  for (int64_t number = 1; number <= t->steps; number++) KP_TRY(step(t, number, error));
  return check_parameters(t, "param_after/", error);
}

kp_status kp_verify_train(const kp_case *c, kp_error *error) {
  if (kp_safetensors_find(c->file, "in/tokens") == NULL) return kp_verify_train_from(c, error);
  trial t = {.c = c, .recipe = recipe_of(c)};
  if (t.recipe == NULL)
    return kp_fail(error, KP_ERR_UNSUPPORTED, "training of family \"%s\" is not verified", c->report->family);
  kp_status status = run(&t, error);
  free(t.losses);
  free(t.norms);
  kp_stepper_destroy(t.stepper);
  kp_subject_destroy(&t.exact);
  kp_subject_destroy(&t.subject);
  return status;
}
