/* What the sphere's residual step forward and backward know of a row: where it is, and its unit vectors. */
#ifndef KAPPA_BACKEND_CPU_SPHERE_ROW_H
#define KAPPA_BACKEND_CPU_SPHERE_ROW_H

#include <math.h>

#include "backend/operators.h"
#include "geometry/sphere.h"

typedef struct kp_sphere_row {
  const float *h, *u, *rate; /* (C); the rate before its factor and sign */
  float factor;
  int64_t C;
} kp_sphere_row;

typedef struct kp_sphere_units {
  double inverse_h, inverse_u; /* 1/|h|, 1/|u|: A = h/|h|, B = u/|u| */
  double cosine;               /* <A,B> */
} kp_sphere_units;

/* λ of a channel. */
static inline float kp_sphere_rate(float rate, float factor) {
  return fabsf(rate * factor);
}

static inline kp_sphere_row kp_sphere_row_of(const kp_call *call, int64_t n) {
  const kp_sphere_arguments *arguments = call->node->arguments;
  const int64_t C = kp_tensor_columns(call->node->input[0]);
  return (kp_sphere_row){(const float *)call->input[0] + n * C, (const float *)call->input[1] + n * C,
                         call->input[2], (float)arguments->factor, C};
}

static inline kp_sphere_units kp_sphere_units_of(const kp_sphere_row *row) {
  const float *h = row->h, *u = row->u;
  double hh = 0, uu = 0, hu = 0;
#pragma omp simd reduction(+ : hh, uu, hu)
  for (int64_t i = 0; i < row->C; i++) {
    const double a = (double)h[i], b = (double)u[i];
    hh += a * a, uu += b * b, hu += a * b;
  }
  kp_sphere_units units = {kp_sphere_inverse_length(hh), kp_sphere_inverse_length(uu), 0};
  units.cosine = hu * units.inverse_h * units.inverse_u;
  return units;
}

#endif
