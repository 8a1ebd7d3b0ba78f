/* gpt: the GPT-2 transformer (Radford et al. 2019) as nanoGPT trains it.
 *
 *     x ← x + Attention(LN(x));   x ← x + MLP(LN(x))
 *
 * With `token_difference` the sub-layers read LN(x_t - r_t), r_t = x_{t-1} of the block's input: the flat
 * twin that differs from the mixed-curvature transformer in curvature alone.  With `residual: bounded` the
 * stream is drawn back into a ball, x ← ρ(x + u): the twin that is as bounded as the ball of a hyperbolic
 * space, and flat. */
#include "models/families.h"

static const char *const presets[] = {NULL};

const kp_family kp_family_gpt = {
    .name = "gpt",
    .help = "the GPT-2 transformer; token_difference: true makes the flat twin of mixed",
    .presets = presets};
