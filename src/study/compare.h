/* Runs side by side: what they reached, what it cost, and whether the comparison is fair. */
#ifndef KAPPA_STUDY_COMPARE_H
#define KAPPA_STUDY_COMPARE_H

#include <jansson.h>

#include "study/run_record.h"

/* Of the runs of a row: mean and sample standard deviation (NaN for one run) of those whose value is known.
 */
typedef struct kp_statistic {
  double mean, spread;
  int count;
} kp_statistic;

/* Runs whose configurations differ in the seed alone. */
typedef struct kp_comparison_row {
  const kp_run_record **runs; /* in the order given; `count` of them */
  int count;
  char name[256]; /* of the first run, with "(+2)" when there are others */
  char model[160];
  kp_statistic final_loss, best_loss, quarter_loss; /* validation; at the last evaluation, the best, and a
                                                       quarter of the planned steps */
  kp_statistic bits_per_byte;                       /* at the last evaluation */
  kp_statistic best_step, steps, tokens, seconds, tokens_per_s, step_ms, boundary_share, skipped;
  double parameters, planned_bytes; /* of the first run */
  int twin;                         /* the row of the fair flat twin; -1: none, or this row is flat */
  int reference;                    /* the row that step_ratio refers to: the twin, or the first */
  double step_ratio;
  double twin_difference,
      twin_error;               /* final loss minus the twin's, and its standard error (NaN for one seed) */
  double twin_early_difference; /* of the loss at a quarter of the steps */
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
  kp_arena *arena; /* owns everything but the runs */
} kp_comparison;

/* Reads the runs and compares them.  Destroy with kp_comparison_destroy. */
kp_status kp_comparison_create(const char *const *runs, size_t count, kp_comparison **comparison,
                               kp_error *error);
void kp_comparison_destroy(kp_comparison *comparison);

/* All of it; the caller's to release. */
json_t *kp_comparison_json(const kp_comparison *comparison);

/* Writes folder/loss.png and .svg: losses over tokens and over seconds, and folder/comparison.json. */
kp_status kp_comparison_write(const kp_comparison *comparison, const char *folder, bool figures,
                              kp_error *error);

#endif
