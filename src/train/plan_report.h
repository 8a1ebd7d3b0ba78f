/* What a configuration will cost, known before anything runs: parameters, memory, operations.
 *
 * The graph of a training step is built and planned; neither parameters nor activations are allocated. */
#ifndef KAPPA_TRAIN_PLAN_REPORT_H
#define KAPPA_TRAIN_PLAN_REPORT_H

#include "core/plan.h"
#include "train/memory.h"
#include "train/settings.h"

/* Something that is alive at the node where most is. */
typedef struct kp_live_tensor {
  const char *name;  /* of the tensor, or of the operator whose scratch memory it is */
  const char *scope; /* the part of the model that writes it; "" for inputs */
  char shape[64];    /* empty for scratch memory */
  size_t bytes;
} kp_live_tensor;

typedef struct kp_plan_report {
  kp_train_settings settings;
  kp_model_options model;
  const kp_backend *backend;
  int threads;
  kp_parameters *parameters; /* the table alone */
  kp_network *network;       /* of a training step */
  kp_plan *plan;
  kp_memory_plan memory;
  size_t live_peak_bytes;  /* the largest sum of activations alive at once: no plan can need less */
  const char *peak_scope;  /* where that is */
  kp_live_tensor *live;    /* there, the largest first */
  int live_count;          /* of them */
  uint64_t data_bytes;     /* of the mapped token files */
  int64_t training_tokens; /* of the data */
  /* Of an optimizer step, all micro-batches.  A loss that is trained in the forward pass counts there. */
  double forward_flops, backward_flops;
  int64_t tokens_per_step;
} kp_plan_report;

/* Opens the data of the configuration for its vocabulary, and the run that it starts from (train.init), and
 * fails as training would.  Destroy with kp_plan_report_destroy. */
kp_status kp_plan_report_create(kp_config *config, const kp_backend *backend, int threads,
                                kp_plan_report **report, kp_error *error);
void kp_plan_report_destroy(kp_plan_report *report);

/* Measures the matrix products of this model's feed-forward shape, in 10⁹ operations a second, and estimates
 * from it the seconds of an optimizer step.  Everything but matrix products and attention is left out, so a
 * real step takes longer. */
kp_status kp_plan_report_measure(const kp_plan_report *report, double *gigaflops, double *seconds,
                                 kp_error *error);

#endif
