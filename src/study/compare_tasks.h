/* Tasks × models: what runs reach on tasks, over the seeds of each model.
 *
 * A run's results are those of `kappa eval` in its evaluations.jsonl, the last one of each task; of a
 * classifier or tagger without one for its own data, the last evaluation of training.
 *
 * Runs are of one model when the model sections of their configurations differ in nothing but what follows
 * from the task: task, context, vocabulary, classes, pooling.  Two runs of one model with one seed and a
 * result on the same task, which differ in training then, are kept apart. */
#ifndef KAPPA_STUDY_COMPARE_TASKS_H
#define KAPPA_STUDY_COMPARE_TASKS_H

#include "study/compare.h"

typedef struct kp_task_model {
  const char *name; /* the family, or where that does not tell models apart, the whole description */
  const kp_comparison_row *row; /* the first of its rows */
} kp_task_model;

typedef struct kp_task_score {
  const char *task;     /* "hellaswag, 5-shot", "sst2" */
  const char *metric;   /* "accuracy", "macro_f1", … */
  int64_t examples;     /* that were scored; -1: not known */
  double chance;        /* of an accuracy; NaN: not known */
  kp_statistic *models; /* over the runs of each model; without any where it has not been scored */
} kp_task_score;

typedef struct kp_task_table {
  kp_task_model *models;
  kp_task_score *scores;
  int model_count, score_count;
  kp_arena *arena; /* owns it all */
} kp_task_table;

/* `comparison` must outlive the table.  Runs without results make an empty table; a broken evaluations.jsonl
 * is an error.  Destroy with kp_task_table_destroy. */
kp_status kp_task_table_create(const kp_comparison *comparison, kp_task_table *table, kp_error *error);
void kp_task_table_destroy(kp_task_table *table);

/* A list of scores, each with its models; the caller's to release. */
json_t *kp_task_table_json(const kp_task_table *table);

#endif
