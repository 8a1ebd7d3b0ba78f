/* The kappa-stereographic model of the spaces of constant curvature, as functions of vectors.
 *
 * One chart holds all of them, and every function is smooth through kappa = 0:
 *
 *   kappa < 0   hyperbolic space: points of the ball |x| < 1 / sqrt(-kappa)
 *   kappa = 0   Euclidean space
 *   kappa > 0   the sphere of radius 1 / sqrt(kappa) without the antipode of the origin
 *
 * The metric is lambda_x^2 |.|^2 with lambda_x = 2 / (1 + kappa|x|^2), so that exp_0(u) lies at distance
 * 2|u| from the origin, and at kappa = 0 distances are twice the usual ones.
 * (Ungar 2008; Bachmann, Becigneul, Ganea 2020, "Constant curvature graph convolutional networks",
 * section 2.)
 *
 * Vectors are arrays of n doubles.  `out` has n doubles too and may be one of the inputs, unless a function
 * says otherwise.  Points are expected inside the chart.  Maps whose result would leave it (far along a
 * geodesic, or next to the antipode) stop just short of its end: finite input never gives NaN. */
#ifndef KAPPA_GEOMETRY_H
#define KAPPA_GEOMETRY_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* lambda_x = 2 / (1 + kappa|x|^2), the length of a unit tangent vector at x. */
double kp_conformal_factor(size_t n, double kappa, const double *x);

/* Moebius addition x (+) y: the point that y becomes when the origin is carried to x. */
void kp_mobius_add(size_t n, double kappa, const double *x, const double *y, double *out);

/* Moebius scaling factor (x) x: x moved to `factor` times its distance from the origin. */
void kp_mobius_scale(size_t n, double kappa, double factor, const double *x, double *out);

/* exp_0(u): the point reached from the origin along the tangent vector u. */
void kp_exp_origin(size_t n, double kappa, const double *u, double *out);

/* log_0(x): the tangent vector at the origin that leads to x. */
void kp_log_origin(size_t n, double kappa, const double *x, double *out);

/* exp_p(u): the point reached from p along the tangent vector u. */
void kp_exp_map(size_t n, double kappa, const double *p, const double *u, double *out);

/* log_p(x): the tangent vector at p that leads to x. */
void kp_log_map(size_t n, double kappa, const double *p, const double *x, double *out);

/* x (+) exp_p(u). */
void kp_add_exp_map(size_t n, double kappa, const double *x, const double *p, const double *u, double *out);

/* The distance d(x, y) along the shortest geodesic. */
double kp_point_distance(size_t n, double kappa, const double *x, const double *y);

/* d(x, y)^2, smooth where x = y. */
double kp_point_distance_squared(size_t n, double kappa, const double *x, const double *y);

/* The point at `time` on the geodesic from x (time 0) to y (time 1). */
void kp_geodesic_point(size_t n, double kappa, double time, const double *x, const double *y, double *out);

/* The gyromidpoint of `count` points (count, n) with weights (count), which are those of an average: not
 * negative and not all 0.  At kappa = 0 the weighted mean.  `out` must not overlap the inputs. */
void kp_gyromidpoint(size_t n, size_t count, double kappa, const double *points, const double *weights,
                     double *out);

/* The tangent vector v at x, transported to y along the geodesic between them. */
void kp_parallel_transport(size_t n, double kappa, const double *x, const double *y, const double *v,
                           double *out);

/* gyr[x, y] v: the rotation by which Moebius addition fails to be associative. */
void kp_gyrate(size_t n, double kappa, const double *x, const double *y, const double *v, double *out);

/* x itself where it lies inside (1 - margin) of the ball's radius, else the nearest such point. */
void kp_project_point(size_t n, double kappa, double margin, const double *x, double *out);

/* The Riemannian gradient at x of a function with Euclidean gradient g: g / lambda_x^2. */
void kp_riemannian_gradient(size_t n, double kappa, const double *x, const double *g, double *out);

/* The antipode -x / (kappa|x|^2); kappa > 0 and x is not the origin. */
void kp_antipode(size_t n, double kappa, const double *x, double *out);

#ifdef __cplusplus
}
#endif

#endif
