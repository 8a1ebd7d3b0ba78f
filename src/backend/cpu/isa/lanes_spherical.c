/* Row programs in lanes for κ > 0. */
#define KP_LANES_SPHERICAL 1

#include "backend/cpu/isa/lanes_programs.h"

const kp_lanes_forms KP_ISA_NAME(kp_lanes_spherical)[KP_PROGRAM_COUNT] = {
    [KP_PROGRAM_UPDATE_E1] = {forward_update_e1, backward_update_e1, NULL},
    [KP_PROGRAM_UPDATE_E2] = {forward_update_e2, backward_update_e2, NULL},
    [KP_PROGRAM_UPDATE_E3] = {forward_update_e3, backward_update_e3, both_update_e3},
    [KP_PROGRAM_FLAT_BOUNDED] = {forward_flat_bounded, backward_flat_bounded, both_flat_bounded},
    [KP_PROGRAM_TANGENT_LOG] = {forward_tangent_log, backward_tangent_log, NULL},
    [KP_PROGRAM_TANGENT_TRANSPORTED] = {forward_tangent_transported, backward_tangent_transported, NULL},
};
