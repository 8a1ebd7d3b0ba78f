/* mixed: the mixed-curvature transformer.
 *
 * exact (the default): the residual stream is a point x of a space of
 * curvature κ, a product of one space a head if `per_head`.  A block takes the
 * logarithm at a reference point r (the previous token), and moves x by the
 * sub-layer's output u:
 *
 *     E1:  z = log_r(x)              x ← x ⊕ exp_r(u)
 *     E2:  z = log_r(x)              x ← exp_x(PT_{r→x} u)
 *     E3:  z = log_0((-r) ⊕ x)       x ← x ⊕ exp_0(u) = exp_x(PT_{0→x} u)
 *
 * The stream is stored as h = log_0(x) (docs/geometry.md): entering the space
 * (exp_0), moving between blocks of different κ (exp_0 of one, log_0 of the
 * other) and leaving it (log_0) then cost nothing, no point can leave the
 * ball, and κ → 0 gives the flat twin gpt with token_difference.
 *
 * upstream: what the published code computes (github.com/tomoqt's
 * hyperbolic_transformer), with its conformal factor, its epsilons and its
 * clamps; the stream is x itself; attention's output projection is missing. */
#include "models/families.h"

static const char *const presets[] = {"model.residual=stereographic", NULL};

const kp_family kp_family_mixed = {
    .name = "mixed",
    .twin = "model.family=gpt model.token_difference=true",
    .help = "the mixed-curvature transformer: Möbius residual, tangent space at the previous token",
    .curved = true,
    .presets = presets};
