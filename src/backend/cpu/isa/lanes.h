/* Row programs on many rows at once: what a row program (geometry/row_program.h) is to one row, a block of
 * lanes is to KP_LANES of them, one in each lane of the vector registers.
 *
 * The formulas are those of geometry/, included with elementary functions that vectorise.  They are compiled
 * twice, for κ <= 0 and for κ > 0, so that no lane pays for the branches of the other sign; a block with
 * both runs both and picks.  Programs outside of the residual stream run lane by lane through the table of
 * geometry/row_program.h.
 *
 * What holds always: a lane's result depends on nothing but that lane's input, and all lanes are computed:
 * fill unused ones with zeros. */
#ifndef KAPPA_BACKEND_CPU_LANES_H
#define KAPPA_BACKEND_CPU_LANES_H

#include "backend/cpu/isa/isa.h"
#include "geometry/row_program.h"

enum { KP_LANES = 16 };

typedef struct kp_lanes {
  _Alignas(64) double gram[KP_ROW_PROGRAM_MAX_GRAM][KP_LANES];
  double kappa[KP_LANES];
  double coefficients[KP_ROW_PROGRAM_MAX_INPUTS][KP_LANES];
  double coefficients_bar[KP_ROW_PROGRAM_MAX_INPUTS][KP_LANES]; /* input of the backward */
  double gram_bar[KP_ROW_PROGRAM_MAX_GRAM][KP_LANES];
  double kappa_bar[KP_LANES];
  double event[KP_LANES]; /* 0 or 1 */
} kp_lanes;

typedef void kp_lanes_program(kp_lanes *lanes);

typedef struct kp_lanes_forms {
  kp_lanes_program *forward, *backward;
  kp_lanes_program *both; /* shares what they have in common; NULL: run one after the other */
} kp_lanes_forms;

/* By program; NULL where there is no vector form.  The spherical table lacks the published programs, which
 * clamp κ to negative values and stand in the hyperbolic one for both signs. */
extern const kp_lanes_forms KP_ISA_NAME(kp_lanes_hyperbolic)[KP_PROGRAM_COUNT];
extern const kp_lanes_forms KP_ISA_NAME(kp_lanes_spherical)[KP_PROGRAM_COUNT];

/* Coefficients and events from the Gram entries and κ. */
void KP_ISA_NAME(kp_lanes_forward)(int program, double parameter, kp_lanes *lanes);
/* The gradients of Gram entries and κ from those of the coefficients. */
void KP_ISA_NAME(kp_lanes_backward)(int program, double parameter, kp_lanes *lanes);
/* Coefficients and gradients. */
void KP_ISA_NAME(kp_lanes_both)(int program, double parameter, kp_lanes *lanes);

#endif
