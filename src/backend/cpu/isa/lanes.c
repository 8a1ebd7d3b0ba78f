/* Which form of a row program a block of lanes runs; see lanes.h. */
#include "backend/cpu/isa/lanes.h"

/* The signs of κ in a block. */
typedef struct signs {
  bool positive, other;
} signs;

static signs signs_of(const kp_lanes *lanes) {
  signs s = {false, false};
  for (int lane = 0; lane < KP_LANES; lane++) {
    if (lanes->kappa[lane] > 0)
      s.positive = true;
    else
      s.other = true;
  }
  return s;
}

/* Takes over `from`'s results in the lanes with κ <= 0. */
static void merge(kp_lanes *lanes, const kp_lanes *from) {
  for (int lane = 0; lane < KP_LANES; lane++) {
    if (lanes->kappa[lane] > 0) continue;
    for (int i = 0; i < KP_ROW_PROGRAM_MAX_INPUTS; i++)
      lanes->coefficients[i][lane] = from->coefficients[i][lane];
    for (int i = 0; i < KP_ROW_PROGRAM_MAX_GRAM; i++) lanes->gram_bar[i][lane] = from->gram_bar[i][lane];
    lanes->kappa_bar[lane] = from->kappa_bar[lane];
    lanes->event[lane] = from->event[lane];
  }
}

static void run(kp_lanes_program *hyperbolic, kp_lanes_program *spherical, kp_lanes *lanes) {
  const signs s = signs_of(lanes);
  if (spherical == NULL || !s.positive) {
    hyperbolic(lanes);
  } else if (!s.other) {
    spherical(lanes);
  } else {
    kp_lanes copy = *lanes;
    hyperbolic(&copy);
    spherical(lanes);
    merge(lanes, &copy);
  }
}

/* A program without a vector form. */
static void forward_lane(const kp_row_program *program, double parameter, kp_lanes *lanes, int lane) {
  const int outputs = program->scalar ? 1 : program->inputs;
  double gram[KP_ROW_PROGRAM_MAX_GRAM], coefficients[KP_ROW_PROGRAM_MAX_INPUTS];
  for (int i = 0; i < KP_ROW_PROGRAM_MAX_GRAM; i++) gram[i] = lanes->gram[i][lane];
  lanes->event[lane] = program->forward(gram, lanes->kappa[lane], parameter, coefficients);
  for (int i = 0; i < outputs; i++) lanes->coefficients[i][lane] = coefficients[i];
}

static void backward_lane(const kp_row_program *program, double parameter, kp_lanes *lanes, int lane) {
  const int entries = program->inputs * (program->inputs + 1) / 2;
  double gram[KP_ROW_PROGRAM_MAX_GRAM], gram_bar[KP_ROW_PROGRAM_MAX_GRAM], bar[KP_ROW_PROGRAM_MAX_INPUTS],
      p_bar;
  for (int i = 0; i < KP_ROW_PROGRAM_MAX_GRAM; i++) gram[i] = lanes->gram[i][lane];
  for (int i = 0; i < KP_ROW_PROGRAM_MAX_INPUTS; i++) bar[i] = lanes->coefficients_bar[i][lane];
  program->backward(gram, lanes->kappa[lane], parameter, bar, gram_bar, &lanes->kappa_bar[lane], &p_bar);
  for (int i = 0; i < entries; i++) lanes->gram_bar[i][lane] = gram_bar[i];
}

void KP_ISA_NAME(kp_lanes_forward)(int program, double parameter, kp_lanes *lanes) {
  const kp_lanes_forms hyperbolic = KP_ISA_NAME(kp_lanes_hyperbolic)[program];
  if (hyperbolic.forward != NULL) {
    run(hyperbolic.forward, KP_ISA_NAME(kp_lanes_spherical)[program].forward, lanes);
    return;
  }
  for (int lane = 0; lane < KP_LANES; lane++) forward_lane(&kp_row_programs[program], parameter, lanes, lane);
}

void KP_ISA_NAME(kp_lanes_backward)(int program, double parameter, kp_lanes *lanes) {
  const kp_lanes_forms hyperbolic = KP_ISA_NAME(kp_lanes_hyperbolic)[program];
  if (hyperbolic.backward != NULL) {
    run(hyperbolic.backward, KP_ISA_NAME(kp_lanes_spherical)[program].backward, lanes);
    return;
  }
  for (int lane = 0; lane < KP_LANES; lane++)
    backward_lane(&kp_row_programs[program], parameter, lanes, lane);
}

void KP_ISA_NAME(kp_lanes_both)(int program, double parameter, kp_lanes *lanes) {
  const kp_lanes_forms hyperbolic = KP_ISA_NAME(kp_lanes_hyperbolic)[program];
  if (hyperbolic.both != NULL) {
    run(hyperbolic.both, KP_ISA_NAME(kp_lanes_spherical)[program].both, lanes);
    return;
  }
  KP_ISA_NAME(kp_lanes_forward)(program, parameter, lanes);
  KP_ISA_NAME(kp_lanes_backward)(program, parameter, lanes);
}
