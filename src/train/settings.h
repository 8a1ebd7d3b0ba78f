/* The train and data sections of a configuration. */
#ifndef KAPPA_TRAIN_SETTINGS_H
#define KAPPA_TRAIN_SETTINGS_H

#include "core/config.h"
#include "data/batches.h"
#include "data/packing.h"
#include "models/model.h"
#include "optim/optimizer.h"
#include "train/learned.h"
#include "train/lora.h"

typedef enum kp_schedule_kind { KP_SCHEDULE_COSINE, KP_SCHEDULE_CONSTANT, KP_SCHEDULE_HELM } kp_schedule_kind;

typedef struct kp_schedule {
  kp_schedule_kind kind;
  int64_t steps, warmup;
  double minimum;  /* final learning rate over the peak; helm: what is added to its cosine */
  double cooldown; /* constant: the last share of the steps falls linearly to the minimum */
} kp_schedule;

/* How documents share rows. */
typedef enum kp_packing { KP_PACKING_NONE, KP_PACKING_BEST_FIT, KP_PACKING_PUBLISHED } kp_packing;

/* Where positions of documents that share a row begin. */
typedef enum kp_row_positions { KP_POSITIONS_OF_DOCUMENT, KP_POSITIONS_OF_ROW } kp_row_positions;

typedef struct kp_train_settings {
  int64_t steps, batch, accumulate;
  kp_schedule schedule;
  kp_optimizer_options optimizer; /* its learning rates are the peaks */
  double clip;                    /* 0: none */
  int64_t evaluate_every, evaluate_batches;
  int64_t patience; /* evaluations without improvement before stopping; 0: never */
  int64_t checkpoint_every, keep;
  int64_t log_every;
  int64_t skip_limit; /* steps in a row that are not finite before the run stops */
  uint64_t seed;
  kp_sampling sampling;
  kp_packing packing;
  int32_t separator; /* the token between documents; -1: none */
  kp_row_positions positions;
  kp_recompute recompute;
  kp_learned learned;   /* its lists live as long as the configuration */
  kp_lora_options lora; /* its list too */
} kp_train_settings;

extern const kp_config_table kp_train_config, kp_data_config;

/* All tables of a training configuration: model, data, train. */
const kp_schema *kp_training_schema(void);

/* A warm-up that was not asked for and does not fit into the steps becomes a tenth of them. */
kp_status kp_train_settings_read(const kp_config *config, kp_train_settings *settings, kp_error *error);

/* Completes the settings by the separator of the data, -1 where it has none.  Packing cannot do without. */
kp_status kp_train_settings_separate(const kp_config *config, int32_t separator, kp_train_settings *settings,
                                     kp_error *error);

/* kp_model_unused_keys, and those of the train section. */
size_t kp_training_unused_keys(const kp_config *config, const char *keys[], size_t room);

/* The factor of the peak learning rate at `step`, counted from 0: linear warm-up to 1 over the first `warmup`
 * steps, then the schedule (Loshchilov and Hutter 2017 for the cosine).
 *
 * HELM's schedule starts at 0, so that its first update only fills the moments, and after the warm-up falls
 * by 0.9 times a cosine to the minimum, which is added to it: step / warmup, then 0.9 · (1 + cos π x) / 2 +
 * minimum. */
double kp_schedule_factor(const kp_schedule *schedule, int64_t step);

#endif
