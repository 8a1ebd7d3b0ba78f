/* The functions of kappa/geometry.h: each runs one row program.
 *
 * They show what arguments the programs take, and serve studies, tests and users of the library; kernels call
 * the programs themselves. */
#include "kappa/geometry.h"

#include "geometry/midpoint.h"
#include "geometry/row_program.h"

static void run_one(kp_program program, size_t n, double kappa, double p, const double *a, double *out) {
  const double *inputs[] = {a};
  kp_row_program_apply(&kp_row_programs[program], n, inputs, kappa, p, out);
}

static void run_two(kp_program program, size_t n, double kappa, double p, const double *a, const double *b,
                    double *out) {
  const double *inputs[] = {a, b};
  kp_row_program_apply(&kp_row_programs[program], n, inputs, kappa, p, out);
}

static void run_three(kp_program program, size_t n, double kappa, const double *a, const double *b,
                      const double *c, double *out) {
  const double *inputs[] = {a, b, c};
  kp_row_program_apply(&kp_row_programs[program], n, inputs, kappa, 0, out);
}

static double squared_norm(size_t n, const double *x) {
  double square = 0;
  for (size_t i = 0; i < n; i++) square += x[i] * x[i];
  return square;
}

double kp_conformal_factor(size_t n, double kappa, const double *x) {
  return 2 / (1 + kappa * squared_norm(n, x));
}

void kp_mobius_add(size_t n, double kappa, const double *x, const double *y, double *out) {
  run_two(KP_PROGRAM_ADD, n, kappa, 0, x, y, out);
}

void kp_mobius_scale(size_t n, double kappa, double factor, const double *x, double *out) {
  run_one(KP_PROGRAM_SCALAR_MULTIPLY, n, kappa, factor, x, out);
}

void kp_exp_origin(size_t n, double kappa, const double *u, double *out) {
  run_one(KP_PROGRAM_EXP0, n, kappa, 0, u, out);
}

void kp_log_origin(size_t n, double kappa, const double *x, double *out) {
  run_one(KP_PROGRAM_LOG0, n, kappa, 0, x, out);
}

void kp_exp_map(size_t n, double kappa, const double *p, const double *u, double *out) {
  run_two(KP_PROGRAM_EXP, n, kappa, 0, p, u, out);
}

void kp_log_map(size_t n, double kappa, const double *p, const double *x, double *out) {
  run_two(KP_PROGRAM_LOG, n, kappa, 0, p, x, out);
}

void kp_add_exp_map(size_t n, double kappa, const double *x, const double *p, const double *u, double *out) {
  run_three(KP_PROGRAM_ADD_EXP, n, kappa, x, p, u, out);
}

double kp_point_distance(size_t n, double kappa, const double *x, const double *y) {
  double distance;
  run_two(KP_PROGRAM_DISTANCE, n, kappa, 0, x, y, &distance);
  return distance;
}

double kp_point_distance_squared(size_t n, double kappa, const double *x, const double *y) {
  double distance;
  run_two(KP_PROGRAM_DISTANCE_SQUARED, n, kappa, 0, x, y, &distance);
  return distance;
}

void kp_geodesic_point(size_t n, double kappa, double time, const double *x, const double *y, double *out) {
  run_two(KP_PROGRAM_GEODESIC, n, kappa, time, x, y, out);
}

void kp_gyromidpoint(size_t n, size_t count, double kappa, const double *points, const double *weights,
                     double *out) {
  kp_midpoint_forward(n, count, kappa, points, weights, out);
}

void kp_parallel_transport(size_t n, double kappa, const double *x, const double *y, const double *v,
                           double *out) {
  run_three(KP_PROGRAM_TRANSPORT, n, kappa, x, y, v, out);
}

void kp_gyrate(size_t n, double kappa, const double *x, const double *y, const double *v, double *out) {
  run_three(KP_PROGRAM_GYRATION, n, kappa, x, y, v, out);
}

void kp_project_point(size_t n, double kappa, double margin, const double *x, double *out) {
  run_one(KP_PROGRAM_PROJECT, n, kappa, margin, x, out);
}

void kp_riemannian_gradient(size_t n, double kappa, const double *x, const double *g, double *out) {
  double factor = kp_conformal_factor(n, kappa, x);
  for (size_t i = 0; i < n; i++) out[i] = g[i] / (factor * factor);
}

void kp_antipode(size_t n, double kappa, const double *x, double *out) {
  double square = squared_norm(n, x);
  for (size_t i = 0; i < n; i++) out[i] = -x[i] / (kappa * square);
}
