/* One call of one kernel without a graph: tensors are described by hand and
 * backed by the test's own arrays.
 *
 *   kp_test_kernel kernel;
 *   kp_test_kernel_begin(&kernel, KP_OP_SCALE, &arguments);
 *   kp_test_input(&kernel, x, KP_TYPE_REAL, 2, rows, columns);
 *   kp_test_output(&kernel, y, KP_TYPE_REAL, 2, rows, columns);
 *   check_ok(kp_test_run(&kernel, backend, threads, &error), &error); */
#ifndef KAPPA_TESTS_KERNEL_H
#define KAPPA_TESTS_KERNEL_H

#include "backend/operators.h"

typedef struct kp_test_kernel {
  kp_tensor tensor[KP_MAX_INPUTS + KP_MAX_OUTPUTS];
  kp_node node;
  kp_call call;
  kp_run run;
} kp_test_kernel;

void kp_test_kernel_begin(kp_test_kernel *kernel, kp_operation operation, const void *arguments);

/* The next input or output, with `dimensions` sizes of type int after it; memory NULL: an absent one. */
void kp_test_input(kp_test_kernel *kernel, const void *memory, kp_type type, int dimensions, ...);
void kp_test_output(kp_test_kernel *kernel, void *memory, kp_type type, int dimensions, ...);

/* Runs the kernel with scratch memory of exactly the size that the backend asks for, filled with NaN. */
kp_status kp_test_run(kp_test_kernel *kernel, const kp_backend *backend, int threads, kp_error *error);

/* Fresh arrays of `count` numbers; free() them. Uniform between -scale and scale, by `seed`. */
float *kp_test_uniform(int64_t count, double scale, uint64_t seed);
/* All bits set: NaN. */
float *kp_test_unwritten(int64_t count);

/* Fails the test unless |actual - expected| <= tolerance · (|expected| + unit) everywhere; NaN equals NaN. */
void kp_test_close(const char *what, const char *isa, const float *actual, const double *expected,
                   int64_t count, double tolerance, double unit);

#endif
