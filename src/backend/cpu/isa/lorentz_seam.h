/* What the forward and the backward kernel of LORENTZ_RESIDUAL share: where its rows stand. */
#ifndef KAPPA_BACKEND_CPU_LORENTZ_SEAM_H
#define KAPPA_BACKEND_CPU_LORENTZ_SEAM_H

#include "backend/cpu/isa/isa.h"

typedef struct kp_lorentz_call {
  const kp_lorentz_residual_arguments *arguments;
  int64_t rows, C;
  const float *x, *x_time, *u, *u_time, *w, *weight;
  bool one_w; /* w is one number, not one a row */
  double s, c;
} kp_lorentz_call;

static inline kp_lorentz_call kp_lorentz_call_of(const kp_call *call) {
  const kp_node *node = call->node;
  const float *s = call->input[5], *c = call->input[7];
  kp_lorentz_call k = {.arguments = node->arguments,
                       .rows = kp_tensor_rows(node->input[0]),
                       .C = kp_tensor_columns(node->input[0]),
                       .x = call->input[0],
                       .x_time = call->input[1],
                       .u = call->input[2],
                       .u_time = call->input[3],
                       .w = call->input[4],
                       .weight = call->input[6]};
  k.one_w = node->input[4] != NULL && kp_tensor_count(node->input[4]) == 1;
  k.s = s == NULL ? k.arguments->scale : (double)*s;
  k.c = c == NULL ? 1 : (double)*c;
  return k;
}

static inline double kp_lorentz_branch_weight(const kp_lorentz_call *k, int64_t n) {
  return k->w == NULL ? 1 : (double)k->w[k->one_w ? 0 : n];
}

#endif
