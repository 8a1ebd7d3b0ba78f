/* A small graph for the cases of single operations: its inputs are parameters, so that each has a gradient.
 */
#ifndef KAPPA_STUDY_VERIFY_GRAPH_H
#define KAPPA_STUDY_VERIFY_GRAPH_H

#include "core/parameters.h"
#include "ops/ops.h"
#include "study/verify_private.h"

typedef struct kp_case_graph {
  const kp_case *c;
  kp_graph *graph;
  kp_parameters *parameters;
  double *initial[8]; /* by parameter */
  kp_tensor *index;   /* an int32 input, or NULL */
  double *index_values;
} kp_case_graph;

kp_case_graph kp_case_graph_create(const kp_case *c);
void kp_case_graph_destroy(kp_case_graph *b);

/* An input with these values, which it takes over. */
kp_tensor *kp_case_graph_operand(kp_case_graph *b, const char *name, double *values, int dimensions,
                                 const int64_t *shape);
/* A tensor of the file as an input of the given shape. */
kp_status kp_case_graph_read(kp_case_graph *b, const char *name, int dimensions, const int64_t *shape,
                             kp_tensor **operand, kp_error *error);

/* An int32 input; one a graph. */
kp_tensor *kp_case_graph_index(kp_case_graph *b, const char *name, double *values, int64_t count);

/* One tensor to compare: the output, or the gradient of an input.  A tensor that the file lacks is passed
 * over. */
typedef struct kp_expectation {
  const char *name;   /* of the tensor in the file */
  kp_tensor *operand; /* whose gradient it is; NULL: the output */
  double tolerance, sign;
} kp_expectation;

/* Runs the graph forward and backward from `gout` and compares. */
kp_status kp_case_graph_run(kp_case_graph *b, kp_tensor *out, const double *gout,
                            const kp_expectation *expected, int count, kp_error *error);

/* Runs the graph forward alone and reads all of `out`. */
kp_status kp_case_graph_evaluate(kp_case_graph *b, kp_tensor *out, double *values, kp_error *error);

#endif
