/* Cases of networks on the hyperboloid.  The files hold points as ambient vectors [time | space], and
 * matrices whose first column meets the time; here both are split on reading and joined again where results
 * are compared.
 *
 * As in verify_operator.c all inputs are parameters, so that each has a gradient. */
#ifndef KAPPA_STUDY_VERIFY_POINTS_H
#define KAPPA_STUDY_VERIFY_POINTS_H

#include "core/executor.h"
#include "ops/ops.h"
#include "study/verify_private.h"

enum { KP_POINT_OPERANDS = 32, KP_POINT_CHECKS = 32, KP_POINT_RESULTS = 4, KP_POINT_INTEGERS = 2 };

/* A tensor of the file whose gradient is compared with another one there; or one a copy, stacked. */
typedef struct kp_point_operand {
  char name[64];   /* of the expected gradient; of copy e: name, e, suffix */
  char suffix[64]; /* behind the number of a copy */
  int copies;      /* 0: one tensor without a number */
  kp_point point;
  int ambient; /* points [time | space] side by side in the file's rows */
} kp_point_operand;

/* A result besides the case's y: compared with a tensor of the file, its gradient (if any) another one. */
typedef struct kp_point_result {
  const char *name;
  kp_tensor *tensor, *seed;
  double *cotangent;
} kp_point_result;

/* Whole numbers that the graph reads. */
typedef struct kp_point_integers {
  kp_tensor *tensor;
  double *values;
} kp_point_integers;

typedef struct kp_point_case {
  const kp_case *c;
  kp_graph *graph;
  kp_parameters *parameters;
  kp_executor *executor;
  double *initial[KP_POINT_OPERANDS];
  kp_point_operand operands[KP_POINT_OPERANDS];
  int count;
  kp_point_result results[KP_POINT_RESULTS];
  kp_point_integers integers[KP_POINT_INTEGERS];
  int result_count, integer_count;
  kp_tensor *seeds[2]; /* of y's space and time */
  double *cotangents[2];
} kp_point_case;

kp_point_case kp_point_case_create(const kp_case *c);
void kp_point_case_destroy(kp_point_case *p);

/* The tensor `from`/`name` of the file ("in" or "param"): rows of `ambient` points [time | space] side by
 * side, split into space (rows, C) and time (rows, ambient); 0: rows of vectors.  Its gradient is
 * `gradient`/`name`.  Missing: NULLs where `optional`. */
kp_status kp_point_case_read(kp_point_case *p, const char *from, const char *gradient, const char *name,
                             int ambient, bool optional, kp_point *point, kp_error *error);
/* The parameters `prefix`0`suffix`, `prefix`1`suffix`, … (M, C), stacked to (E, M, C) with times (E, M); of
 * vectors to (E, M), and of single numbers to (E).  Missing: NULLs where `optional`. */
kp_status kp_point_case_stack(kp_point_case *p, const char *prefix, const char *suffix, int ambient,
                              bool optional, kp_point *point, kp_error *error);
/* int32 numbers of `count` elements: the tensor `name` of the file, or with `values` these, which it takes
 * over. */
kp_status kp_point_case_integers(kp_point_case *p, const char *name, double *values, int64_t count,
                                 kp_tensor **tensor, kp_error *error);
/* A result to compare with the file's tensor `name`; `cotangent` names its gradient there, or is NULL. */
kp_status kp_point_case_result(kp_point_case *p, const char *name, kp_tensor *tensor, const char *cotangent,
                               kp_error *error);
/* A parameter of `count` elements, or NULL where it is missing and `optional`. */
kp_status kp_point_case_parameter(kp_point_case *p, const char *name, int64_t count, bool optional,
                                  kp_tensor **tensor, kp_error *error);
/* A number of the file, or `fallback` where it is missing. */
kp_status kp_point_case_number(const kp_point_case *p, const char *name, double fallback, double *value,
                               kp_error *error);
/* Whether the file's gradient of the output, in/cotangent, has a column more than `columns`: a point's. */
kp_status kp_point_case_is_ambient(const kp_point_case *p, int64_t columns, bool *ambient, kp_error *error);

/* Runs forward and backward from in/cotangent and compares out/y, all further results and every gradient.
 * `y` is a vector where its time is NULL, and nothing where there are only further results. */
kp_status kp_point_case_run(kp_point_case *p, kp_point y, kp_error *error);

#endif
