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

static inline void load_gram(int inputs, const kp_lanes *lanes, int lane, double *gram) {
  for (int i = 0; i < inputs * (inputs + 1) / 2; i++) gram[i] = lanes->gram[i][lane];
}
static inline void load_bars(int inputs, const kp_lanes *lanes, int lane, double *coefficients_bar) {
  for (int i = 0; i < inputs; i++) coefficients_bar[i] = lanes->coefficients_bar[i][lane];
}
static inline void store_coefficients(int inputs, kp_lanes *lanes, int lane, const double *coefficients) {
  for (int i = 0; i < inputs; i++) lanes->coefficients[i][lane] = coefficients[i];
}
static inline void store_gradients(int inputs, kp_lanes *lanes, int lane, const double *gram_bar,
                                   double kappa_bar) {
  for (int i = 0; i < inputs * (inputs + 1) / 2; i++) lanes->gram_bar[i][lane] = gram_bar[i];
  lanes->kappa_bar[lane] = kappa_bar;
}

#define KP_LANES_FORWARD(name, inputs)                                                                       \
  static inline void forward_lane_##name(kp_lanes *lanes, int lane) {                                        \
    double gram[6], coefficients[3];                                                                         \
    load_gram(inputs, lanes, lane, gram);                                                                    \
    lanes->event[lane] = kp_##name##_forward(gram, lanes->kappa[lane], 0, coefficients);                     \
    store_coefficients(inputs, lanes, lane, coefficients);                                                   \
  }                                                                                                          \
  __attribute__((flatten)) static void forward_##name(kp_lanes *lanes) {                                     \
    _Pragma("omp simd") for (int lane = 0; lane < KP_LANES; lane++) forward_lane_##name(lanes, lane);        \
  }

#define KP_LANES_BACKWARD(name, inputs)                                                                      \
  static inline void backward_lane_##name(kp_lanes *lanes, int lane) {                                       \
    double gram[6], bar[3], gram_bar[6], kappa_bar, p_bar;                                                   \
    load_gram(inputs, lanes, lane, gram);                                                                    \
    load_bars(inputs, lanes, lane, bar);                                                                     \
    kp_##name##_backward(gram, lanes->kappa[lane], 0, bar, gram_bar, &kappa_bar, &p_bar);                    \
    store_gradients(inputs, lanes, lane, gram_bar, kappa_bar);                                               \
  }                                                                                                          \
  __attribute__((flatten)) static void backward_##name(kp_lanes *lanes) {                                    \
    _Pragma("omp simd") for (int lane = 0; lane < KP_LANES; lane++) backward_lane_##name(lanes, lane);       \
  }

#define KP_LANES_BOTH(name, inputs)                                                                          \
  static inline void both_lane_##name(kp_lanes *lanes, int lane) {                                           \
    double gram[6], bar[3], coefficients[3], gram_bar[6], kappa_bar, p_bar;                                  \
    load_gram(inputs, lanes, lane, gram);                                                                    \
    load_bars(inputs, lanes, lane, bar);                                                                     \
    kp_##name##_forward(gram, lanes->kappa[lane], 0, coefficients);                                          \
    kp_##name##_backward(gram, lanes->kappa[lane], 0, bar, gram_bar, &kappa_bar, &p_bar);                    \
    store_coefficients(inputs, lanes, lane, coefficients);                                                   \
    store_gradients(inputs, lanes, lane, gram_bar, kappa_bar);                                               \
  }                                                                                                          \
  __attribute__((flatten)) static void both_##name(kp_lanes *lanes) {                                        \
    _Pragma("omp simd") for (int lane = 0; lane < KP_LANES; lane++) both_lane_##name(lanes, lane);           \
  }

KP_LANES_FORWARD(update_e1, 3)
KP_LANES_FORWARD(update_e2, 3)
KP_LANES_FORWARD(update_e3, 2)
KP_LANES_FORWARD(tangent_log, 2)
KP_LANES_FORWARD(tangent_transported, 2)
KP_LANES_BACKWARD(update_e1, 3)
KP_LANES_BACKWARD(update_e2, 3)
KP_LANES_BACKWARD(update_e3, 2)
KP_LANES_BACKWARD(tangent_log, 2)
KP_LANES_BACKWARD(tangent_transported, 2)
KP_LANES_BOTH(update_e3, 2)
KP_LANES_FORWARD(flat_bounded, 2)
KP_LANES_BACKWARD(flat_bounded, 2)
KP_LANES_BOTH(flat_bounded, 2)

#endif
