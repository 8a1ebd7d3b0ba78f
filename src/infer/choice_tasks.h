/* The multiple-choice tasks: how a question becomes a prompt.
 *
 * Prompts are those of lm-evaluation-harness (EleutherAI), version 0.4:
 *
 *   header     of a task with subjects, once: "The following are ... about SUBJECT.\n\n"
 *   examples   for each: its prompt, a space, its right choice, "\n\n"
 *   prompt     before, the question, after; a task with letters lists the choices in between
 *
 * A choice is scored behind a space, and is its text, or its letter where the prompt lists the choices. */
#ifndef KAPPA_INFER_CHOICE_TASKS_H
#define KAPPA_INFER_CHOICE_TASKS_H

#include "infer/choice_questions.h"

typedef struct kp_choice_task {
  const char *name;
  const char *help;           /* one line */
  const char *before, *after; /* the question */
  const char *dropped;        /* in front of a question that has `before` in its own words; NULL: nothing */
  bool letters;               /* the prompt lists the choices */
  bool strip;                 /* white space around the question goes */
  bool subjects;              /* examples and header are those of a question's subject */
  bool first_examples;        /* examples are the first of their file; else they are drawn */
  bool spare_example;         /* one more is drawn than is needed, which the question's like gives way to */
  int layouts;                /* of its files: kp_choice_layout */
  int first_label;            /* of a file of labels */
} kp_choice_task;

const kp_choice_task *kp_choice_task_at(int index); /* NULL behind the last */
/* A task by its name; an unknown one is an error that lists the names. */
kp_status kp_choice_task_find(const char *name, const kp_choice_task **task, kp_error *error);

/* The prompt of a question behind `count` examples.  The caller frees *prompt. */
kp_status kp_choice_prompt(const kp_choice_task *task, const kp_question *question,
                           const kp_question *const *examples, int count, char **prompt, kp_error *error);

/* What stands for choice `choice` behind the prompt, without the space in front.  Lives as long as the
 * question. */
const char *kp_choice_answer(const kp_choice_task *task, const kp_question *question, int choice);

#endif
