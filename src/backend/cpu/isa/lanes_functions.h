/* What geometry/real.h takes from the lanes: elementary functions that vectorise, and one sign of κ for all
 * rows, which lanes_programs.h names.  The branches for the other sign then are not compiled at all. */
#ifndef KAPPA_BACKEND_CPU_LANES_FUNCTIONS_H
#define KAPPA_BACKEND_CPU_LANES_FUNCTIONS_H

#include "backend/cpu/isa/vector_math_double.h"

static inline int kp_positive(double z) {
  (void)z;
  return KP_LANES_SPHERICAL;
}
static inline double kp_exp(double x) {
  return kp_lane_exp(x);
}
static inline double kp_log(double x) {
  return kp_lane_log(x);
}
static inline double kp_log1p(double x) {
  return kp_lane_log1p(x);
}
static inline double kp_sin(double x) {
  return kp_lane_sin(x);
}
static inline double kp_cos(double x) {
  return kp_lane_cos(x);
}
static inline double kp_tan(double x) {
  return kp_lane_tan(x);
}
static inline double kp_sinh(double x) {
  return kp_lane_sinh(x);
}
static inline double kp_cosh(double x) {
  return kp_lane_cosh(x);
}
static inline double kp_tanh(double x) {
  return kp_lane_tanh(x);
}
static inline double kp_atan(double x) {
  return kp_lane_atan(x);
}
static inline double kp_atan2(double y, double x) {
  return kp_lane_atan2(y, x);
}

#endif
