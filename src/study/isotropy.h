/* How evenly a cloud of vectors fills its space.
 *
 * Rows are added batch by batch; nothing but sums is kept: d² doubles.  Sums
 * are double, and those of the covariance are taken about the first batch's
 * mean, so that a mean far from zero costs no digits. */
#ifndef KAPPA_STUDY_ISOTROPY_H
#define KAPPA_STUDY_ISOTROPY_H

#include <stdint.h>

#include "core/error.h"

typedef struct kp_isotropy kp_isotropy;

/* Measures of n rows of d columns. */
typedef struct kp_isotropy_result {
  int64_t rows, zero_rows; /* all of them, and those without a direction */
  double mean_cosine;      /* of all pairs of different rows that are not zero; NaN below two */
  double mean_norm;        /* of |h| */
  double participation_ratio; /* (Σλ)² / Σλ² of the covariance's eigenvalues λ; NaN when all rows are equal */
  double effective_rank; /* exp(-Σ p ln p), p = λ / Σλ (Roy and Vetterli 2007) */
} kp_isotropy_result;

kp_status kp_isotropy_create(int64_t columns, kp_isotropy **isotropy, kp_error *error);
void kp_isotropy_destroy(kp_isotropy *isotropy);

/* Adds `count` rows (count, columns).  Fails on values that are not finite. */
kp_status kp_isotropy_add(kp_isotropy *isotropy, int64_t count, const double *rows, kp_error *error);

/* The measures of the rows so far (at least one).  `eigenvalues`, of `columns` elements, receives those of
 * the covariance in descending order. */
kp_status kp_isotropy_measure(const kp_isotropy *isotropy, kp_isotropy_result *result, double *eigenvalues,
                              kp_error *error);

#endif
