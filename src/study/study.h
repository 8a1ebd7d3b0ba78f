/* A study: all runs of a plan trained one after another, analyzed, compared, and put into words.
 *
 * In its folder:
 *
 *   runs/TEXT/VARIANT-SEED/    the runs, each with analysis/analysis.json
 *   comparison/TEXT/           comparison.json, loss.png, twins.png, … of one text
 *   study.json                 the plan's words, all comparisons, all claims with what came of them
 *   table.md                   the same for readers; every sentence follows from numbers by rules that it
 * states
 *
 * A study that was stopped goes on where it was: finished runs are skipped, an
 * unfinished one is resumed.  A run in the folder whose configuration is no
 * longer that of the plan is refused, never mixed in. */
#ifndef KAPPA_STUDY_STUDY_H
#define KAPPA_STUDY_STUDY_H

#include <signal.h>

#include "core/backend.h"
#include "study/study_plan.h"
#include "train/trainer.h"

typedef enum kp_study_event {
  KP_STUDY_SKIPPED,  /* the run was finished before */
  KP_STUDY_BEGINS,   /* its training begins or goes on */
  KP_STUDY_TRAINS,   /* `training` has news */
  KP_STUDY_ANALYZES, /* it is trained */
} kp_study_event;

typedef struct kp_study_progress {
  kp_study_event event;
  kp_study_run run;
  int index, count;            /* of runs; from 0 */
  const kp_progress *training; /* while it trains */
  double seconds_left;         /* of the whole study, from what it has done; NaN at first */
} kp_study_progress;

typedef struct kp_study_options {
  const kp_backend *backend;
  int threads; /* 0: all */
  bool figures;
  void (*progress)(void *context, const kp_study_progress *progress);
  void *context;
  const volatile sig_atomic_t *stop; /* as of kp_train_options */
} kp_study_options;

/* Trains and analyzes what is missing. */
kp_status kp_study_train(const kp_study_plan *plan, const char *folder, const kp_study_options *options,
                         kp_error *error);

/* Compares the runs and writes all files but the runs. */
kp_status kp_study_report(const kp_study_plan *plan, const char *folder, const kp_study_options *options,
                          kp_error *error);

#endif
