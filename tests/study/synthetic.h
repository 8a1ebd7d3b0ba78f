/* Run folders with invented numbers. */
#ifndef KAPPA_TESTS_STUDY_SYNTHETIC_H
#define KAPPA_TESTS_STUDY_SYNTHETIC_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/config.h"
#include "core/directory.h"
#include "support/check.h"
#include "support/temporary.h"
#include "train/settings.h"

typedef struct synthetic {
  const char *name;
  const char *settings[16]; /* "key=value", closed by NULL */
  double loss;              /* at step 100; it is 4 more at step 0 and falls in a straight line */
  double step_ms;
  int steps;             /* done; 0: 100 */
  int training_tokens;   /* 0: 5000 */
  const char *curvature; /* JSON of every evaluation, or NULL */
} synthetic;

static inline void synthetic_write(const char *folder, const char *name, const char *text) {
  char path[KP_PATH_SIZE];
  kp_error error = {0};
  check_ok(kp_path_join(path, folder, name, &error), &error);
  temporary_write(path, text, strlen(text));
}

static inline void synthetic_metrics(const synthetic *run, const char *folder) {
  char text[16384] = "", curvature[256] = "";
  size_t length = 0;
  const int steps = run->steps > 0 ? run->steps : 100;
  if (run->curvature != NULL) snprintf(curvature, sizeof curvature, ",\"curvature\":%s", run->curvature);
  for (int step = 0; step <= steps; step += 5) {
    const double loss = run->loss + 4 - 0.04 * step, seconds = step * run->step_ms / 1000;
    if (step > 0)
      length +=
          (size_t)snprintf(text + length, sizeof text - length,
                           "{\"step\":%d,\"loss\":%.9f,\"gradient_norm\":1.0,\"learning_rate\":0.001,\"step_"
                           "ms\":%.9f,\"boundary_share\":0.25,\"tokens_per_s\":1.0,\"seconds\":%.9f,"
                           "\"skipped\":3}\n",
                           step, loss - 0.1, run->step_ms, seconds);
    if (step % 10 == 0)
      length += (size_t)snprintf(
          text + length, sizeof text - length,
          "{\"step\":%d,\"tokens\":%d,\"seconds\":%.9f,\"validation_loss\":%.9f,\"bits_per_byte\":%.9f%s}\n",
          step, step * 64, seconds, loss, loss * 2, curvature);
  }
  assert_true(length < sizeof text);
  synthetic_write(folder, "metrics.jsonl", text);
}

/* Writes the run into the test's temporary folder and returns its path. */
static inline const char *synthetic_run(void **state, const synthetic *run) {
  static const char base[] = "model: {layers: 2, heads: 2, width: 16, context: 16, vocabulary: 65}\n"
                             "data: {path: some/data}\n"
                             "train: {steps: 100, batch: 4, evaluate_every: 10}\n";
  const char *folder = temporary_path(state, run->name);
  kp_error error = {0};
  kp_config *config;
  char *text, description[512];
  size_t size, count = 0;
  while (run->settings[count] != NULL) count++;
  check_ok(kp_config_parse(base, sizeof base - 1, "base", kp_training_schema(), run->settings, count, &config,
                           &error),
           &error);
  check_ok(kp_config_text(config, &text, &size, &error), &error);
  check_ok(kp_directory_create(folder, &error), &error);
  synthetic_write(folder, "config.yaml", text);
  snprintf(
      description, sizeof description,
      "{\"parameters\": 1234567, \"training_tokens\": %d, \"validation_tokens\": 500, \"planned_bytes\": "
      "1048576, \"threads\": 2, \"backend\": \"cpu\", \"data\": \"some/data\"}",
      run->training_tokens > 0 ? run->training_tokens : 5000);
  synthetic_write(folder, "run.json", description);
  synthetic_metrics(run, folder);
  free(text);
  kp_config_destroy(config);
  return folder;
}

#endif
