/* The vector form of the residual stream's programs, for the sign of κ that the including file names by
 * KP_LANES_SPHERICAL.  See lanes.h.
 *
 * Each loop calls a function of one lane, whose local arrays the compiler can then take apart; and it is
 * flattened, because a call that stays in the loop keeps it from being vectorised. */
#ifndef KAPPA_BACKEND_CPU_LANES_PROGRAMS_H
#define KAPPA_BACKEND_CPU_LANES_PROGRAMS_H

#define KP_GEOMETRY_FUNCTIONS "backend/cpu/isa/lanes_functions.h"

#include "backend/cpu/isa/lanes.h"
#include "geometry/programs.h"

static inline void load(int inputs, const kp_lanes *lanes, int lane, double *gram, double *coefficients_bar) {
  for (int i = 0; i < inputs * (inputs + 1) / 2; i++) gram[i] = lanes->gram[i][lane];
  for (int i = 0; i < inputs; i++) coefficients_bar[i] = lanes->coefficients_bar[i][lane];
}

static inline void store(int inputs, kp_lanes *lanes, int lane, const double *coefficients,
                         const double *gram_bar) {
  for (int i = 0; i < inputs; i++) lanes->coefficients[i][lane] = coefficients[i];
  for (int i = 0; i < inputs * (inputs + 1) / 2; i++) lanes->gram_bar[i][lane] = gram_bar[i];
}

#define KP_LANES_PROGRAM(name, inputs)                                                                       \
  static inline void forward_lane_##name(kp_lanes *lanes, int lane) {                                        \
    double gram[6], bar[3], coefficients[3];                                                                 \
    load(inputs, lanes, lane, gram, bar);                                                                    \
    lanes->event[lane] = kp_##name##_forward(gram, lanes->kappa[lane], 0, coefficients);                     \
    for (int i = 0; i < inputs; i++) lanes->coefficients[i][lane] = coefficients[i];                         \
  }                                                                                                          \
  static inline void backward_lane_##name(kp_lanes *lanes, int lane) {                                       \
    double gram[6], bar[3], coefficients[3], gram_bar[6], kappa_bar, p_bar;                                  \
    load(inputs, lanes, lane, gram, bar);                                                                    \
    kp_##name##_forward(gram, lanes->kappa[lane], 0, coefficients);                                          \
    kp_##name##_backward(gram, lanes->kappa[lane], 0, bar, gram_bar, &kappa_bar, &p_bar);                    \
    store(inputs, lanes, lane, coefficients, gram_bar);                                                      \
    lanes->kappa_bar[lane] = kappa_bar;                                                                      \
  }                                                                                                          \
  __attribute__((flatten)) static void forward_##name(kp_lanes *lanes) {                                     \
    _Pragma("omp simd") for (int lane = 0; lane < KP_LANES; lane++) forward_lane_##name(lanes, lane);        \
  }                                                                                                          \
  __attribute__((flatten)) static void backward_##name(kp_lanes *lanes) {                                    \
    _Pragma("omp simd") for (int lane = 0; lane < KP_LANES; lane++) backward_lane_##name(lanes, lane);       \
  }
KP_LANES_PROGRAM(update_e1, 3)
KP_LANES_PROGRAM(update_e2, 3)
KP_LANES_PROGRAM(update_e3, 2)
KP_LANES_PROGRAM(tangent_log, 2)
KP_LANES_PROGRAM(tangent_transported, 2)

#endif
