/* Multiple-choice questions, read from the files in which they are published.
 *
 * One JSON object a line (for MMLU also comma-separated values).  What an object is, its fields say:
 *
 *   query, choices, gold                          any task; gold counts from 0
 *   activity_label, ctx_a, ctx_b, endings, label  HellaSwag
 *   question {stem, choices [{label, text}]}, answerKey       ARC, OpenBookQA, CommonsenseQA as published
 *   question or question_stem, choices {label, text}, answerKey   the same on Hugging Face
 *   question, choices, answer, subject            MMLU
 *   goal, sol1, sol2, label                       PIQA; the labels may stand in a file of their own
 *   context, question, answerA, answerB, answerC, label   SocialIQA, likewise
 *
 * Files are UTF-8.  Whatever is wrong is an error that names file, line and field. */
#ifndef KAPPA_INFER_CHOICE_QUESTIONS_H
#define KAPPA_INFER_CHOICE_QUESTIONS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"

enum { KP_MAX_CHOICES = 26 }; /* a letter each */

/* Kinds of objects, as bits. */
typedef enum kp_choice_layout {
  KP_CHOICES_PLAIN = 1,
  KP_CHOICES_HELLASWAG = 2,
  KP_CHOICES_STEM = 4,
  KP_CHOICES_LISTS = 8,
  KP_CHOICES_SUBJECT = 16,
  KP_CHOICES_GOAL = 32,
  KP_CHOICES_SOCIAL = 64,
} kp_choice_layout;

typedef struct kp_question {
  char *text;
  char *subject; /* NULL: none */
  char *choices[KP_MAX_CHOICES];
  int count; /* of choices, at least 2 */
  int gold;  /* the right one; -1: not known */
} kp_question;

/* Zero-initialise; kp_questions_clear frees it. */
typedef struct kp_questions {
  kp_question *list;
  size_t count, capacity;
} kp_questions;

void kp_questions_clear(kp_questions *questions);

/* Adds the question of an object.  `layouts` are those that are expected. */
kp_status kp_questions_add(kp_questions *questions, const json_t *object, int layouts, kp_error *error);

/* Reads a file, decompressed where it is compressed (data/byte_source.h); of a task with subjects also a .csv
 * (kp_questions_parse_csv).  `labels` is that of the right choices, one number a line from `first_label` on,
 * or NULL. Every question must have a right choice. */
typedef struct kp_question_source {
  const char *path, *labels;
  int layouts, first_label;
} kp_question_source;

kp_status kp_questions_read(const kp_question_source *source, kp_questions *questions, kp_error *error);

/* The same for a text in memory, which messages call `name`. */
kp_status kp_questions_parse(const char *text, size_t size, const char *name, int layouts,
                             kp_questions *questions, kp_error *error);

/* MMLU as published: question, four choices and the letter of the right one, between commas, no header; the
 * subject is the name of the file ("college_law" of college_law_test.csv). */
kp_status kp_questions_parse_csv(const char *text, size_t size, const char *name, kp_questions *questions,
                                 kp_error *error);

#endif
