/* Runs side by side: what they reached, what it cost, and whether the comparison is fair. */
#ifndef KAPPA_STUDY_COMPARE_H
#define KAPPA_STUDY_COMPARE_H

#include <jansson.h>

#include "study/measures.h"
#include "study/statistics.h"
#include "study/twin.h"

/* Runs whose configurations differ in the seed alone. */
typedef struct kp_comparison_row {
  const kp_run_record **runs; /* in the order given; `count` of them */
  int count;
  char name[256]; /* of the first run, with "(+2)" when there are others */
  char model[160];
  double (*values)[KP_MEASURES];      /* of each run */
  kp_statistic measures[KP_MEASURES]; /* over the runs */
  kp_curvature_table curvature;       /* of all runs, from step 0 to the end */
  double parameters, planned_bytes;   /* of the first run */
  int twins[KP_TWINS]; /* the rows that this one is held against; -1: none, or this row is flat */
  int reference;       /* the row that step_ratio refers to: the twin, or the first */
  double step_ratio;
  kp_difference differences[KP_TWINS][KP_MEASURES]; /* from these rows, by Welch */
  /* Steps of the twin over the steps after which the mean loss of this row is the twin's final one; NaN when
   * it never is. */
  double twin_speed;
  kp_difference twin_paired; /* of the final loss, by seeds, where both rows have the same; else NaN */
} kp_comparison_row;

/* A key whose value is not the same in all rows; one text a row. */
typedef struct kp_comparison_key {
  const char *key;
  const char **values;
} kp_comparison_key;

typedef struct kp_comparison {
  kp_run_record *runs;
  int run_count;
  kp_comparison_row *rows;
  int row_count;
  kp_comparison_key *keys;
  int key_count;
  const char **warnings; /* sentences */
  int warning_count, warning_capacity;
  struct kp_task_table *tasks; /* study/compare_tasks.h */
  kp_arena *arena;             /* owns everything but the runs */
} kp_comparison;

/* What a difference from a twin allows to say: "lower", "higher", "cannot be told apart", "not known". */
const char *kp_verdict_words(const kp_difference *difference);

/* Reads the runs and compares them.  Destroy with kp_comparison_destroy. */
kp_status kp_comparison_create(const char *const *runs, size_t count, kp_comparison **comparison,
                               kp_error *error);
void kp_comparison_destroy(kp_comparison *comparison);

/* All of it; the caller's to release. */
json_t *kp_comparison_json(const kp_comparison *comparison);

/* Writes folder/comparison.json and, with `figures`, loss.png and .svg (losses over tokens and over seconds)
 * and, where a row has a twin, twins.png and .svg (differences from twins with their intervals). */
kp_status kp_comparison_write(const kp_comparison *comparison, const char *folder, bool figures,
                              kp_error *error);

#endif
