/* What this machine can do at best: the ceilings beside which the benchmarks
 * print the speed of kernels.  Each figure is the best of several repetitions,
 * in 10⁹ a second, on `threads` threads (0: all processors); buffers are allocated and freed inside. */
#ifndef KAPPA_BACKEND_CPU_LIMITS_H
#define KAPPA_BACKEND_CPU_LIMITS_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

/* Bytes read and written a second by a copy, from a buffer of `bytes` to another.  For the speed of the
 * second cache take a quarter of its size per thread; for that of memory some hundred MiB. */
kp_status kp_limits_copy(size_t bytes, int threads, double *gigabytes, kp_error *error);

/* Bytes read a second from a buffer of `bytes`. */
kp_status kp_limits_read(size_t bytes, int threads, double *gigabytes, kp_error *error);

/* Floating-point operations (2 · rows · columns · depth) a second of the library's sgemm in the layout of a
 * linear layer, x (rows, depth) · W (columns, depth)ᵀ, the rows or columns shared among the threads. */
kp_status kp_limits_product(int64_t rows, int64_t columns, int64_t depth, int threads, double *gigaflops,
                            kp_error *error);

/* Runs the three products of such a layer's training step on buffers of its own, of rows · depth, columns ·
 * depth and rows · columns floats.  At their most, the process holds these and what the libraries take for
 * products of these sizes: packing buffers and thread stacks. */
kp_status kp_limits_warm_up(int64_t rows, int64_t columns, int64_t depth, int threads, kp_error *error);

#endif
