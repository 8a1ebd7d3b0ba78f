/* A row is copied to doubles, stepped there, and copied back: it stays in the cache for all of its passes. */
#include "optim/riemannian_adam.h"

#include <math.h>

#include "kappa/geometry.h"
#include "optim/element.h"
#include "optim/manifold.h"

/* One row in doubles, n numbers each. */
typedef struct row {
  int64_t n;
  double *x, *g, *m; /* point, gradient, first moment */
  double *y;         /* scratch: the next point */
  double *u;         /* scratch: the step, or the transported moment */
  double square;     /* second moment */
} row;
enum { ROW_VECTORS = 5 };

int64_t kp_riemannian_adam_scratch(int64_t columns) {
  return ROW_VECTORS * columns;
}

/* The moments of the Riemannian gradient r->g of squared length `length`; returns the factor of m in u. */
static double moments(row *r, const kp_adamw_step *s, double length) {
  for (int64_t i = 0; i < r->n; i++) r->m[i] = s->beta1 * r->m[i] + (1 - s->beta1) * r->g[i];
  r->square = s->beta2 * r->square + (1 - s->beta2) * length;
  return -s->rate / s->mean_correction / (sqrt(r->square) / s->root_correction + s->epsilon);
}

/* ---- Lorentz ---- */

static double minkowski(const double *a, const double *b, int64_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 1; i < n; i++) sum += a[i] * b[i];
  return sum - a[0] * b[0];
}

/* a + factor · b, to `out`, which may be a. */
static void add_scaled(double *out, const double *a, double factor, const double *b, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; i++) out[i] = a[i] + factor * b[i];
}

/* v made tangent at x. */
static void make_tangent(double *v, const double *x, double c, int64_t n) {
  add_scaled(v, v, minkowski(x, v, n) / c, x, n);
}

/* y = exp_x(u), its time taken from space, so that rounding does not leave the hyperboloid. */
static void lorentz_exp(double *y, const double *x, const double *u, double c, int64_t n) {
  const double r = sqrt(fmax(minkowski(u, u, n), 0) / c);
  const double along = r > 1e-4 ? sinh(r) / r : 1 + r * r / 6, keep = cosh(r);
  double square = 0;
#pragma omp simd reduction(+ : square)
  for (int64_t i = 1; i < n; i++) {
    y[i] = keep * x[i] + along * u[i];
    square += y[i] * y[i];
  }
  y[0] = sqrt(square + c);
}

static void lorentz_step(row *r, double curvature, const kp_adamw_step *s) {
  const double c = -1 / curvature;
  const int64_t n = r->n;
  r->g[0] = -r->g[0];
  make_tangent(r->g, r->x, c, n);
  const double factor = moments(r, s, fmax(minkowski(r->g, r->g, n), 0));
  for (int64_t i = 0; i < n; i++) r->u[i] = factor * r->m[i];
  make_tangent(r->u, r->x, c, n);
  lorentz_exp(r->y, r->x, r->u, c, n);
  const double carry = minkowski(r->y, r->m, n) / (c - minkowski(r->x, r->y, n));
  add_scaled(r->m, r->m, carry, r->x, n);
  add_scaled(r->m, r->m, carry, r->y, n);
  make_tangent(r->m, r->y, c, n);
}

/* ---- stereographic ---- */

static void stereographic_step(row *r, double kappa, const kp_adamw_step *s) {
  const size_t n = (size_t)r->n;
  const double conformal = kp_conformal_factor(n, kappa, r->x);
  double square = 0;
  kp_riemannian_gradient(n, kappa, r->x, r->g, r->g);
  for (int64_t i = 0; i < r->n; i++) square += r->g[i] * r->g[i];
  const double factor = moments(r, s, conformal * conformal * square);
  for (int64_t i = 0; i < r->n; i++) r->u[i] = factor * r->m[i];
  kp_exp_map(n, kappa, r->x, r->u, r->y);
  kp_project_point(n, kappa, KP_BALL_MARGIN, r->y, r->y);
  kp_parallel_transport(n, kappa, r->x, r->y, r->m, r->u);
  for (int64_t i = 0; i < r->n; i++) r->m[i] = r->u[i];
}

/* ---- rows of the flat buffers ---- */

static void load(const kp_parameters *parameters, double gradient_scale, int64_t at, row *r) {
  const bool wide = kp_is_wide(parameters);
  for (int64_t i = 0; i < r->n; i++) {
    r->x[i] = kp_element(parameters->values, wide, at + i);
    r->g[i] = gradient_scale * kp_element(parameters->gradients, wide, at + i);
    r->m[i] = kp_element(parameters->moment1, wide, at + i);
  }
  r->square = kp_element(parameters->moment2, wide, at);
}

static void store(const kp_parameters *parameters, int64_t at, const row *r) {
  const bool wide = kp_is_wide(parameters);
  for (int64_t i = 0; i < r->n; i++) {
    kp_element_set(parameters->values, wide, at + i, r->y[i]);
    kp_element_set(parameters->moment1, wide, at + i, r->m[i]);
  }
  kp_element_set(parameters->moment2, wide, at, r->square);
}

void kp_riemannian_adam_apply(const kp_parameters *parameters, const kp_parameter *parameter,
                              const kp_adamw_step *step, int64_t first, int64_t last, double *scratch) {
  const int64_t n = kp_matrices_of(parameter).columns;
  row r = {n, scratch, scratch + n, scratch + 2 * n, scratch + 3 * n, scratch + 4 * n, 0};
  for (int64_t i = first; i < last; i++) {
    const int64_t at = parameter->offset + i * n;
    load(parameters, step->gradient_scale, at, &r);
    if (parameter->manifold == KP_MANIFOLD_LORENTZ)
      lorentz_step(&r, parameter->curvature, step);
    else
      stereographic_step(&r, parameter->curvature, step);
    store(parameters, at, &r);
  }
}
