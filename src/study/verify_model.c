/* Cases of whole models: logits, loss and every gradient. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
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
  if (status == KP_OK) status = check_gradients(c, &s, error);
  kp_subject_destroy(&s);
  return status;
}
