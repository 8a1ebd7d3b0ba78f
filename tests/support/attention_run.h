/* The fast attention kernels, called directly on a problem of the oracle, and what comes out against what it
 * expects: 1e-5 for outputs, 2e-5 for gradients, relative to the largest. */
#ifndef KAPPA_TESTS_ATTENTION_RUN_H
#define KAPPA_TESTS_ATTENTION_RUN_H

#include "backend/operators.h"
#include "support/attention_oracle.h"

enum { ATTENTION_SETS = 4 };

/* The kernels of one instruction set. */
typedef struct attention_kernels {
  const char *isa;
  kp_kernel forward, backward, cached;
  kp_scratch_size forward_scratch, backward_scratch, cached_scratch;
} attention_kernels;

/* Fills `list` with those of the sets that this processor has, and returns how many there are. */
int attention_kernel_sets(attention_kernels list[ATTENTION_SETS]);

/* A problem of random values of order 1; for distances rows of a norm up to 1.4. */
oracle_problem attention_problem(int batch, int length, int heads, int kv_heads, int size, bool causal,
                                 int power);
/* Fills it again; for distances rows of a norm up to `norm`. */
void attention_fill(oracle_problem *p, double norm);

/* Where the operator has its rows; the oracle's are (B, H, T, D). */
typedef struct row_layout {
  int heads, stride, column;
} row_layout;

typedef struct attention_run {
  kp_attention_arguments arguments;
  row_layout q, k, v, o;
  size_t rows_size[3]; /* of q, k, v as the operator takes them; 0 where packed */
  float *input[3], *gradient[3];
  float *o_rows, *o_bar_rows, *logsumexp;
  float *kappa_bar, *beta_bar;
  size_t o_count, logsumexp_count;
} attention_run;

/* With `packed` q, k and v stand beside each other in one input.  All that is to be written is NaN. */
void attention_run_create(attention_run *run, const oracle_problem *p, bool packed);
void attention_run_destroy(attention_run *run);
void attention_run_forward(const attention_kernels *set, attention_run *run, const oracle_problem *p,
                           int threads);
void attention_run_backward(const attention_kernels *set, attention_run *run, const oracle_problem *p,
                            int threads);

/* `count` numbers that are NaN; free() them. */
float *attention_poisoned(size_t count);

/* Calls one kernel with scratch memory of exactly the size that it asks for, filled with NaN. */
void attention_call(kp_kernel kernel, kp_scratch_size scratch, kp_node *node, kp_call *call, int threads);

/* Fails the test when the output of a run is off. */
void attention_check_output(const attention_kernels *set, const attention_run *run, const oracle_problem *p,
                            const oracle_result *expected, const char *what);
/* Runs the problem forward and backward on two threads, and fails the test when any result is off. */
void attention_check(const attention_kernels *set, const oracle_problem *p, const oracle_result *expected,
                     bool packed);

#endif
