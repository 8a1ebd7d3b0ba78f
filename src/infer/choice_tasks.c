#define _POSIX_C_SOURCE 200809L /* open_memstream */

#include "infer/choice_tasks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/choice_text.h"

static const kp_choice_task tasks[] = {
    {.name = "hellaswag",
     .help = "which ending follows",
     .before = "",
     .after = "",
     .spare_example = true,
     .layouts = KP_CHOICES_PLAIN | KP_CHOICES_HELLASWAG},
    {.name = "arc_easy",
     .help = "school science",
     .before = "Question: ",
     .after = "\nAnswer:",
     .layouts = KP_CHOICES_PLAIN | KP_CHOICES_STEM | KP_CHOICES_LISTS},
    {.name = "arc_challenge",
     .help = "school science, what is harder",
     .before = "Question: ",
     .after = "\nAnswer:",
     .layouts = KP_CHOICES_PLAIN | KP_CHOICES_STEM | KP_CHOICES_LISTS},
    {.name = "openbookqa",
     .help = "elementary science",
     .before = "",
     .after = "",
     .layouts = KP_CHOICES_PLAIN | KP_CHOICES_STEM | KP_CHOICES_LISTS},
    {.name = "piqa",
     .help = "which of two ways works",
     .before = "Question: ",
     .after = "\nAnswer:",
     .dropped = "Goal: ",
     .spare_example = true,
     .layouts = KP_CHOICES_PLAIN | KP_CHOICES_GOAL},
    {.name = "social_iqa",
     .help = "people and what they do",
     .before = "Q: ",
     .after = "\nA:",
     .spare_example = true,
     .layouts = KP_CHOICES_PLAIN | KP_CHOICES_SOCIAL,
     .first_label = 1},
    {.name = "commonsense_qa",
     .help = "everyday knowledge; five choices by letter",
     .before = "Question: ",
     .after = "\nAnswer:",
     .letters = true,
     .strip = true,
     .spare_example = true,
     .layouts = KP_CHOICES_PLAIN | KP_CHOICES_STEM | KP_CHOICES_LISTS},
    {.name = "mmlu",
     .help = "57 subjects; four choices by letter",
     .before = "",
     .after = "\nAnswer:",
     .letters = true,
     .strip = true,
     .subjects = true,
     .first_examples = true,
     .layouts = KP_CHOICES_PLAIN | KP_CHOICES_SUBJECT},
};
enum { TASKS = sizeof tasks / sizeof *tasks };

const kp_choice_task *kp_choice_task_at(int index) {
  return index >= 0 && index < TASKS ? &tasks[index] : NULL;
}

kp_status kp_choice_task_find(const char *name, const kp_choice_task **task, kp_error *error) {
  char names[256] = "";
  for (int i = 0; i < TASKS; i++) {
    const size_t used = strlen(names);
    if (strcmp(tasks[i].name, name) == 0) {
      *task = &tasks[i];
      return KP_OK;
    }
    snprintf(names + used, sizeof names - used, "%s%s", i > 0 ? ", " : "", tasks[i].name);
  }
  return kp_fail(error, KP_ERR_INPUT, "there is no task '%s'; there are %s", name, names);
}

const char *kp_choice_answer(const kp_choice_task *task, const kp_question *question, int choice) {
  static const char letters[KP_MAX_CHOICES][2] = {"A", "B", "C", "D", "E", "F", "G", "H", "I",
                                                  "J", "K", "L", "M", "N", "O", "P", "Q", "R",
                                                  "S", "T", "U", "V", "W", "X", "Y", "Z"};
  return task->letters ? letters[choice] : question->choices[choice];
}

/* The question as it stands in a prompt, up to where the answer goes. */
static void write_question(FILE *out, const kp_choice_task *task, const kp_question *question) {
  const char *text = question->text;
  size_t size = strlen(text);
  if (task->dropped != NULL && strncmp(text, task->dropped, strlen(task->dropped)) == 0)
    text += strlen(task->dropped), size -= strlen(task->dropped);
  if (task->strip) text = kp_strip_text(text, &size);
  fputs(task->before, out);
  fwrite(text, 1, size, out);
  for (int c = 0; task->letters && c < question->count; c++)
    fprintf(out, "\n%s. %s", kp_choice_answer(task, question, c), question->choices[c]);
  fputs(task->after, out);
}

/* "abstract algebra" of abstract_algebra. */
static void write_header(FILE *out, const char *subject) {
  fputs("The following are multiple choice questions (with answers) about ", out);
  for (; *subject != 0; subject++) putc(*subject == '_' ? ' ' : *subject, out);
  fputs(".\n\n", out);
}

kp_status kp_choice_prompt(const kp_choice_task *task, const kp_question *question,
                           const kp_question *const *examples, int count, char **prompt, kp_error *error) {
  size_t size;
  *prompt = NULL;
  FILE *out = open_memstream(prompt, &size);
  if (out == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for a prompt");
  if (task->subjects && question->subject != NULL) write_header(out, question->subject);
  for (int i = 0; i < count; i++) {
    write_question(out, task, examples[i]);
    fprintf(out, " %s\n\n", kp_choice_answer(task, examples[i], examples[i]->gold));
  }
  write_question(out, task, question);
  const bool failed = ferror(out) != 0;
  if (fclose(out) == 0 && !failed) return KP_OK;
  free(*prompt);
  *prompt = NULL;
  return kp_fail(error, KP_ERR_MEMORY, "no memory for a prompt");
}
