/* The elementary functions of geometry/real.h for one sign of κ; lanes_programs.h says which.
 *
 * The geometry chooses between trigonometric and hyperbolic functions by the sign of κ.  Where all lanes have
 * one sign, the other's functions are never chosen: returning the argument lets the compiler drop them. */
#ifndef KAPPA_BACKEND_CPU_LANES_FUNCTIONS_H
#define KAPPA_BACKEND_CPU_LANES_FUNCTIONS_H

#include "backend/cpu/isa/vector_math_double.h"

#if KP_LANES_SPHERICAL
#define KP_LANES_CHOOSE(hyperbolic, spherical) (spherical)
#else
#define KP_LANES_CHOOSE(hyperbolic, spherical) (hyperbolic)
#endif

static inline double kp_exp(double x) {
  return KP_LANES_CHOOSE(kp_lane_exp(x), x);
}
static inline double kp_log(double x) {
  return KP_LANES_CHOOSE(kp_lane_log(x), x);
}
static inline double kp_log1p(double x) {
  return KP_LANES_CHOOSE(kp_lane_log1p(x), x);
}
static inline double kp_sinh(double x) {
  return KP_LANES_CHOOSE(kp_lane_sinh(x), x);
}
static inline double kp_cosh(double x) {
  return KP_LANES_CHOOSE(kp_lane_cosh(x), x);
}
static inline double kp_tanh(double x) {
  return KP_LANES_CHOOSE(kp_lane_tanh(x), x);
}
static inline double kp_sin(double x) {
  return KP_LANES_CHOOSE(x, kp_lane_sin(x));
}
static inline double kp_cos(double x) {
  return KP_LANES_CHOOSE(x, kp_lane_cos(x));
}
static inline double kp_tan(double x) {
  return KP_LANES_CHOOSE(x, kp_lane_tan(x));
}
static inline double kp_atan(double x) {
  return KP_LANES_CHOOSE(x, kp_lane_atan(x));
}
static inline double kp_atan2(double y, double x) {
  return KP_LANES_CHOOSE(y + x, kp_lane_atan2(y, x));
}

#endif
