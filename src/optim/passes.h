/* Passes over runs of elements of a parameter's buffers, of doubles or of floats, with all sums and factors
 * in double.  `at` is the first element of a run of `count`. */
#ifndef KAPPA_OPTIM_PASSES_H
#define KAPPA_OPTIM_PASSES_H

#include <stdbool.h>
#include <stdint.h>

/* Σ a b. */
double kp_pass_dot(const void *a, const void *b, bool wide, int64_t at, int64_t count);

/* x ← factor · x. */
void kp_pass_scale(void *x, bool wide, int64_t at, int64_t count, double factor);

/* y ← y + factor · x. */
void kp_pass_add(void *y, const void *x, bool wide, int64_t at, int64_t count, double factor);

/* The same three element by element: sums[i] += a b, x ← factors[i] x, y ← y + factors[i] x. */
void kp_pass_dot_each(const void *a, const void *b, bool wide, int64_t at, int64_t count, double *sums);
void kp_pass_scale_each(void *x, bool wide, int64_t at, int64_t count, const double *factors);
void kp_pass_add_each(void *y, const void *x, bool wide, int64_t at, int64_t count, const double *factors);

#endif
