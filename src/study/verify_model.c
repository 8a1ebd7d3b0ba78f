/* Cases of whole models and of their training. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "core/executor.h"
#include "data/batches.h"
#include "models/model.h"
#include "optim/optimizer.h"
#include "study/verify_names.h"
#include "study/verify_settings.h"

/* A case's model: options in the terms of the original project, one batch, and a graph that trains on it. */
typedef struct subject {
  kp_model_options options;
  kp_parameters *parameters;
  kp_network *network;
  kp_executor *executor;
  int64_t batch, length;
} subject;

static void clear(subject *s) {
  kp_executor_destroy(s->executor);
  kp_network_destroy(s->network);
  kp_parameters_destroy(s->parameters);
  kp_model_options_destroy(&s->options);
}

/* ---- parameters ---- */

/* Exact cases keep all curvatures in one tensor (L, G), called k: block l's is row l of it. */
static bool is_row_of_k(const kp_case *c, const kp_parameter *parameter, int64_t *layer) {
  long long number;
  char rest[32];
  if (sscanf(parameter->name, "transformer.h.%lld.%31s", &number, rest) != 2 ||
      strcmp(rest, "curvature") != 0)
    return false;
  *layer = number;
  return kp_safetensors_find(c->file, "param/k") != NULL;
}

/* The case's values of one parameter under `prefix` ("param/", "grad/", …); NULL when it has none. */
static kp_status case_parameter(const kp_case *c, const subject *s, const char *prefix,
                                const kp_parameter *parameter, double **values, kp_error *error) {
  char name[192];
  int64_t layer, count = 0;
  if (!is_row_of_k(c, parameter, &layer))
    return kp_case_parameter(c, prefix, &s->options, parameter, values, error);
  snprintf(name, sizeof name, "%sk", prefix);
  KP_TRY(kp_case_values(c, name, true, values, &count, error));
  if (*values == NULL) return KP_OK;
  if ((layer + 1) * parameter->count > count) {
    free(*values);
    return kp_fail(error, KP_ERR_INPUT, "tensor %s has %lld elements, too few for block %lld", name,
                   (long long)count, (long long)layer);
  }
  memmove(*values, *values + layer * parameter->count, (size_t)parameter->count * sizeof **values);
  return KP_OK;
}

static kp_status load_parameters(const kp_case *c, subject *s, kp_error *error) {
  for (int i = 0; i < s->parameters->count; i++) {
    const kp_parameter *parameter = &s->parameters->list[i];
    double *values;
    KP_TRY(case_parameter(c, s, "param/", parameter, &values, error));
    if (values == NULL) {
      if (!parameter->used) continue;
      return kp_fail(error, KP_ERR_INPUT, "tensors.safetensors has no param/%s", parameter->name);
    }
    kp_parameters_write(s->parameters, s->parameters->values, i, values);
    free(values);
  }
  return KP_OK;
}

static kp_status write_tokens(const kp_case *c, subject *s, const char *name, kp_tensor *tensor,
                              kp_error *error) {
  double *values;
  int64_t count;
  KP_TRY(kp_case_values(c, name, false, &values, &count, error));
  const json_t *ignored = json_object_get(c->json, "ignore_index");
  for (int64_t i = 0; i < count && tensor == s->network->targets; i++)
    if (json_is_integer(ignored) && values[i] == (double)json_integer_value(ignored)) values[i] = KP_IGNORE;
  if (count == kp_tensor_count(tensor)) kp_executor_write(s->executor, tensor, values);
  free(values);
  if (count == kp_tensor_count(tensor)) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "%s has %lld elements, not %lld", name, (long long)count,
                 (long long)kp_tensor_count(tensor));
}

static void write_positions(subject *s) {
  double *positions = malloc((size_t)(s->batch * s->length) * sizeof *positions);
  kp_assert(positions != NULL, "out of memory");
  for (int64_t i = 0; i < s->batch * s->length; i++) positions[i] = (double)(i % s->length);
  kp_executor_write(s->executor, s->network->positions, positions);
  free(positions);
  kp_executor_write(s->executor, s->network->seed, (double[]){1});
}

static kp_status create(const kp_case *c, const kp_backend *backend, subject *s, kp_error *error) {
  const kp_safetensors_entry *tokens;
  KP_TRY(kp_case_options(c, &s->options, error));
  KP_TRY(kp_safetensors_require(c->file, "in/tokens", &tokens, error));
  if (tokens->rank != 2 || tokens->elements < 1)
    return kp_fail(error, KP_ERR_INPUT, "in/tokens must be (B, T)");
  s->batch = tokens->shape[0];
  s->length = tokens->shape[1];
  s->parameters = kp_parameters_create();
  kp_build build = {.mode = KP_BUILD_TRAIN,
                    .batch = s->batch,
                    .length = s->length,
                    .keep_logits = true,
                    .documents = kp_safetensors_find(c->file, "in/documents") != NULL};
  KP_TRY(kp_network_create(&s->options, s->parameters, build, &s->network, error));
  KP_TRY(kp_parameters_allocate(s->parameters, backend, true, error));
  kp_executor_options options = {.threads = c->threads, .poison = true};
  KP_TRY(kp_executor_create(s->network->graph, backend, s->parameters, options, &s->executor, error));
  KP_TRY(load_parameters(c, s, error));
  KP_TRY(write_tokens(c, s, "in/tokens", s->network->tokens, error));
  KP_TRY(write_tokens(c, s, "in/targets", s->network->targets, error));
  if (build.documents) KP_TRY(write_tokens(c, s, "in/documents", s->network->documents, error));
  write_positions(s);
  return KP_OK;
}

static kp_status step(subject *s, kp_error *error) {
  kp_gradient_zero(s->parameters, 1);
  return kp_executor_run(s->executor, 0, s->network->graph->node_count, error);
}

/* ---- model cases ---- */

static kp_status check_outputs(const kp_case *c, subject *s, kp_error *error) {
  double *logits = NULL, *loss = NULL, got_loss;
  int64_t count;
  KP_TRY(kp_case_values(c, "out/logits", false, &logits, &count, error));
  double *got = malloc((size_t)(kp_tensor_count(s->network->logits) + 1) * sizeof *got);
  kp_assert(got != NULL, "out of memory");
  kp_executor_read(s->executor, s->network->logits, got);
  const double scale = kp_case_largest(logits, count);
  kp_case_check(c, kp_case_worst(got, logits, count) / scale, kp_case_tolerance(c, "logits", 5e-5), "logits");
  free(got);
  free(logits);
  KP_TRY(kp_case_values(c, "out/loss", false, &loss, NULL, error));
  kp_executor_read(s->executor, s->network->loss, &got_loss);
  kp_case_check(c, kp_case_worst(&got_loss, loss, 1) / fabs(*loss), kp_case_tolerance(c, "loss", 1e-5),
                "loss");
  free(loss);
  return KP_OK;
}

/* The largest gradient of all tensors: the scale that errors are measured by. */
static double largest_gradient(const kp_case *c) {
  double largest = 0;
  for (size_t i = 0; i < kp_safetensors_count(c->file); i++) {
    const kp_safetensors_entry *entry = kp_safetensors_entry_at(c->file, i);
    double *values;
    int64_t count;
    if (strncmp(entry->name, "grad/", 5) != 0) continue;
    if (kp_case_values(c, entry->name, false, &values, &count, NULL) != KP_OK) continue;
    largest = fmax(largest, kp_case_largest(values, count));
    free(values);
  }
  return largest;
}

static kp_status check_gradients(const kp_case *c, subject *s, kp_error *error) {
  const double scale = largest_gradient(c), tolerance = kp_case_tolerance(c, "grad", 5e-4);
  for (int i = 0; i < s->parameters->count; i++) {
    const kp_parameter *parameter = &s->parameters->list[i];
    double *want, *got = malloc((size_t)parameter->count * sizeof *got);
    kp_assert(got != NULL, "out of memory");
    kp_status status = case_parameter(c, s, "grad/", parameter, &want, error);
    if (status == KP_OK && want != NULL) {
      kp_parameters_read(s->parameters, s->parameters->gradients, i, got);
      kp_case_check(c, kp_case_worst(got, want, parameter->count) / scale, tolerance, "grad %s",
                    parameter->name);
    } else if (status == KP_OK && parameter->used) {
      kp_case_check(c, HUGE_VAL, tolerance, "grad %s (the case has none)", parameter->name);
    }
    free(want);
    free(got);
    KP_TRY(status);
  }
  return KP_OK;
}

kp_status kp_verify_model(const kp_case *c, kp_error *error) {
  subject s = {0};
  kp_status status = create(c, c->backend, &s, error);
  if (status == KP_OK) status = step(&s, error);
  if (status == KP_OK) status = check_outputs(c, &s, error);
  if (status == KP_OK) status = check_gradients(c, &s, error);
  clear(&s);
  return status;
}

/* ---- train cases: AdamW on one batch, as the published training script has it ---- */

/* The gradients of the first step in double, laid out as the flat buffers.  Adam's first steps are about as
 * long for a tiny gradient as for a large one, so an element whose true gradient is below float32's
 * resolution of the largest (a key's bias, which softmax cancels) moves in a direction that rounding decides:
 * it is not compared in float32. */
static kp_status first_gradients(const kp_case *c, subject *exact, kp_error *error) {
  KP_TRY(create(c, kp_backend_ref(), exact, error));
  return step(exact, error);
}

static double largest_element(const subject *s) {
  return kp_case_largest(s->parameters->gradients, s->parameters->total);
}

static kp_status check_parameters_after(const kp_case *c, subject *s, subject *exact, double tolerance,
                                        kp_error *error) {
  const double resolution = kp_case_is_double(c) ? 0 : 1e-6 * largest_element(exact);
  for (int i = 0; i < s->parameters->count; i++) {
    const kp_parameter *parameter = &s->parameters->list[i];
    const double *gradient = (const double *)exact->parameters->gradients + parameter->offset;
    double *want, *got = malloc((size_t)parameter->count * sizeof *got);
    kp_assert(got != NULL, "out of memory");
    kp_status status = case_parameter(c, s, "param_after/", parameter, &want, error);
    if (status == KP_OK && want != NULL) {
      kp_parameters_read(s->parameters, s->parameters->values, i, got);
      for (int64_t e = 0; e < parameter->count; e++)
        if (parameter->used && fabs(gradient[e]) < resolution) got[e] = want[e];
      kp_case_check(c, kp_case_worst(got, want, parameter->count), tolerance, "after %s", parameter->name);
    }
    free(want);
    free(got);
    KP_TRY(status);
  }
  return KP_OK;
}

static kp_status train(const kp_case *c, subject *s, kp_optimizer *optimizer, const double *losses,
                       const double *norms, int64_t steps, kp_error *error) {
  const double clip = 1.0, tolerance = kp_case_is_double(c) ? 1e-8 : 1e-5;
  for (int64_t t = 0; t < steps; t++) {
    double loss;
    KP_TRY(step(s, error));
    kp_executor_read(s->executor, s->network->loss, &loss);
    const double norm = kp_gradient_norm(s->parameters, c->threads);
    kp_case_check(c, fabs(loss - losses[t]) / fabs(losses[t]), tolerance, "loss of step %lld",
                  (long long)t + 1);
    kp_case_check(c, fabs(norm - norms[t]) / norms[t], 10 * tolerance, "gradient norm of step %lld",
                  (long long)t + 1);
    kp_optimizer_step(optimizer, t + 1, 1, norm > clip ? clip / (norm + 1e-6) : 1);
  }
  return KP_OK;
}

kp_status kp_verify_train(const kp_case *c, kp_error *error) {
  const kp_optimizer_options adamw = {.adamw = {.learning_rate = 1e-3,
                                                .beta1 = 0.9,
                                                .beta2 = 0.99,
                                                .epsilon = 1e-8,
                                                .weight_decay = 0.1,
                                                .curvature_rate_multiplier = 1}};
  subject s = {0}, exact = {0};
  kp_optimizer *optimizer = NULL;
  double *losses = NULL, *norms = NULL;
  int64_t steps = 0, norm_count = 0;
  kp_status status = create(c, c->backend, &s, error);
  if (status == KP_OK) status = kp_case_values(c, "losses", false, &losses, &steps, error);
  if (status == KP_OK) status = kp_case_values(c, "grad_norms", false, &norms, &norm_count, error);
  if (status == KP_OK && norm_count != steps)
    status = kp_fail(error, KP_ERR_INPUT, "losses and grad_norms differ in length");
  if (status == KP_OK) status = kp_optimizer_create(s.parameters, &adamw, c->threads, &optimizer, error);
  if (status == KP_OK) status = train(c, &s, optimizer, losses, norms, steps, error);
  if (status == KP_OK) status = first_gradients(c, &exact, error);
  if (status == KP_OK)
    status = check_parameters_after(c, &s, &exact, kp_case_is_double(c) ? 1e-7 : 2e-5, error);
  free(losses);
  free(norms);
  kp_optimizer_destroy(optimizer);
  clear(&exact);
  clear(&s);
  return status;
}
