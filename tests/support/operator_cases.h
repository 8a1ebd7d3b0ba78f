/* One table of cases for all operators: the gradient check, the comparison of backends and the hostile values
 * go through the same list, and an operator without a case fails a test. */
#ifndef KAPPA_TESTS_OPERATOR_CASES_H
#define KAPPA_TESTS_OPERATOR_CASES_H

#include "support/bench.h"

/* Where a seam's reference points come from. */
typedef enum case_reference {
  CASE_REFERENCE_NONE,    /* the origin */
  CASE_REFERENCE_GIVEN,   /* row t of a tensor */
  CASE_REFERENCE_SHIFTED, /* row t-1 of a tensor */
  CASE_REFERENCE_STREAM,  /* row t-1 of the stream itself */
  CASE_REFERENCE_OWN,     /* tangent: row t-1 of the updated stream; update: row t-1 of a tensor */
  CASE_REFERENCE_FROZEN,  /* as GIVEN, of a tensor without a gradient */
  CASE_REFERENCE_COUNT,
} case_reference;

typedef enum case_curvatures { CASE_K_ONE, CASE_K_BATCH, CASE_K_ROWS, CASE_K_COUNT } case_curvatures;

/* A case: an operator, how its graph is built, and the numbers that the builder reads (each takes what it
 * needs). */
typedef struct operator_case {
  kp_operation operation;
  void (*build)(bench *b, const struct operator_case *c);
  char name[96];
  bool decoding;                         /* has no backward pass */
  bool kinked;                           /* has kinks near its values: no finite differences */
  int64_t batch, length, columns, inner; /* B, T, C; inner: K, V, M, … by operator */
  int64_t groups;                        /* G */
  case_curvatures curvatures;            /* K */
  double kappa, parameter, deviation;
  int kind;
  bool option, option2;
  /* attention */
  int heads, kv_heads, head_size, value_size;
  kp_score score;
  kp_values values;
  bool packed, causal;
  /* residual_norm */
  int update, tangent;
  case_reference reference;
  kp_norm norm;
  bool same_curvature; /* one tensor is both curvatures */
} operator_case;

typedef struct operator_cases {
  operator_case *list;
  int count, capacity;
} operator_cases;

/* All cases; destroy with operator_cases_destroy. */
operator_cases operator_cases_create(void);
void operator_cases_destroy(operator_cases *cases);

/* Builds the case's graph, backward pass included unless it is a decoding case. */
bench *operator_case_build(const operator_case *c, bool wrap);

/* For the files that fill the table. */
operator_case *operator_cases_add(operator_cases *cases, operator_case c, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void operator_cases_plain(operator_cases *cases);
void operator_cases_attention(operator_cases *cases);
void operator_cases_geometry(operator_cases *cases);
void operator_cases_seams(operator_cases *cases);
void operator_cases_head(operator_cases *cases);
void operator_cases_sphere(operator_cases *cases);
void operator_cases_lorentz(operator_cases *cases);
void operator_cases_experts(operator_cases *cases);
void operator_cases_pooling(operator_cases *cases);

/* The curvatures that geometry is tested at. */
enum { CASE_KAPPAS = 10 };
extern const double case_kappas[CASE_KAPPAS];

/* κ as a (K, G) operand around c->kappa. */
kp_tensor *operator_case_curvature(bench *b, const operator_case *c, const char *name);

/* Runs `function` as one cmocka test a case that `wanted` (NULL: all) accepts, with the case as its state. */
int operator_cases_run(const char *group, void (*function)(void **state),
                       bool (*wanted)(const operator_case *c));

#endif
