/* What the evaluations share: progress, and what is kept of a result. */
#define _POSIX_C_SOURCE 200809L /* gmtime_r */

#include <stdio.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/eval.h"
#include "core/json_text.h"

#define EVALUATIONS_FILE "evaluations.jsonl"

kp_progress_line kp_progress_line_begin(void) {
  const time_t now = time(NULL);
  return (kp_progress_line){.start = now, .last = now, .terminal = isatty(STDERR_FILENO)};
}

bool kp_progress_line_open(kp_progress_line *line) {
  const time_t now = time(NULL);
  if (now - line->last < (line->terminal ? 1 : 10)) return false;
  line->last = now;
  line->shown = true;
  if (line->terminal) fputs("\r\033[K", stderr);
  return true;
}

void kp_progress_line_close(const kp_progress_line *line, int64_t done, int64_t all) {
  char left[32];
  const double seconds = difftime(line->last, line->start) / (double)done * (double)(all - done);
  fprintf(stderr, "  %s left%s", kp_duration_text(seconds, left), line->terminal ? "" : "\n");
}

void kp_progress_line_end(const kp_progress_line *line) {
  if (line->shown && line->terminal) fputs("\r\033[K", stderr);
}

void kp_eval_show_batches(void *context, int64_t done, int64_t batches, double loss) {
  kp_progress_line *line = context;
  if (!kp_progress_line_open(line)) return;
  fprintf(stderr, "batch %lld/%lld  loss %.4f", (long long)done, (long long)batches, loss);
  kp_progress_line_close(line, done, batches);
}

kp_status kp_eval_open_text(const kp_eval_arguments *a, const kp_trained *trained, kp_tokens **tokens,
                            kp_error *error) {
  if (a->file != NULL) return kp_evaluation_text_open(trained, a->file, tokens, error);
  return kp_evaluation_data_open(trained, a->data, tokens, error);
}

/* The time of the evaluation, as run.json writes times. */
static void add_time(json_t *result) {
  char text[32];
  const time_t now = time(NULL);
  struct tm utc;
  if (gmtime_r(&now, &utc) == NULL || strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc) == 0) return;
  json_object_set_new(result, "time", json_string(text));
}

kp_status kp_eval_finish(const kp_eval_arguments *a, const kp_trained *trained, json_t *result,
                         kp_error *error) {
  char path[KP_PATH_SIZE];
  if (result == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for the result");
  add_time(result);
  /* The scores are worth having although the folder of the run may be somebody else's. */
  kp_error fault = {0};
  if (kp_path_join(path, trained->run, EVALUATIONS_FILE, &fault) != KP_OK ||
      kp_jsonl_append(path, result, KP_JSON_DOUBLE_DIGITS, &fault) != KP_OK)
    fprintf(stderr, "kappa: note: the result is not kept: %s\n", fault.message);
  if (a->json)
    kp_print_json_doubles(result);
  else
    json_decref(result);
  return KP_OK;
}
