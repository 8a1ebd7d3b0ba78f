/* Generation that runs ahead of the host: passes over one token each, with the choice of the next token on
 * the device, queue behind one another, and the host reads the tokens as they come. */
#ifndef KAPPA_INFER_AHEAD_H
#define KAPPA_INFER_AHEAD_H

#include "core/executor.h"
#include "infer/sampler.h"

typedef struct kp_ahead kp_ahead;

/* A pass over one token of each sequence. */
typedef struct kp_ahead_pass {
  const kp_backend *backend;
  kp_executor *executor;
  const kp_graph *graph;
  const kp_tensor *logits;             /* (B, …, V) */
  int32_t *tokens, *positions, *start; /* (B), (B), (1): its inputs, in the backend's memory */
  int64_t batch;
} kp_ahead_pass;

/* What is to be chosen. */
typedef struct kp_choices {
  kp_token_sampler_options options;
  int64_t vocabulary; /* tokens below it */
  uint64_t sample;    /* of the first sequence; the others' follow */
  int64_t length;     /* position of the first choice in its text */
  int64_t most;       /* choices for each sequence, > 0 */
} kp_choices;

/* Whether such choices can be made where `backend` is, of logits with rows of `pitch`. */
bool kp_ahead_can(const kp_backend *backend, const kp_token_sampler_options *options, int64_t pitch);

kp_status kp_ahead_create(const kp_ahead_pass *pass, kp_ahead **ahead, kp_error *error);
void kp_ahead_destroy(kp_ahead *ahead);

/* Forgets what was chosen, and gets ready for `choices`. */
kp_status kp_ahead_prepare(kp_ahead *ahead, const kp_choices *choices, kp_error *error);
/* Submits a choice from logits in the backend's memory, after which the pass goes on at `position`. */
kp_status kp_ahead_first(kp_ahead *ahead, const void *logits, int64_t position, kp_error *error);
/* Submits a pass over the tokens chosen last, and a choice. */
kp_status kp_ahead_submit(kp_ahead *ahead, kp_error *error);
/* Choices that may still be submitted, and those that were and have not been read. */
int64_t kp_ahead_left(const kp_ahead *ahead);
int64_t kp_ahead_waiting(const kp_ahead *ahead);
/* Waits for the oldest choice that was not read: (B) tokens. */
kp_status kp_ahead_read(kp_ahead *ahead, int32_t *tokens, kp_error *error);

#endif
