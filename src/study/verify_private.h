/* What the kinds of cases share. */
#ifndef KAPPA_STUDY_VERIFY_PRIVATE_H
#define KAPPA_STUDY_VERIFY_PRIVATE_H

#include <jansson.h>

#include "core/safetensors.h"
#include "study/verify.h"

typedef struct kp_case {
  const char *folder;
  json_t *json;         /* case.json */
  kp_safetensors *file; /* tensors.safetensors */
  const kp_backend *backend;
  int threads;
  kp_verify_report *report;
} kp_case;

/* The elements of a tensor as doubles, for the caller to free; NULL in *values when it is missing and
 * `optional`. */
kp_status kp_case_values(const kp_case *c, const char *name, bool optional, double **values, int64_t *count,
                         kp_error *error);

/* The greatest |got - want|, NaN counting as infinite. */
double kp_case_worst(const double *got, const double *want, int64_t count);
double kp_case_largest(const double *values, int64_t count);

/* Adds a check to the report. */
void kp_case_check(const kp_case *c, double error, double tolerance, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The case's own tolerance `what` ("logits", "loss", "grad") for the backend's precision, or `fallback`. */
double kp_case_tolerance(const kp_case *c, const char *what, double fallback);

/* Whether the backend computes in double. */
bool kp_case_is_double(const kp_case *c);

kp_status kp_verify_model(const kp_case *c, kp_error *error);
kp_status kp_verify_train(const kp_case *c, kp_error *error);
/* Training from the parameters and the batch of another case, after whose name this one is called. */
kp_status kp_verify_train_from(const kp_case *c, kp_error *error);
kp_status kp_verify_operator(const kp_case *c, kp_error *error);
/* Rotary positions: of nGPT as published and as meant, of HELM with YaRN (verify_rotary.c). */
kp_status kp_verify_rope_probe(const kp_case *c, kp_error *error);
kp_status kp_verify_hope(const kp_case *c, kp_error *error);

/* Whether a case of an operator is one of a Lorentz network's blocks; and that case. */
bool kp_verify_is_lorentz(const kp_case *c);
kp_status kp_verify_lorentz(const kp_case *c, kp_error *error);
kp_status kp_verify_optimizer(const kp_case *c, kp_error *error);
kp_status kp_verify_schedule(const kp_case *c, kp_error *error);
/* The same for those of experts and latent attention. */
bool kp_verify_is_experts(const kp_case *c);
kp_status kp_verify_experts(const kp_case *c, kp_error *error);

#endif
