/* A small graph around the operators under test.
 *
 * Operands are parameters with random values rounded to float, so that every backend starts from the same
 * numbers and each operand has a gradient.  The graph is differentiated from a random linear functional of
 * its outputs: the sum over all outputs of <seed, output>.  Use:
 *
 *   create, operands, operators, outputs  ->  bench_differentiate  ->  bench_start  ->  bench_run, …
 *
 * A bench is for one backend; build it again for another.  Everything a kernel should write is filled with
 * NaN before it runs. */
#ifndef KAPPA_TESTS_BENCH_H
#define KAPPA_TESTS_BENCH_H

#include "core/executor.h"
#include "ops/ops.h"

enum { BENCH_OPERANDS = 12, BENCH_INDICES = 4, BENCH_OUTPUTS = 6, BENCH_STATES = 4 };

typedef struct bench {
  kp_graph *graph;
  kp_parameters *parameters;
  kp_executor *executor;
  bool wrap; /* operands and outputs pass through a scale by 1: the operands' gradients are activations, not
                flat views, and those of the outputs may be overwritten in place */
  int operands, indices, outputs, states;
  double *value[BENCH_OPERANDS]; /* by parameter */
  kp_tensor *index[BENCH_INDICES];
  int32_t *index_value[BENCH_INDICES];
  kp_tensor *output[BENCH_OUTPUTS], *seed[BENCH_OUTPUTS];
  double *seed_value[BENCH_OUTPUTS];
  kp_tensor *state[BENCH_STATES];
  double *state_value[BENCH_STATES]; /* before a run */
} bench;

bench *bench_create(bool wrap);
void bench_destroy(bench *b);

/* A real operand of normal numbers around `centre`; the same numbers for the same place in the list. */
kp_tensor *bench_operand(bench *b, const char *name, double centre, double deviation, int dimensions,
                         const int64_t *shape);
/* The same without a gradient. */
kp_tensor *bench_frozen(bench *b, const char *name, double centre, double deviation, int dimensions,
                        const int64_t *shape);
/* An int32 input with these values. */
kp_tensor *bench_index(bench *b, const char *name, int dimensions, const int64_t *shape,
                       const int32_t *values);
/* A state with random normal numbers. */
kp_tensor *bench_state(bench *b, const char *name, double deviation, int dimensions, const int64_t *shape);
/* The gradient that the functional will have by its next output, a statistic of one number: for operators
 * that read it in the forward pass. */
kp_tensor *bench_next_seed(bench *b);
/* Takes `tensor`, which may be NULL, into the functional. */
void bench_output(bench *b, kp_tensor *tensor);

/* Appends the backward pass from all outputs.  Fails the test when an operator has none. */
void bench_differentiate(bench *b);

/* Allocates on `backend` and writes all values. */
kp_status bench_start(bench *b, const kp_backend *backend, int threads, kp_error *error);
/* Forward and backward from zeroed gradients and fresh states; or the forward pass alone. */
kp_status bench_run(bench *b, kp_error *error);
kp_status bench_forward(bench *b, kp_error *error);

/* The functional after a run. */
double bench_objective(const bench *b);
/* Element `i` of an operand, in the backend's memory (double backends alone). */
double *bench_element(bench *b, int operand, int64_t i);

/* What a run left, as double; for the caller to free. */
double *bench_read_output(const bench *b, int output);
double *bench_read_state(const bench *b, int state);
double *bench_read_gradient(const bench *b, int operand);

double bench_largest(const double *values, int64_t count);

#endif
