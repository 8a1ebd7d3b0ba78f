/* The model of a case, with its parameters and its batch: a graph that trains on it. */
#ifndef KAPPA_STUDY_VERIFY_SUBJECT_H
#define KAPPA_STUDY_VERIFY_SUBJECT_H

#include "core/executor.h"
#include "models/model.h"
#include "study/verify_private.h"

typedef struct kp_subject {
  kp_model_options options;
  kp_parameters *parameters;
  kp_network *network;
  kp_executor *executor;
  int64_t batch, length;
} kp_subject;

/* Destroy with kp_subject_destroy, after a failure too. */
kp_status kp_subject_create(const kp_case *c, const kp_backend *backend, kp_subject *subject,
                            kp_error *error);
void kp_subject_destroy(kp_subject *subject);

/* Forward and backward from zeroed gradients. */
kp_status kp_subject_run(kp_subject *subject, kp_error *error);

/* The case's values of one parameter under `prefix` ("param/", "grad/", …), for the caller to free; NULL when
 * it has none. */
kp_status kp_subject_parameter(const kp_case *c, const kp_subject *subject, const char *prefix,
                               const kp_parameter *parameter, double **values, kp_error *error);

#endif
