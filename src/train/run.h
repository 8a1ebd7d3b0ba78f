/* A run: the folder that training writes and everything later reads.
 *
 *   config.yaml            the resolved configuration
 *   run.json               versions, seed, machine, data, parameters
 *   metrics.jsonl          one object a line: losses, norms, curvatures, times
 *   events.out.tfevents.*  the same for TensorBoard
 *   checkpoints/step-N/    model.safetensors, optimizer.safetensors, state.json
 *   tokenizer.json         a copy, so that a run can be sampled on its own
 *   task.json              a copy, of a run on labelled examples (data/labelled.h)
 *   lock                   held while a process trains in the folder
 *
 * Every file is written under a temporary name and renamed, so that a process
 * killed at any instant leaves a run that goes on from its last checkpoint. */
#ifndef KAPPA_TRAIN_RUN_H
#define KAPPA_TRAIN_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/config.h"
#include "core/lock.h"
#include "core/parameters.h"
#include "core/path.h"
#include "data/tokenizer.h"
#include "models/model.h"

/* What a checkpoint holds beside parameters and moments: all that a run needs to go on bit for bit. */
typedef struct kp_run_state {
  int64_t step;       /* optimizer steps done */
  int64_t adam_steps; /* of these, steps that were not skipped */
  int64_t tokens;     /* seen in training */
  int64_t skipped;    /* steps that were not finite */
  int64_t skipped_in_a_row;
  double seconds;   /* of training proper, evaluations left out */
  double best_loss; /* the smallest kp_judge_loss of evaluations; infinite before the first */
  double
      best_validation; /* the validation loss of that one: of two equal scores the smaller loss is better */
  int64_t best_step;
  int64_t since_best;     /* evaluations without improvement */
  int64_t evaluated_step; /* the last step that was evaluated; -1: none */
} kp_run_state;

/* Writes checkpoints/step-N, of the moments those that the optimizer keeps (kp_parameter.moments), and
 * removes older ones beyond `keep`, the best excepted. */
kp_status kp_checkpoint_write(const char *run, const kp_parameters *parameters, const kp_run_state *state,
                              int64_t keep, kp_error *error);

/* Steps of all checkpoints of a run, ascending; for the caller to free. */
kp_status kp_checkpoint_list(const char *run, int64_t **steps, size_t *count, kp_error *error);

/* The step of a checkpoint: "last", "best", or a number.  Fails when there is none. */
kp_status kp_checkpoint_find(const char *run, const char *which, int64_t *step, kp_error *error);

/* Reads the parameters, and with `state` the optimizer's moments and the state. */
kp_status kp_checkpoint_read(const char *run, int64_t step, kp_parameters *parameters, kp_run_state *state,
                             kp_error *error);

/* Reads parameters from any safetensors file with this model's names; all must be there and have the right
 * shape. */
kp_status kp_parameters_load(const char *path, kp_parameters *parameters, kp_error *error);

/* A trained model, opened for reading: what evaluation, sampling and studies start from. */
typedef struct kp_trained {
  char run[KP_PATH_SIZE];
  kp_config *config;
  kp_model_options options;
  kp_parameters *parameters;
  kp_tokenizer *tokenizer; /* NULL when the data had none */
  const kp_backend *backend;
  int64_t step;
} kp_trained;

/* Opens checkpoint `which` of a run.  Destroy with kp_trained_close. */
kp_status kp_trained_open(const char *run, const char *which, const kp_backend *backend, kp_trained *trained,
                          kp_error *error);
void kp_trained_close(kp_trained *trained);

#endif
