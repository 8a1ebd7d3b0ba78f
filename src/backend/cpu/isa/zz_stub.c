#include "backend/cpu/isa/isa.h"
#define S(n) kp_status KP_KERNEL(n)(const kp_call *c, kp_error *e) { (void)c; (void)e; return KP_OK; }
S(residual_norm) S(residual_norm_backward) S(row_program) S(row_program_backward) S(midpoint) S(midpoint_backward) S(reference) S(reference_backward)
