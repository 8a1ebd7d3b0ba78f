/* Verification against other implementations' numbers: the cases of docs/formats.md.
 *
 * A case is a folder with case.json (what it is) and tensors.safetensors
 * (inputs, parameters, outputs, gradients).  Five kinds are understood:
 * `model` (logits, loss and every gradient), `train` (losses, gradient norms
 * and parameters after some optimizer steps), `operator` (outputs and
 * gradients of single operations), `optimizer` (steps of an optimizer from
 * given gradients) and `sched` (a learning-rate schedule). */
#ifndef KAPPA_STUDY_VERIFY_H
#define KAPPA_STUDY_VERIFY_H

#include "core/backend.h"

enum { KP_VERIFY_CHECKS = 1024 };

/* One comparison: the worst error over all of its numbers, and what is allowed. */
typedef struct kp_verify_check {
  char name[96];
  double error, tolerance;
} kp_verify_check;

typedef struct kp_verify_report {
  char name[128], family[32], variant[32], kind[32];
  kp_verify_check checks[KP_VERIFY_CHECKS];
  int count;
  bool passed;
} kp_verify_report;

/* Runs one case on `backend`.  An error means that the case could not be run; a number that is off is not an
 * error but a check of the report whose error exceeds its tolerance. */
kp_status kp_verify_case(const char *folder, const kp_backend *backend, int threads, kp_verify_report *report,
                         kp_error *error);

#endif
