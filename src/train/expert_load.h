/* How the tokens of an optimizer step were spread over the experts of each block, and what follows from it.
 * On a device all of it is submitted and not waited for. */
#ifndef KAPPA_TRAIN_EXPERT_LOAD_H
#define KAPPA_TRAIN_EXPERT_LOAD_H

#include "core/executor.h"
#include "models/model.h"

typedef struct kp_expert_load {
  const kp_expert_options *options; /* must outlive this */
  const kp_network *network;
  const kp_backend *backend;
  double *counts; /* (blocks, E), in the backend's memory; owned */
  double *part;   /* (E); owned */
} kp_expert_load;

/* Of a training network; without experts all functions do nothing.  Destroy with kp_expert_load_destroy. */
kp_status kp_expert_load_init(kp_expert_load *load, const kp_model_options *options,
                              const kp_network *network, const kp_backend *backend, kp_error *error);
void kp_expert_load_destroy(kp_expert_load *load);

/* Adds what the last run of `executor` counted. */
kp_status kp_expert_load_add(kp_expert_load *load, const kp_executor *executor, kp_error *error);
/* Moves the selection biases by the counts since the last call (models/balance.h), and forgets them. */
kp_status kp_expert_load_balance(kp_expert_load *load, kp_parameters *parameters, kp_error *error);
kp_status kp_expert_load_forget(kp_expert_load *load, kp_error *error);

#endif
