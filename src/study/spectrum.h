/* Spectra of matrices, and how evenly they are spread.
 *
 * Eigenvalues and singular values are LAPACK's, which OpenBLAS holds. */
#ifndef KAPPA_STUDY_SPECTRUM_H
#define KAPPA_STUDY_SPECTRUM_H

#include <stdint.h>

#include "core/error.h"

/* The eigenvalues of a symmetric matrix (n, n), of which the lower triangle is read, in descending order.
 * `matrix` is overwritten. */
kp_status kp_symmetric_eigenvalues(int64_t n, double *matrix, double *values, kp_error *error);

/* The min(rows, columns) singular values of a matrix (rows, columns), in descending order.  `matrix` is
 * overwritten. */
kp_status kp_singular_values(int64_t rows, int64_t columns, double *matrix, double *values, kp_error *error);

/* Participation ratio (Σλ)² / Σλ²: n when all n are equal, 1 when one stands alone; NaN when all are 0. */
double kp_participation_ratio(const double *values, int64_t count);

/* Entropy -Σ p ln p of p = λ / Σλ, in nats, with 0 ln 0 = 0; NaN when all are 0.  Of singular values it is
 * the SVD entropy; its exponential is the effective rank (Roy and Vetterli 2007). */
double kp_spectral_entropy(const double *values, int64_t count);

#endif
