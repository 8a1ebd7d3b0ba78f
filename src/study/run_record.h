/* What a run wrote about itself, read for studies: configuration, description and metrics.  No parameters
 * are opened, so a run that is still training can be read, too. */
#ifndef KAPPA_STUDY_RUN_RECORD_H
#define KAPPA_STUDY_RUN_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "core/config.h"
#include "core/config_yaml.h"
#include "core/path.h"
#include "models/model.h"

/* A line of metrics after training steps; what is not known is NaN. */
typedef struct kp_step_line {
  double step, loss, gradient_norm, learning_rate, step_ms, boundary_share, tokens_per_s, seconds, skipped;
} kp_step_line;

/* Where a model has curvatures. */
typedef enum kp_place { KP_PLACE_STREAM, KP_PLACE_HEADS, KP_PLACE_EXPERTS, KP_PLACES } kp_place;

/* "stream", "heads", "experts". */
const char *kp_place_name(kp_place place);

/* A line of metrics of an evaluation. */
typedef struct kp_evaluation_line {
  double step, tokens, seconds, validation_loss, bits_per_byte;
  double accuracy, macro_f1, entity_f1; /* of classifiers and taggers, else NaN */
  const double *curvature[KP_PLACES];   /* κ (layers, groups) in order, NaN in blocks without, or NULL */
} kp_evaluation_line;

typedef struct kp_run_record {
  char path[KP_PATH_SIZE]; /* as given, without slashes at its end */
  const char *name;        /* its last part */
  kp_config *config;
  char *config_text;         /* resolved */
  kp_yaml_document settings; /* the same as a list of keys */
  const kp_family *family;
  kp_model_options options;
  int64_t parameters, training_tokens, validation_tokens, planned_bytes,
      threads;                          /* of run.json; -1: not said */
  char backend[32], data[KP_PATH_SIZE]; /* of run.json; may be empty */
  int64_t tokens_per_step, planned_steps;
  kp_step_line *steps;
  kp_evaluation_line *evaluations;
  int64_t step_count, evaluation_count;
  int layers, groups[KP_PLACES]; /* of the curvature lines; 0 without */
  kp_arena *arena;               /* owns the lines */
} kp_run_record;

/* Reads a run's folder.  A missing or broken file is an error that names it; a run without metrics yet has
 * empty lists.  Close with kp_run_record_close; on failure there is nothing to close. */
kp_status kp_run_record_open(const char *run, kp_run_record *record, kp_error *error);
void kp_run_record_close(kp_run_record *record);

/* The validation loss at a step, between evaluations by linear interpolation; NaN outside of them. */
double kp_run_record_loss_at(const kp_run_record *record, double step);

/* Whether curvatures of a place are trained, and of any place. */
bool kp_run_record_learns(const kp_run_record *record, kp_place place);
bool kp_run_record_learns_curvature(const kp_run_record *record);

/* The median of the step times in ms; NaN without steps. */
double kp_run_record_step_ms(const kp_run_record *record);

/* The text of a key's value as the resolved configuration has it, lists with commas. */
void kp_run_record_setting(const kp_run_record *record, const char *key, char *text, size_t size);

/* "mixed e3 κ=-0.1", "gpt token difference": what a reader wants to know of a model.  Learned curvatures
 * show their start and the range of their last values, those of heads and experts behind these words. */
void kp_run_record_describe(const kp_run_record *record, char *text, size_t size);

#endif
