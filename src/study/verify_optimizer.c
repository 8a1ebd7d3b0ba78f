/* Cases of optimizers on their own (Muon's iteration and steps, Riemannian Adam) and of learning-rate
 * schedules. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "optim/stepper.h"
#include "optim/orthogonalize.h"
#include "study/verify_private.h"
#include "train/settings.h"

/* ---- Newton and Schulz: cases NAME/G with NAME/ns5_f64 ---- */

/* x rounded to the backend's numbers, orthogonalized, and back. */
static void orthogonalize(const kp_case *c, double *x, int64_t rows, int64_t columns) {
  enum { STEPS = 5 };
  const bool wide = kp_case_is_double(c);
  const int64_t count = rows * columns;
  const size_t size = wide ? sizeof(double) : sizeof(float);
  void *scratch = malloc((size_t)kp_orthogonalize_scratch(rows, columns) * size);
  float *narrow = malloc((size_t)count * sizeof *narrow);
  kp_assert(scratch != NULL && narrow != NULL, "out of memory");
  for (int64_t i = 0; i < count; i++) narrow[i] = (float)x[i];
  kp_orthogonalize(wide ? (void *)x : (void *)narrow, wide, rows, columns, STEPS, scratch);
  for (int64_t i = 0; i < count && !wide; i++) x[i] = (double)narrow[i];
  free(scratch);
  free(narrow);
}

/* The tail amplifies the rounding of directions that the matrix hardly has, so those get more room. */
static double iteration_tolerance(const kp_case *c, const char *name) {
  if (kp_case_is_double(c)) return 1e-9;
  return strstr(name, "gauss") != NULL ? 2e-5 : 2e-3;
}

static kp_status verify_iteration(const kp_case *c, const kp_safetensors_entry *g, kp_error *error) {
  double *x = NULL, *want = NULL;
  int64_t count = 0;
  char name[96];
  const int length = (int)strlen(g->name) - 2; /* without "/G" */
  if (g->rank != 2) return kp_fail(error, KP_ERR_INPUT, "%s is no matrix", g->name);
  snprintf(name, sizeof name, "%.*s/ns5_f64", length, g->name);
  KP_TRY(kp_case_values(c, name, false, &want, &count, error));
  kp_status status = kp_case_values(c, g->name, false, &x, NULL, error);
  if (status == KP_OK && count != g->elements)
    status = kp_fail(error, KP_ERR_INPUT, "%s and %s differ in size", name, g->name);
  if (status == KP_OK) {
    orthogonalize(c, x, g->shape[0], g->shape[1]);
    kp_case_check(c, kp_case_worst(x, want, count), iteration_tolerance(c, name), "%s", name);
  }
  free(x);
  free(want);
  return status;
}

static kp_status verify_iterations(const kp_case *c, kp_error *error) {
  for (size_t i = 0; i < kp_safetensors_count(c->file); i++) {
    const kp_safetensors_entry *entry = kp_safetensors_entry_at(c->file, i);
    const size_t length = strlen(entry->name);
    if (length > 2 && strcmp(entry->name + length - 2, "/G") == 0) KP_TRY(verify_iteration(c, entry, error));
  }
  return KP_OK;
}

/* ---- steps on a table of parameters ---- */

/* Sets a buffer of one parameter from a tensor of the file. */
static kp_status set(const kp_case *c, kp_parameters *parameters, void *buffer, int index, const char *name,
                     kp_error *error) {
  double *values;
  int64_t count;
  KP_TRY(kp_case_values(c, name, false, &values, &count, error));
  const bool fits = count == parameters->list[index].count;
  if (fits) kp_parameters_write(parameters, buffer, index, values);
  free(values);
  return fits ? KP_OK : kp_fail(error, KP_ERR_INPUT, "tensor %s has another size than its parameter", name);
}

/* Compares a buffer with a tensor: the first `elements` of each row, relative to the largest where asked. */
static kp_status check(const kp_case *c, const kp_parameters *parameters, const void *buffer, int index,
                       int64_t elements, const char *name, bool relative, double tolerance, kp_error *error) {
  double *want;
  int64_t count;
  KP_TRY(kp_case_values(c, name, false, &want, &count, error));
  const kp_parameter *parameter = &parameters->list[index];
  const int64_t columns = parameter->shape[parameter->dimensions - 1];
  double *got = malloc((size_t)parameter->count * sizeof *got), worst = 0;
  kp_assert(got != NULL, "out of memory");
  kp_parameters_read(parameters, buffer, index, got);
  if (count == parameter->count)
    for (int64_t row = 0; row < count / columns; row++)
      worst = fmax(worst, kp_case_worst(got + row * columns, want + row * columns, elements));
  const double scale = relative ? fmax(kp_case_largest(want, count), 1e-30) : 1;
  kp_case_check(c, count == parameter->count ? worst / scale : HUGE_VAL, tolerance, "%s", name);
  free(got);
  free(want);
  return KP_OK;
}

/* ---- Muon: p0, p1, … with init, grad_stepS and after_stepS_f64 ---- */

enum { MUON_STEPS = 3 };

static kp_status add_matrices(const kp_case *c, kp_parameters *parameters, kp_error *error) {
  for (int p = 0;; p++) {
    char name[32], own[32];
    snprintf(name, sizeof name, "p%d/init", p);
    const kp_safetensors_entry *entry = kp_safetensors_find(c->file, name);
    if (entry == NULL) break;
    if (entry->rank != 2) return kp_fail(error, KP_ERR_INPUT, "%s is no matrix", name);
    snprintf(own, sizeof own, "p%d", p);
    kp_parameters_add(parameters, own, 2, entry->shape, (kp_initial){0}, KP_GROUP_DECAY, true);
  }
  KP_TRY(kp_parameters_allocate(parameters, c->backend, true, error));
  for (int p = 0; p < parameters->count; p++) {
    char name[32];
    snprintf(name, sizeof name, "p%d/init", p);
    KP_TRY(set(c, parameters, parameters->values, p, name, error));
  }
  return KP_OK;
}

static kp_status muon_steps(const kp_case *c, kp_parameters *parameters, kp_stepper *stepper,
                            kp_error *error) {
  const double tolerance = kp_case_is_double(c) ? 1e-9 : 1e-6;
  char name[64];
  for (int step = 0; step < MUON_STEPS; step++) {
    KP_TRY(kp_stepper_begin(stepper, 1, 0, error));
    for (int p = 0; p < parameters->count; p++) {
      snprintf(name, sizeof name, "p%d/grad_step%d", p, step);
      KP_TRY(set(c, parameters, parameters->gradients, p, name, error));
    }
    KP_TRY(kp_stepper_submit(stepper, error));
    for (int p = 0; p < parameters->count; p++) {
      snprintf(name, sizeof name, "p%d/after_step%d_f64", p, step);
      KP_TRY(check(c, parameters, parameters->values, p, parameters->list[p].shape[1], name, false, tolerance,
                   error));
    }
  }
  for (int p = 0; p < parameters->count; p++) {
    snprintf(name, sizeof name, "p%d/momentum_after", p); /* float32 in the file */
    KP_TRY(
        check(c, parameters, parameters->moment1, p, parameters->list[p].shape[1], name, true, 5e-7, error));
  }
  return KP_OK;
}

static kp_status verify_muon(const kp_case *c, kp_error *error) {
  const kp_optimizer_options options = {.kind = KP_OPTIMIZER_MUON,
                                        .muon = {.learning_rate = 0.02,
                                                 .momentum = 0.95,
                                                 .weight_decay = 0.1,
                                                 .nesterov = strstr(c->report->name, "nesterov") != NULL,
                                                 .steps = 5}};
  kp_parameters *parameters = kp_parameters_create();
  kp_stepper *stepper = NULL;
  kp_status status = add_matrices(c, parameters, error);
  if (status == KP_OK) status = kp_stepper_create(parameters, &options, c->threads, &stepper, error);
  if (status == KP_OK) status = muon_steps(c, parameters, stepper, error);
  kp_stepper_destroy(stepper);
  kp_parameters_destroy(parameters);
  return status;
}

/* ---- Riemannian Adam: param/p0, in/gradS, and out/pS, out/mS, out/vS after step S ---- */

/* The published transport goes through the distance of the two points, which for short steps is not resolved;
 * the closed form differs from it by 5e-7. */
static kp_status points_steps(const kp_case *c, kp_parameters *parameters, kp_stepper *stepper,
                              const double *rates, int64_t steps, kp_error *error) {
  const bool wide = kp_case_is_double(c);
  const int64_t columns = parameters->list[0].shape[1];
  char name[32];
  for (int64_t step = 0; step < steps; step++) {
    KP_TRY(kp_stepper_begin(stepper, rates[step], 0, error));
    snprintf(name, sizeof name, "in/grad%lld", (long long)step);
    KP_TRY(set(c, parameters, parameters->gradients, 0, name, error));
    KP_TRY(kp_stepper_submit(stepper, error));
    snprintf(name, sizeof name, "out/p%lld", (long long)step + 1);
    KP_TRY(check(c, parameters, parameters->values, 0, columns, name, true, wide ? 1e-7 : 5e-6, error));
    snprintf(name, sizeof name, "out/m%lld", (long long)step + 1);
    KP_TRY(check(c, parameters, parameters->moment1, 0, columns, name, true, wide ? 1e-6 : 1e-5, error));
    snprintf(name, sizeof name, "out/v%lld", (long long)step + 1); /* the same number in all columns */
    KP_TRY(check(c, parameters, parameters->moment2, 0, 1, name, true, wide ? 1e-6 : 5e-6, error));
  }
  return KP_OK;
}

static kp_status make_points(const kp_case *c, kp_parameters *parameters, kp_error *error) {
  const kp_safetensors_entry *points;
  double *c_value;
  KP_TRY(kp_safetensors_require(c->file, "param/p0", &points, error));
  if (points->rank != 2) return kp_fail(error, KP_ERR_INPUT, "param/p0 is no matrix");
  KP_TRY(kp_case_values(c, "cfg/c", false, &c_value, NULL, error));
  const int index =
      kp_parameters_add(parameters, "p0", 2, points->shape, (kp_initial){0}, KP_GROUP_TABLE, true);
  kp_parameters_set_manifold(parameters, index, KP_MANIFOLD_LORENTZ, -1 / *c_value);
  free(c_value);
  KP_TRY(kp_parameters_allocate(parameters, c->backend, true, error));
  return set(c, parameters, parameters->values, index, "param/p0", error);
}

static kp_status verify_points(const kp_case *c, kp_error *error) {
  const kp_optimizer_options options = {
      .adamw = {.learning_rate = 1, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8}};
  kp_parameters *parameters = kp_parameters_create();
  kp_stepper *stepper = NULL;
  double *rates = NULL;
  int64_t steps = 0;
  kp_status status = make_points(c, parameters, error);
  if (status == KP_OK) status = kp_case_values(c, "cfg/lr", false, &rates, &steps, error);
  if (status == KP_OK) status = kp_stepper_create(parameters, &options, c->threads, &stepper, error);
  if (status == KP_OK) status = points_steps(c, parameters, stepper, rates, steps, error);
  free(rates);
  kp_stepper_destroy(stepper);
  kp_parameters_destroy(parameters);
  return status;
}

kp_status kp_verify_optimizer(const kp_case *c, kp_error *error) {
  if (kp_safetensors_find(c->file, "param/p0") != NULL) return verify_points(c, error);
  if (kp_safetensors_find(c->file, "p0/init") != NULL) return verify_muon(c, error);
  return verify_iterations(c, error);
}

/* ---- schedules ---- */

static kp_status one_number(const kp_case *c, const char *name, double *number, kp_error *error) {
  double *values;
  int64_t count;
  KP_TRY(kp_case_values(c, name, false, &values, &count, error));
  if (count > 0) *number = values[0];
  free(values);
  return count == 1 ? KP_OK : kp_fail(error, KP_ERR_INPUT, "%s is not one number", name);
}

kp_status kp_verify_schedule(const kp_case *c, kp_error *error) {
  double steps = 0, warmup = 0, minimum = 0, *want, worst = 0;
  int64_t count;
  KP_TRY(one_number(c, "cfg/total", &steps, error));
  KP_TRY(one_number(c, "cfg/warmup", &warmup, error));
  KP_TRY(one_number(c, "cfg/min_lr_ratio", &minimum, error));
  KP_TRY(kp_case_values(c, "out/factor", false, &want, &count, error));
  const kp_schedule schedule = {
      .kind = KP_SCHEDULE_HELM, .steps = (int64_t)steps, .warmup = (int64_t)warmup, .minimum = minimum};
  for (int64_t step = 0; step < count; step++) {
    const double got = kp_schedule_factor(&schedule, step);
    worst = fmax(worst, kp_case_worst(&got, &want[step], 1));
  }
  free(want);
  kp_case_check(c, worst, 1e-12, "factors of %lld steps", (long long)count);
  return KP_OK;
}
