/* The kappa-stereographic model as functions of vectors, in double, on plain arrays of length n.
 *
 * kappa < 0: points of the ball |x| < 1 / sqrt(-kappa); kappa = 0: all of R^n; kappa > 0: the sphere of
 * radius 1 / sqrt(kappa) without the antipode of 0.  The metric is lambda_x^2 |.|^2 with lambda_x = 2 / (1 +
 * kappa|x|^2); so exp_0(u) lies at distance 2|u|.  (Ungar 2008; Bachmann, Becigneul, Ganea 2020, section 2.)
 *
 * Every function runs one row program; out may be one of the inputs.  They are the documentation of the
 * programs' arguments, and serve studies and tests; kernels call the programs themselves. */
#ifndef KAPPA_GEOMETRY_STEREOGRAPHIC_H
#define KAPPA_GEOMETRY_STEREOGRAPHIC_H

#include <stddef.h>

#include "geometry/row_program.h"

static inline void kp_stereographic_one(kp_program program, size_t n, double kappa, double p, const double *a,
                                        double *out) {
  const double *inputs[] = {a};
  kp_row_program_apply(&kp_row_programs[program], n, inputs, kappa, p, out);
}

static inline void kp_stereographic_two(kp_program program, size_t n, double kappa, double p, const double *a,
                                        const double *b, double *out) {
  const double *inputs[] = {a, b};
  kp_row_program_apply(&kp_row_programs[program], n, inputs, kappa, p, out);
}

static inline void kp_stereographic_three(kp_program program, size_t n, double kappa, const double *a,
                                          const double *b, const double *c, double *out) {
  const double *inputs[] = {a, b, c};
  kp_row_program_apply(&kp_row_programs[program], n, inputs, kappa, 0, out);
}

/* lambda_x = 2 / (1 + kappa|x|^2). */
static inline double kp_conformal_factor(size_t n, double kappa, const double *x) {
  double square = 0;
  for (size_t i = 0; i < n; i++) square += x[i] * x[i];
  return 2 / (1 + kappa * square);
}

/* x (+) y. */
static inline void kp_mobius_add(size_t n, double kappa, const double *x, const double *y, double *out) {
  kp_stereographic_two(KP_PROGRAM_ADD, n, kappa, 0, x, y, out);
}

/* factor (x) x. */
static inline void kp_mobius_scale(size_t n, double kappa, double factor, const double *x, double *out) {
  kp_stereographic_one(KP_PROGRAM_SCALAR_MULTIPLY, n, kappa, factor, x, out);
}

/* exp_0(u) and log_0(x). */
static inline void kp_exp_origin(size_t n, double kappa, const double *u, double *out) {
  kp_stereographic_one(KP_PROGRAM_EXP0, n, kappa, 0, u, out);
}
static inline void kp_log_origin(size_t n, double kappa, const double *x, double *out) {
  kp_stereographic_one(KP_PROGRAM_LOG0, n, kappa, 0, x, out);
}

/* exp_p(u) and log_p(x). */
static inline void kp_exp_map(size_t n, double kappa, const double *p, const double *u, double *out) {
  kp_stereographic_two(KP_PROGRAM_EXP, n, kappa, 0, p, u, out);
}
static inline void kp_log_map(size_t n, double kappa, const double *p, const double *x, double *out) {
  kp_stereographic_two(KP_PROGRAM_LOG, n, kappa, 0, p, x, out);
}

/* d(x, y). */
static inline double kp_point_distance(size_t n, double kappa, const double *x, const double *y) {
  double distance;
  kp_stereographic_two(KP_PROGRAM_DISTANCE, n, kappa, 0, x, y, &distance);
  return distance;
}

/* d(x, y)^2. */
static inline double kp_point_distance_squared(size_t n, double kappa, const double *x, const double *y) {
  double distance;
  kp_stereographic_two(KP_PROGRAM_DISTANCE_SQUARED, n, kappa, 0, x, y, &distance);
  return distance;
}

/* The point at `time` on the geodesic from x (0) to y (1). */
static inline void kp_geodesic_point(size_t n, double kappa, double time, const double *x, const double *y,
                                     double *out) {
  kp_stereographic_two(KP_PROGRAM_GEODESIC, n, kappa, time, x, y, out);
}

/* Parallel transport of v from x to y. */
static inline void kp_parallel_transport(size_t n, double kappa, const double *x, const double *y,
                                         const double *v, double *out) {
  kp_stereographic_three(KP_PROGRAM_TRANSPORT, n, kappa, x, y, v, out);
}

/* gyr[x, y] v. */
static inline void kp_gyrate(size_t n, double kappa, const double *x, const double *y, const double *v,
                             double *out) {
  kp_stereographic_three(KP_PROGRAM_GYRATION, n, kappa, x, y, v, out);
}

/* x (+) exp_p(u). */
static inline void kp_add_exp_map(size_t n, double kappa, const double *x, const double *p, const double *u,
                                  double *out) {
  kp_stereographic_three(KP_PROGRAM_ADD_EXP, n, kappa, x, p, u, out);
}

/* x inside (1 - margin) of the ball's radius. */
static inline void kp_project_point(size_t n, double kappa, double margin, const double *x, double *out) {
  kp_stereographic_one(KP_PROGRAM_PROJECT, n, kappa, margin, x, out);
}

/* The Riemannian gradient at x of a function with Euclidean gradient g: g / lambda_x^2. */
static inline void kp_riemannian_gradient(size_t n, double kappa, const double *x, const double *g,
                                          double *out) {
  double factor = kp_conformal_factor(n, kappa, x);
  for (size_t i = 0; i < n; i++) out[i] = g[i] / (factor * factor);
}

/* The antipode -x / (kappa|x|^2); kappa > 0 and x not 0. */
static inline void kp_antipode(size_t n, double kappa, const double *x, double *out) {
  double square = 0;
  for (size_t i = 0; i < n; i++) square += x[i] * x[i];
  for (size_t i = 0; i < n; i++) out[i] = -x[i] / (kappa * square);
}

#endif
