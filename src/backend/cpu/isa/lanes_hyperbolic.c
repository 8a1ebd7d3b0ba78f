/* Row programs in lanes for κ <= 0, and the published ones, whose κ is clamped to negative values. */
#define KP_LANES_SPHERICAL 0

#include "backend/cpu/isa/lanes_programs.h"

KP_LANES_FORWARD(upstream_update, 3)
KP_LANES_BACKWARD(upstream_update, 3)
KP_LANES_FORWARD(upstream_log_scalar, 2)
KP_LANES_BACKWARD(upstream_log_scalar, 2)
KP_LANES_FORWARD(upstream_log_per_head, 2)
KP_LANES_BACKWARD(upstream_log_per_head, 2)

const kp_lanes_forms KP_ISA_NAME(kp_lanes_hyperbolic)[KP_PROGRAM_COUNT] = {
    [KP_PROGRAM_UPDATE_E1] = {forward_update_e1, backward_update_e1, NULL},
    [KP_PROGRAM_UPDATE_E2] = {forward_update_e2, backward_update_e2, NULL},
    [KP_PROGRAM_UPDATE_E3] = {forward_update_e3, backward_update_e3, both_update_e3},
    [KP_PROGRAM_FLAT_BOUNDED] = {forward_flat_bounded, backward_flat_bounded, both_flat_bounded},
    [KP_PROGRAM_TANGENT_LOG] = {forward_tangent_log, backward_tangent_log, NULL},
    [KP_PROGRAM_TANGENT_TRANSPORTED] = {forward_tangent_transported, backward_tangent_transported, NULL},
    [KP_PROGRAM_UPSTREAM_UPDATE] = {forward_upstream_update, backward_upstream_update, NULL},
    [KP_PROGRAM_UPSTREAM_LOG_SCALAR] = {forward_upstream_log_scalar, backward_upstream_log_scalar, NULL},
    [KP_PROGRAM_UPSTREAM_LOG_PER_HEAD] = {forward_upstream_log_per_head, backward_upstream_log_per_head,
                                          NULL},
};
