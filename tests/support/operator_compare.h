/* An operator case on a backend, beside the same case on ref.
 *
 * Both start from the same numbers, rounded to what the backend can hold.  Errors are relative to the largest
 * element of the output, or of the operand's gradient (but at least a hundredth of the largest of all
 * gradients: no precision can know more about a sum that cancels). */
#ifndef KAPPA_TESTS_OPERATOR_COMPARE_H
#define KAPPA_TESTS_OPERATOR_COMPARE_H

#include "support/operator_cases.h"

/* Builds and runs a case, forward and backward.  With `narrow` real numbers are rounded to bfloat16 first. */
bench *operator_case_run(const operator_case *c, const kp_backend *on, int threads, bool wrap, bool narrow);

/* Fails the test when an output (tolerance 0) or a gradient (1) is farther off; keeps the worst errors. */
void operator_case_compare(const operator_case *c, const bench *got, const bench *want,
                           const double tolerance[2], double worst[2]);

/* Fails the test when gradients have other bits the second time. */
void operator_case_run_again(const operator_case *c, bench *b);

/* Values that hurt, on a backend.  What holds: nothing crashes; zeros and 1e-30 give finite outputs and
 * gradients; 1e30 gives no NaN in the outputs of a double backend (in float it may overflow). */
void operator_case_extremes(const operator_case *c, const kp_backend *backend);

/* A NaN in an element that an output depends on reaches an output or is an error. */
void operator_case_nan(const operator_case *c, const kp_backend *backend);

#endif
