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

enum { KP_POINT_OPERANDS = 32, KP_POINT_CHECKS = 32 };

/* A tensor of the file whose gradient is compared with another one there. */
typedef struct kp_point_operand {
  char name[64]; /* of the expected gradient */
  kp_point point;
  bool ambient; /* the file's rows are [time | space] */
} kp_point_operand;

typedef struct kp_point_case {
  const kp_case *c;
  kp_graph *graph;
  kp_parameters *parameters;
  kp_executor *executor;
  double *initial[KP_POINT_OPERANDS];
  kp_point_operand operands[KP_POINT_OPERANDS];
  int count;
} kp_point_case;

kp_point_case kp_point_case_create(const kp_case *c);
void kp_point_case_destroy(kp_point_case *p);

/* The tensor `from`/`name` of the file ("in" or "param"), split after its first column where `ambient`: rows
 * by columns, and a time for each row.  Its gradient is `gradient`/`name`.  Missing: NULLs where `optional`.
 */
kp_status kp_point_case_read(kp_point_case *p, const char *from, const char *gradient, const char *name,
                             bool ambient, bool optional, kp_point *point, kp_error *error);
/* A parameter of `count` elements, or NULL where it is missing and `optional`. */
kp_status kp_point_case_parameter(kp_point_case *p, const char *name, int64_t count, bool optional,
                                  kp_tensor **tensor, kp_error *error);
/* A number of the file, or `fallback` where it is missing. */
kp_status kp_point_case_number(const kp_point_case *p, const char *name, double fallback, double *value,
                               kp_error *error);
/* Whether the file's gradient of the output, in/cotangent, has a column more than `columns`: a point's. */
kp_status kp_point_case_is_ambient(const kp_point_case *p, int64_t columns, bool *ambient, kp_error *error);

/* Runs forward and backward from in/cotangent and compares out/y and every gradient.  `y` is a vector where
 * its time is NULL. */
kp_status kp_point_case_run(kp_point_case *p, kp_point y, kp_error *error);

#endif
