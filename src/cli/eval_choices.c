/* kappa eval --task: multiple choice. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/eval.h"
#include "core/atomic_file.h"
#include "core/json_text.h"
#include "infer/multiple_choice.h"

/* p above which an accuracy is said not to differ from chance. */
#define LEVEL 0.05

static void show_progress(void *context, int64_t done, int64_t rows) {
  kp_progress_line *line = context;
  if (!kp_progress_line_open(line)) return;
  fprintf(stderr, "choice %lld/%lld", (long long)done, (long long)rows);
  kp_progress_line_close(line, done, rows);
}

/* ---- words ---- */

static void print_accuracy(const char *name, double value, double deviation, double chance, double p) {
  printf("%-10s %.4f", name, value);
  if (!isnan(deviation)) printf(" ± %.4f", deviation);
  if (p <= LEVEL && value < chance)
    printf("   below chance (p = %.2g): what the model prefers is rarely right", p);
  else if (p > LEVEL)
    printf("   cannot be told from chance (p = %.2g by an exact binomial test, level %g)", p, LEVEL);
  putchar('\n');
}

static void print_words(const kp_eval_arguments *a, const kp_trained *trained, const kp_choice_task *task,
                        const kp_choice_report *r) {
  printf("%s, step %lld: %s, %zu questions, %lld-shot\n", a->run, (long long)trained->step, task->name,
         r->questions, a->shots);
  print_accuracy("acc", r->accuracy, r->accuracy_error, r->chance, r->p);
  if (!task->letters)
    print_accuracy("acc_norm", r->accuracy_norm, r->accuracy_norm_error, r->chance, r->p_norm);
  printf("%-10s %.4f\n", "chance", r->chance);
  if (r->cut > 0)
    printf("%zu of %zu questions were longer than the context of %lld tokens and lost their beginning\n",
           r->cut, r->questions, (long long)trained->options.context);
}

static json_t *result_of(const kp_eval_arguments *a, const kp_trained *trained, const kp_choice_task *task,
                         const kp_choice_report *r) {
  return json_pack(
      "{s:s, s:I, s:s, s:s, s:s, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "run", a->run,
      "step", (json_int_t)trained->step, "backend", a->backend->name, "task", task->name, "data", a->data,
      "shots", (json_int_t)a->shots, "questions", (json_int_t)r->questions, "cut", (json_int_t)r->cut,
      "accuracy", kp_json_number(r->accuracy), "accuracy_error", kp_json_number(r->accuracy_error),
      "accuracy_norm", kp_json_number(r->accuracy_norm), "accuracy_norm_error",
      kp_json_number(r->accuracy_norm_error), "accuracy_bytes", kp_json_number(r->accuracy_bytes),
      "accuracy_bytes_error", kp_json_number(r->accuracy_bytes_error), "chance", kp_json_number(r->chance),
      "p", kp_json_number(r->p), "p_norm", kp_json_number(r->p_norm));
}

/* ---- details ---- */

static json_t *detail_of(const kp_question *question, const kp_choice_result *r, size_t number) {
  json_t *scores = json_array();
  for (int c = 0; c < r->count; c++) json_array_append_new(scores, kp_json_number(r->scores[c]));
  return json_pack("{s:I, s:s, s:o, s:i, s:i, s:i, s:i, s:b}", "question", (json_int_t)number, "text",
                   question->text, "log_likelihoods", scores, "gold", r->gold, "chosen", r->chosen,
                   "chosen_norm", r->chosen_norm, "chosen_bytes", r->chosen_bytes, "cut", r->cut);
}

static kp_status write_details(const char *path, const kp_questions *questions,
                               const kp_choice_result *results, size_t count, kp_error *error) {
  kp_atomic_file *file;
  KP_TRY(kp_atomic_file_open(path, &file, error));
  kp_status status = KP_OK;
  for (size_t i = 0; status == KP_OK && i < count; i++) {
    json_t *detail = detail_of(&questions->list[i], &results[i], i + 1);
    char *line = detail == NULL ? NULL : json_dumps(detail, JSON_COMPACT | JSON_REAL_PRECISION(17));
    status = line == NULL ? kp_fail(error, KP_ERR_MEMORY, "no memory for the scores of a question") : KP_OK;
    if (status == KP_OK) status = kp_atomic_file_write(file, line, strlen(line), error);
    if (status == KP_OK) status = kp_atomic_file_write(file, "\n", 1, error);
    free(line);
    json_decref(detail);
  }
  if (status == KP_OK) return kp_atomic_file_commit(file, error);
  kp_atomic_file_abort(file);
  return status;
}

/* ---- scoring ---- */

static kp_status report(const kp_eval_arguments *a, const kp_trained *trained, const kp_choice_task *task,
                        const kp_questions *questions, const kp_choice_result *results, size_t count,
                        kp_error *error) {
  kp_choice_report r;
  KP_TRY(kp_choice_report_of(results, count, &r, error));
  if (a->details != NULL) KP_TRY(write_details(a->details, questions, results, count, error));
  if (!a->json) print_words(a, trained, task, &r);
  return kp_eval_finish(a, trained, result_of(a, trained, task, &r), error);
}

static kp_status score(const kp_eval_arguments *a, const kp_trained *trained, const kp_choice_task *task,
                       const kp_questions *questions, const kp_questions *examples, kp_error *error) {
  const size_t limit = (size_t)a->questions;
  const size_t count = limit > 0 && limit < questions->count ? limit : questions->count;
  kp_progress_line line = kp_progress_line_begin();
  const kp_choice_options options = {
      .task = task,
      .examples = examples,
      .shots = (int)a->shots,
      .seed = (uint64_t)a->seed,
      .limit = count,
      .likelihood = {.threads = a->options.threads, .progress = show_progress, .context = &line}};
  kp_choice_result *results = calloc(count, sizeof *results);
  if (results == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %zu questions", count);
  kp_status status = kp_multiple_choice(trained, questions, &options, results, error);
  kp_progress_line_end(&line);
  if (status == KP_OK) status = report(a, trained, task, questions, results, count, error);
  free(results);
  return status;
}

kp_status kp_eval_choices(const kp_eval_arguments *a, const kp_trained *trained, kp_error *error) {
  const kp_choice_task *task;
  kp_questions questions, examples = {0};
  KP_TRY(kp_choice_task_find(a->task, &task, error));
  const kp_question_source source = {
      .path = a->data, .labels = a->labels, .layouts = task->layouts, .first_label = task->first_label};
  const kp_question_source shown = {.path = a->examples, .layouts = task->layouts};
  KP_TRY(kp_questions_read(&source, &questions, error));
  kp_status status = a->examples != NULL ? kp_questions_read(&shown, &examples, error) : KP_OK;
  if (status == KP_OK)
    status = score(a, trained, task, &questions, a->examples != NULL ? &examples : NULL, error);
  kp_questions_clear(&questions);
  kp_questions_clear(&examples);
  return status;
}
