/* One node of random inputs, or a small graph, on ref and on every fast backend of this processor.
 *
 * All get the same float values.  Errors are relative to the largest magnitude of the array: 2e-6 for
 * results, 1e-5 for gradients.  Gradients that kernels add to start from random values.  Use:
 *
 *   create, give, want  ->  round  ->  kp_graph_node on b.graph, b.input, b.output  ->  check  ->  destroy */
#ifndef KAPPA_TESTS_NODE_BENCH_H
#define KAPPA_TESTS_NODE_BENCH_H

#include "core/executor.h"

typedef struct node_bench {
  kp_graph *graph;
  kp_tensor *input[KP_MAX_INPUTS], *output[KP_MAX_OUTPUTS];
  double *value[KP_MAX_INPUTS];                              /* of the inputs */
  double *start[KP_MAX_OUTPUTS];                             /* of outputs that are added to */
  double *expected[KP_MAX_OUTPUTS], *actual[KP_MAX_OUTPUTS]; /* results */
  int32_t *tokens;                                           /* the value of an int32 input */
} node_bench;

node_bench node_bench_create(void);
void node_bench_destroy(node_bench *b);

/* An input; the caller writes its values to the result. */
double *node_bench_give(node_bench *b, int slot, kp_type type, int dimensions, const int64_t *shape);
double *node_bench_give_matrix(node_bench *b, int slot, kp_type type, int64_t rows, int64_t columns);

/* An output, and one that the kernel adds to. */
void node_bench_want(node_bench *b, int slot, kp_type type, int64_t rows, int64_t columns);
void node_bench_want_sum(node_bench *b, int slot, const kp_tensor *like);

/* Rounds all inputs to float. */
void node_bench_round(node_bench *b);

/* Runs the graph and puts its outputs into `result`, which makes room where there is none. */
void node_bench_run(node_bench *b, const kp_backend *backend, int threads, double *result[KP_MAX_OUTPUTS]);

typedef enum node_outputs { NODE_RESULTS, NODE_GRADIENTS } node_outputs;

/* Runs the graph on ref and, with 1 and 2 threads, on every fast backend.  Slots of `exact` must agree to the
 * last digit; those of `skip` are not looked at.  Results (not sums of gradients) must be the same to the
 * last bit with one thread and with two. */
void node_bench_check(node_bench *b, node_outputs outputs, unsigned exact, unsigned skip, const char *what);

#endif
