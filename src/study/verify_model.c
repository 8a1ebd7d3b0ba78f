/* Cases of whole models: logits, loss and every gradient. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "models/balance.h"
#include "study/verify_subject.h"

static kp_status check_outputs(const kp_case *c, kp_subject *s, kp_error *error) {
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
  kp_executor_read(s->executor, s->network->objective, &got_loss);
  kp_case_check(c, kp_case_worst(&got_loss, loss, 1) / fabs(*loss), kp_case_tolerance(c, "loss", 1e-5),
                "loss");
  free(loss);
  return KP_OK;
}

static double *allocate(int64_t count) {
  double *values = malloc((size_t)(count + 1) * sizeof *values);
  kp_assert(values != NULL, "out of memory");
  return values;
}

/* A router's result beside the case's, where it has one. */
static kp_status check_route(const kp_case *c, const char *name, const double *got, int64_t count,
                             double tolerance, kp_error *error) {
  double *want;
  int64_t found;
  KP_TRY(kp_case_values(c, name, true, &want, &found, error));
  if (want == NULL) return KP_OK;
  if (found == count) kp_case_check(c, kp_case_worst(got, want, count), tolerance, "%s", name);
  free(want);
  if (found == count) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "%s has %lld elements, not %lld", name, (long long)found,
                 (long long)count);
}

/* Counts are exact; so is the selection bias after them, but for the parameters' precision. */
static kp_status check_routes(const kp_case *c, kp_subject *s, kp_error *error) {
  const double tolerance = kp_case_is_double(c) ? 1e-9 : 1e-5;
  const kp_expert_options *e = &s->options.experts;
  for (int layer = 0; layer < s->network->layers; layer++) {
    const kp_route_record *route = &s->network->routes[layer];
    char name[64];
    if (route->counts == NULL) continue;
    double *counts = allocate(e->routed), *bias = allocate(e->routed);
    double *scores = allocate(kp_tensor_count(route->scores));
    kp_executor_read(s->executor, route->counts, counts);
    kp_executor_read(s->executor, route->scores, scores);
    kp_parameters_read(s->parameters, s->parameters->values, route->bias, bias);
    kp_balance_update(bias, counts, e->routed, e->balance_rate, e->balance_rule);
    snprintf(name, sizeof name, "out/layer%d_counts", layer);
    kp_status status = check_route(c, name, counts, e->routed, 0, error);
    snprintf(name, sizeof name, "out/layer%d_new_gate_bias", layer);
    if (status == KP_OK) status = check_route(c, name, bias, e->routed, tolerance, error);
    snprintf(name, sizeof name, "out/layer%d_scores", layer);
    if (status == KP_OK)
      status = check_route(c, name, scores, kp_tensor_count(route->scores), tolerance, error);
    free(counts);
    free(bias);
    free(scores);
    KP_TRY(status);
  }
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

static kp_status check_gradients(const kp_case *c, kp_subject *s, kp_error *error) {
  const double scale = largest_gradient(c), tolerance = kp_case_tolerance(c, "grad", 5e-4);
  for (int i = 0; i < s->parameters->count; i++) {
    const kp_parameter *parameter = &s->parameters->list[i];
    double *want, *got = malloc((size_t)parameter->count * sizeof *got);
    kp_assert(got != NULL, "out of memory");
    kp_status status = kp_subject_parameter(c, s, "grad/", parameter, &want, error);
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
  kp_subject s = {0};
  kp_status status = kp_subject_create(c, c->backend, &s, error);
  if (status == KP_OK) status = kp_subject_run(&s, error);
  if (status == KP_OK) status = check_outputs(c, &s, error);
  if (status == KP_OK) status = check_routes(c, &s, error);
  if (status == KP_OK) status = check_gradients(c, &s, error);
  kp_subject_destroy(&s);
  return status;
}
