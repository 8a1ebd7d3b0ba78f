/* ref attention: one head of one sequence, its scores and means by their definition, in double. */
#ifndef KAPPA_OPS_ATTENTION_ROW_H
#define KAPPA_OPS_ATTENTION_ROW_H

#include "backend/operators.h"

/* Rows of a head in a tensor. */
typedef struct kp_reference_rows {
  double *base;
  int64_t stride; /* between positions */
} kp_reference_rows;

static inline double *kp_reference_row(kp_reference_rows rows, int64_t t) {
  return rows.base + t * rows.stride;
}

typedef struct kp_reference_head {
  kp_score score;
  kp_values values;
  int size, value_size;
  double scale, kappa, beta;
  bool causal;
  const int32_t *documents; /* of the sequence, or NULL */
} kp_reference_head;

/* Head h of sequence b; scalars and documents may be absent (their tensors then too). */
kp_reference_head kp_reference_head_of(const kp_attention_arguments *arguments, const kp_tensor *curvature,
                                       const double *kappa, const kp_tensor *temperature, const double *beta,
                                       int h);

double kp_reference_dot(const double *a, const double *b, int size);

/* The weights p of the keys 0 … count-1 for the query at position t; hidden keys have 0.  Returns the
 * logarithm of the sum of exp(score). */
double kp_reference_weights(const kp_reference_head *head, const double *q, int64_t t, kp_reference_rows k,
                            int64_t count, double *p);

/* The score, divided by β, of a pair. */
double kp_reference_score(const kp_reference_head *head, const double *q, const double *k);
/* Adds the gradients of that score times `g`. */
void kp_reference_score_backward(const kp_reference_head *head, const double *q, const double *k, double g,
                                 double *gq, double *gk, double *gkappa);

/* The output o (D') of weights p; its time and norm go to those two. */
void kp_reference_mean(const kp_reference_head *head, const double *p, kp_reference_rows v, int64_t count,
                       double *o, double *time, double *norm);

#endif
