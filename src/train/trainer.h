/* Training: from a configuration to a run. */
#ifndef KAPPA_TRAIN_TRAINER_H
#define KAPPA_TRAIN_TRAINER_H

#include <signal.h>

#include "core/config.h"
#include "core/executor.h"
#include "optim/optimizer.h"
#include "data/batches.h"
#include "train/initial.h"
#include "train/learned.h"
#include "train/memory.h"
#include "train/run.h"

/* What is known after a step that is worth a line. */
typedef struct kp_progress {
  int64_t step, steps;
  double loss, gradient_norm, learning_rate;
  double tokens_per_s, step_ms;
  double seconds, seconds_left;
  double packed_share;   /* share of the rows' slots that hold tokens; NaN where rows are not packed */
  double boundary_share; /* share of rows · groups at the boundary; NaN for flat models */
  size_t resident_bytes;
  bool evaluated;                            /* the next ones hold an evaluation */
  double validation_loss, bits_per_byte;     /* the latter NaN when the data's bytes are unknown */
  double accuracy, macro_f1, mcc, entity_f1; /* of labels; NaN where there are none */
  bool best;
  int64_t skipped;    /* steps so far that were not finite */
  const char *reason; /* where the first of them since the last report came from; NULL: none was skipped */
} kp_progress;

typedef struct kp_train_options {
  const kp_backend *backend;
  int threads; /* 0: all */
  bool resume;
  void (*progress)(void *context, const kp_progress *progress);
  /* Once, when parameters were taken from another run; may be NULL. */
  void (*initialised)(void *context, const kp_transfers *transfers);
  void *context;
  const volatile sig_atomic_t *stop; /* set: finish the step, save, return KP_ERR_INTERRUPTED */
} kp_train_options;

/* Trains in the folder `run`, which is created, or gone on with when `resume` is set.  With `resume` the
 * run's own configuration counts and `config` is NULL. */
kp_status kp_train(kp_config *config, const char *run, const kp_train_options *options, kp_error *error);

/* ---- The engine of a step, shared with benchmarks ---- */

typedef struct kp_engine kp_engine;

/* A model with its parameters, initialised, and the graph of a training step of `batch` rows, which changes
 * the parameters that `learned` says, or with NULL all. */
kp_status kp_engine_create_for(const kp_model_options *options, const kp_learned *learned, int64_t batch,
                               uint64_t seed, const kp_backend *backend, int threads, kp_engine **engine,
                               kp_error *error);
kp_status kp_engine_create(const kp_model_options *options, int64_t batch, uint64_t seed,
                           const kp_backend *backend, int threads, kp_engine **engine, kp_error *error);
void kp_engine_destroy(kp_engine *engine);
kp_parameters *kp_engine_parameters(kp_engine *engine);
const kp_network *kp_engine_network(const kp_engine *engine);
kp_executor *kp_engine_executor(kp_engine *engine);

/* What kp_engine_evaluate runs: the same two, or a graph of its own (kp_network_evaluates_apart).  What is
 * kept of a step is then readable until the next evaluation, and the other way round. */
const kp_network *kp_engine_evaluation_network(const kp_engine *engine);
kp_executor *kp_engine_evaluator(kp_engine *engine);

/* One micro-batch: adds to the gradients.  `scale` is 1 over the number of micro-batches of the step.  On a
 * device it is submitted and not waited for. */
kp_status kp_engine_accumulate(kp_engine *engine, const kp_batch *batch, double scale, uint64_t micro_step,
                               kp_error *error);
/* Where its mean loss is: one number in the backend's memory. */
const void *kp_engine_loss(const kp_engine *engine);
/* Call after the optimizer's step, or with `taken` false when it was left out: moves what follows the load of
 * the experts. */
kp_status kp_engine_end_step(kp_engine *engine, bool taken, kp_error *error);
/* The forward pass alone, without dropout. */
kp_status kp_engine_evaluate(kp_engine *engine, const kp_batch *batch, double *loss, kp_error *error);

/* Copies a batch into the inputs of a network with a loss. */
void kp_network_write_batch(const kp_network *network, kp_executor *executor, const kp_batch *batch);

/* What this engine and such an optimizer hold, and the announced resident memory of the process. */
kp_memory_plan kp_engine_memory(const kp_engine *engine, const kp_optimizer_options *optimizer);

#endif
