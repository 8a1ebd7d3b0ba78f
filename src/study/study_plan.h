/* The plan of a study: which variants are trained on which texts with which seeds.
 *
 *   title: Does curvature help?
 *   about: One paragraph for the report.
 *   config: ../configs/demo_gpt.yaml     what variants start from, relative to this file
 *   set: [train.steps=1200]              for all
 *   seeds: [1, 2, 3]
 *   analyze: 8192                        validation tokens of each run's analysis; 0: none
 *   texts:                               one without settings where this is missing
 *     characters: [data.path=kjv_char]
 *   variants:
 *     gpt: []
 *     mixed: [model.family=mixed, "model.curvature.value=[-0.1]"]
 *     own: {config: own.yaml, set: [train.learning_rate=1e-3]}
 *
 * Settings are those of --set; later ones win: set, texts, variants, seed.
 * Names are letters, digits, - and _, since they name folders. */
#ifndef KAPPA_STUDY_STUDY_PLAN_H
#define KAPPA_STUDY_STUDY_PLAN_H

#include <stddef.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/config.h"
#include "core/path.h"

typedef struct kp_settings_list {
  const char **list;
  size_t count;
} kp_settings_list;

typedef struct kp_study_variant {
  const char *name;
  const char *config; /* path, or NULL: the plan's */
  kp_settings_list sets;
} kp_study_variant;

typedef struct kp_study_text {
  const char *name; /* "" for the only one of a plan without texts */
  kp_settings_list sets;
} kp_study_text;

typedef struct kp_study_plan {
  char path[KP_PATH_SIZE];
  const char *title, *about; /* may be "" */
  const char *config;        /* path, or NULL */
  kp_settings_list sets;
  int64_t *seeds;
  int seed_count;
  int64_t analyze;
  kp_study_text *texts;
  int text_count;
  kp_study_variant *variants;
  int variant_count;
  kp_arena *arena; /* owns everything */
} kp_study_plan;

/* Reads a plan.  Whatever is wrong is refused with file and line.  Close with kp_study_plan_close; on failure
 * there is nothing to close. */
kp_status kp_study_plan_open(const char *path, kp_study_plan *plan, kp_error *error);
void kp_study_plan_close(kp_study_plan *plan);

int kp_study_plan_runs(const kp_study_plan *plan);

/* Run `index` is text index / (variants · seeds), then variant, then seed.  Its folder is
 * runs/TEXT/VARIANT-SEED in the study's. */
typedef struct kp_study_run {
  const kp_study_text *text;
  const kp_study_variant *variant;
  int64_t seed;
} kp_study_run;

kp_study_run kp_study_plan_run(const kp_study_plan *plan, int index);
kp_status kp_study_run_folder(const kp_study_run *run, const char *study, char folder[KP_PATH_SIZE],
                              kp_error *error);
/* Its configuration, for the caller to destroy. */
kp_status kp_study_run_config(const kp_study_plan *plan, const kp_study_run *run, kp_config **config,
                              kp_error *error);

#endif
