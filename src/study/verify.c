#include "study/verify.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "core/json_text.h"
#include "core/path.h"
#include "study/verify_private.h"

kp_status kp_case_values(const kp_case *c, const char *name, bool optional, double **values, int64_t *count,
                         kp_error *error) {
  const kp_safetensors_entry *entry = kp_safetensors_find(c->file, name);
  *values = NULL;
  if (entry == NULL && optional) return KP_OK;
  KP_TRY(kp_safetensors_require(c->file, name, &entry, error));
  double *out = malloc((size_t)(entry->elements + 1) * sizeof *out);
  if (out == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for tensor %s", name);
  kp_status status = kp_safetensors_read(entry, KP_F64, out, error);
  if (status != KP_OK) {
    free(out);
    return status;
  }
  *values = out;
  if (count != NULL) *count = entry->elements;
  return KP_OK;
}

double kp_case_worst(const double *got, const double *want, int64_t count) {
  double worst = 0;
  for (int64_t i = 0; i < count; i++) {
    const double difference = fabs(got[i] - want[i]);
    if (!(difference <= worst)) worst = isnan(difference) ? HUGE_VAL : difference;
  }
  return worst;
}

double kp_case_largest(const double *values, int64_t count) {
  double largest = 0;
  for (int64_t i = 0; i < count; i++) largest = fmax(largest, fabs(values[i]));
  return largest;
}

void kp_case_check(const kp_case *c, double error, double tolerance, const char *format, ...) {
  kp_verify_report *report = c->report;
  kp_assert(report->count < KP_VERIFY_CHECKS, "more than %d checks in a case", KP_VERIFY_CHECKS);
  kp_verify_check *check = &report->checks[report->count++];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(check->name, sizeof check->name, format, arguments);
  va_end(arguments);
  check->error = error;
  check->tolerance = tolerance;
  if (!(error <= tolerance)) report->passed = false;
}

bool kp_case_is_double(const kp_case *c) {
  return c->backend->real_size == sizeof(double);
}

double kp_case_tolerance(const kp_case *c, const char *what, double fallback) {
  const json_t *tolerance = json_object_get(c->json, "tolerance");
  const json_t *value =
      json_object_get(json_object_get(tolerance, kp_case_is_double(c) ? "float64" : "float32"), what);
  return json_is_number(value) ? json_number_value(value) : fallback;
}

static void copy_text(char *out, size_t size, const json_t *json, const char *key) {
  const char *text = json_string_value(json_object_get(json, key));
  snprintf(out, size, "%s", text == NULL ? "" : text);
}

static kp_status run(const kp_case *c, kp_error *error) {
  kp_verify_report *report = c->report;
  copy_text(report->name, sizeof report->name, c->json, "case");
  copy_text(report->family, sizeof report->family, c->json, "family");
  copy_text(report->variant, sizeof report->variant, c->json, "variant");
  copy_text(report->kind, sizeof report->kind, c->json, "kind");
  if (strcmp(report->kind, "model") == 0) return kp_verify_model(c, error);
  if (strcmp(report->kind, "train") == 0) return kp_verify_train(c, error);
  if (strcmp(report->kind, "operator") == 0) return kp_verify_operator(c, error);
  if (strcmp(report->kind, "optimizer") == 0) return kp_verify_optimizer(c, error);
  if (strcmp(report->kind, "sched") == 0) return kp_verify_schedule(c, error);
  return kp_fail(error, KP_ERR_UNSUPPORTED, "kind \"%s\" is none of model, train, operator, optimizer, sched",
                 report->kind);
}

kp_status kp_verify_case(const char *folder, const kp_backend *backend, int threads, kp_verify_report *report,
                         kp_error *error) {
  char path[KP_PATH_SIZE];
  kp_case c = {.folder = folder, .backend = backend, .threads = kp_thread_count(threads), .report = report};
  memset(report, 0, sizeof *report);
  report->passed = true;
  KP_TRY(kp_path_join(path, folder, "case.json", error));
  KP_TRY(kp_json_read_file(path, &c.json, error));
  kp_status status = kp_path_join(path, folder, "tensors.safetensors", error);
  if (status == KP_OK) status = kp_safetensors_open(path, &c.file, error);
  if (status == KP_OK) status = run(&c, error);
  if (status != KP_OK) kp_context(error, "%s", folder);
  kp_safetensors_close(c.file);
  json_decref(c.json);
  return status;
}
