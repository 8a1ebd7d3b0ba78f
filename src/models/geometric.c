/* geometric: attention by geodesic distance, on a curvature that each head learns.
 *
 *     κ_h = 2 tanh θ_h,   P_ij = softmax_j( -β_h d_κ(exp_0 q_i, exp_0 k_j)² ),   o_i = Σ_j P_ij v_j
 *
 * Queries and keys are tangent vectors at the origin, of norm about 1 (they are divided by the root of the
 * head size), so that κ|q|² is what the head learns.  At κ = 0 the score is -|q - k|² · 4β: a dot product
 * with a bias from the key's norm.  `score: distance` takes the distance itself.  All else is gpt. */
#include "models/families.h"

static const char *const presets[] = {
    "model.attention.score=distance_squared", "model.attention.query_norm=scaled",
    "model.attention.curvature.mode=random", "model.attention.curvature.value=[0]", NULL};

const kp_family kp_family_geometric = {.name = "geometric",
                                       .twin = "model.family=gpt",
                                       .help = "attention by geodesic distance, a learned curvature a head",
                                       .curved = true,
                                       .presets = presets};
