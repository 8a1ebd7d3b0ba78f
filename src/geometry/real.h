/* The number type of the geometry, its elementary functions, and every epsilon.
 *
 * A translation unit that defines KP_GEOMETRY_FLOAT before including a header of
 * this folder gets the formulas in float (device code); all others get double.
 * KP_HD marks a function for host and device when CUDA compiles it.
 * KP_GEOMETRY_FUNCTIONS names a header with kp_positive and kp_exp ... kp_atan2 in double of the includer's
 * own: the fast kernels have some that vectorise, and are compiled for each sign of kappa.
 *
 * Two rules hold for all constants below.  An epsilon is a floor, max(x, e),
 * and never a shift, x + e, except where published code is reproduced.  And a
 * floor that acts is an event which the caller can count. */
#ifndef KAPPA_GEOMETRY_REAL_H
#define KAPPA_GEOMETRY_REAL_H

#include <float.h>
#include <math.h>

#if defined(__CUDACC__)
#define KP_HD __host__ __device__
#else
#define KP_HD
#endif

#if defined(KP_GEOMETRY_FLOAT)
typedef float kp_real;
#define KP_REAL_EPSILON FLT_EPSILON
#define KP_REAL_TINY    FLT_MIN
#else
typedef double kp_real;
#define KP_REAL_EPSILON DBL_EPSILON
#define KP_REAL_TINY    DBL_MIN
#endif

#define KP_PI ((kp_real)3.14159265358979323846)

/* Below this |z| the functions of z = kappa r^2 are summed as series: closed forms of
 * the derivatives lose a factor 1/|z| there, and at 0.1 that is one digit. */
#define KP_SERIES_RADIUS ((kp_real)0.1)

/* kappa > 0: the argument of tan stops short of the pole, so |x| <= 1e3 / sqrt(kappa).  Beyond,
 * a step of float size in the tangent would move the point across the antipode of 0. */
#define KP_TANGENT_POLE ((kp_real)(1.57079632679489661923 - 1e-3))

/* kappa < 0: the argument of tanh stops where products of three complements 1/cosh^2 and the
 * squared norm of a tangent vector over a squared complement still are normal numbers:
 * exp(-200)^3 and 1e60 exp(400) in double, exp(-30)^3 in float. */
#if defined(KP_GEOMETRY_FLOAT)
#define KP_TANGENT_LIMIT ((kp_real)15)
#else
#define KP_TANGENT_LIMIT ((kp_real)100)
#endif

/* Chart coordinates hold no information about 1 + kappa |x|^2 below the rounding of 1. */
#if defined(KP_GEOMETRY_FLOAT)
#define KP_COMPLEMENT_FLOOR ((kp_real)1e-7)
#else
#define KP_COMPLEMENT_FLOOR ((kp_real)1e-15)
#endif

/* Geodesic scores.  The square root needs a floor at coincident points: the published score adds it to w.
 * 1 - kappa w has one at the cut locus, where the distance has a kink.  Beyond the sine limit
 * cosh^4 leaves the range of the number type. */
#define KP_SCORE_EPSILON   ((kp_real)1e-12)
#define KP_SCORE_CUT_FLOOR ((kp_real)1e-6)
#if defined(KP_GEOMETRY_FLOAT)
#define KP_SINE_LIMIT ((kp_real)20)
#else
#define KP_SINE_LIMIT ((kp_real)80)
#endif

/* The sphere.  A shorter vector has no direction: its square, or a gradient over its length, would leave the
 * range of float.  And the arc to a point is not unique where its sine is below this, near the antipode. */
#if defined(KP_GEOMETRY_FLOAT)
#define KP_DIRECTION_FLOOR ((kp_real)1e-18)
#else
#define KP_DIRECTION_FLOOR ((kp_real)1e-30)
#endif
#define KP_ANTIPODE_SINE ((kp_real)1e-12)

/* The published mixed-curvature transformer: the shift inside its roots and quotients, the
 * largest argument of artanh, and the range to which it clamps c. */
#define KP_UPSTREAM_EPSILON        ((kp_real)1e-9)
#define KP_UPSTREAM_ARGUMENT_LIMIT ((kp_real)0.9999)
#define KP_UPSTREAM_CURVATURE_MIN  ((kp_real)1e-4)
#define KP_UPSTREAM_CURVATURE_MAX  ((kp_real)1)

/* kp_max and kp_min of (value, bound) pass on a value that is not a number: a floor must not hide it. */
#if defined(KP_GEOMETRY_FLOAT)
KP_HD static inline kp_real kp_sqrt(kp_real x) {
  return sqrtf(x);
}
KP_HD static inline kp_real kp_abs(kp_real x) {
  return fabsf(x);
}
KP_HD static inline kp_real kp_max(kp_real x, kp_real y) {
  return x < y ? y : x;
}
KP_HD static inline kp_real kp_min(kp_real x, kp_real y) {
  return x > y ? y : x;
}
KP_HD static inline kp_real kp_exp(kp_real x) {
  return expf(x);
}
KP_HD static inline kp_real kp_log(kp_real x) {
  return logf(x);
}
KP_HD static inline kp_real kp_log1p(kp_real x) {
  return log1pf(x);
}
KP_HD static inline kp_real kp_sin(kp_real x) {
  return sinf(x);
}
KP_HD static inline kp_real kp_cos(kp_real x) {
  return cosf(x);
}
KP_HD static inline kp_real kp_tan(kp_real x) {
  return tanf(x);
}
KP_HD static inline kp_real kp_sinh(kp_real x) {
  return sinhf(x);
}
KP_HD static inline kp_real kp_cosh(kp_real x) {
  return coshf(x);
}
KP_HD static inline kp_real kp_tanh(kp_real x) {
  return tanhf(x);
}
KP_HD static inline kp_real kp_asin(kp_real x) {
  return asinf(x);
}
KP_HD static inline kp_real kp_atan(kp_real x) {
  return atanf(x);
}
KP_HD static inline kp_real kp_atan2(kp_real y, kp_real x) {
  return atan2f(y, x);
}
#else
KP_HD static inline kp_real kp_sqrt(kp_real x) {
  return sqrt(x);
}
KP_HD static inline kp_real kp_abs(kp_real x) {
  return fabs(x);
}
KP_HD static inline kp_real kp_max(kp_real x, kp_real y) {
  return x < y ? y : x;
}
KP_HD static inline kp_real kp_min(kp_real x, kp_real y) {
  return x > y ? y : x;
}
#if defined(KP_GEOMETRY_FUNCTIONS)
#include KP_GEOMETRY_FUNCTIONS
#else
KP_HD static inline kp_real kp_exp(kp_real x) {
  return exp(x);
}
KP_HD static inline kp_real kp_log(kp_real x) {
  return log(x);
}
KP_HD static inline kp_real kp_log1p(kp_real x) {
  return log1p(x);
}
KP_HD static inline kp_real kp_sin(kp_real x) {
  return sin(x);
}
KP_HD static inline kp_real kp_cos(kp_real x) {
  return cos(x);
}
KP_HD static inline kp_real kp_tan(kp_real x) {
  return tan(x);
}
KP_HD static inline kp_real kp_sinh(kp_real x) {
  return sinh(x);
}
KP_HD static inline kp_real kp_cosh(kp_real x) {
  return cosh(x);
}
KP_HD static inline kp_real kp_tanh(kp_real x) {
  return tanh(x);
}
KP_HD static inline kp_real kp_asin(kp_real x) {
  return asin(x);
}
KP_HD static inline kp_real kp_atan(kp_real x) {
  return atan(x);
}
KP_HD static inline kp_real kp_atan2(kp_real y, kp_real x) {
  return atan2(y, x);
}
#endif
#endif

#if !defined(KP_GEOMETRY_FUNCTIONS)
/* Which of the two geometries applies: asked of kappa, or of z = kappa r^2 where that is not 0. */
KP_HD static inline int kp_positive(kp_real z) {
  return z > 0;
}
#endif

/* asinh(t) for t >= 0 without the cancellation of log(t + sqrt(1 + t^2)) at small t. */
KP_HD static inline kp_real kp_asinh(kp_real t) {
  kp_real square = t * t;
  if (square > 1 / (KP_REAL_EPSILON * KP_REAL_EPSILON)) return kp_log(t) + (kp_real)0.69314718055994530942;
  return kp_log1p(t + square / (1 + kp_sqrt(1 + square)));
}

#endif
