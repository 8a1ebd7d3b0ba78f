/* Feeds hostile bytes to the readers of multiple-choice questions, in every layout, and makes prompts of what
 * they accept.  Accepted questions must keep what the headers promise. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "infer/choice_tasks.h"
#include "infer/choice_text.h"

static void check_question(const kp_choice_task *task, const kp_question *question) {
  kp_error error = {0};
  char *prompt;
  if (question->text == NULL || question->count < 2 || question->count > KP_MAX_CHOICES) abort();
  if (question->gold < -1 || question->gold >= question->count) abort();
  for (int c = 0; c < question->count; c++)
    if (question->choices[c] == NULL || kp_choice_answer(task, question, c) == NULL) abort();
  const int examples = question->gold >= 0 ? 2 : 0;
  if (kp_choice_prompt(task, question, (const kp_question *[]){question, question}, examples, &prompt,
                       &error) != KP_OK)
    abort();
  if (kp_trailing_space(prompt, strlen(prompt)) > strlen(prompt)) abort();
  free(prompt);
}

static void finish(const kp_choice_task *task, kp_status status, kp_questions *questions,
                   const kp_error *error) {
  if (status != KP_OK && error->message[0] == 0) abort();
  if (status == KP_OK && questions->count == 0) abort();
  for (size_t i = 0; i < questions->count; i++) check_question(task, &questions->list[i]);
  kp_questions_clear(questions);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  for (int t = 0; kp_choice_task_at(t) != NULL; t++) {
    const kp_choice_task *task = kp_choice_task_at(t);
    kp_error error = {0};
    kp_questions questions = {0};
    kp_status status =
        kp_questions_parse((const char *)data, size, "file", task->layouts, &questions, &error);
    finish(task, status, &questions, &error);
    if (!task->subjects) continue;
    error = (kp_error){0};
    status = kp_questions_parse_csv((const char *)data, size, "a/law_test.csv", &questions, &error);
    finish(task, status, &questions, &error);
  }
  return 0;
}
