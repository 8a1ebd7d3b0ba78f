/* llama: the transformer of LLaMA (Touvron et al. 2023), which is also the baseline of nGPT.
 *
 *     x ← x + Attention(RMSNorm(x));   x ← x + W₂ (W₁ y · silu(W₃ y)),  y = RMSNorm(x)
 *
 * Rotary positions, no biases, an untied head.  The flat twin of nGPT and of HELM-D. */
#include "models/families.h"

static const char *const presets[] = {
    "model.bias=false",         "model.positions=rotary", "model.norm=rms",    "model.norm_epsilon=1e-6",
    "model.feed_forward=gated", "model.activation=silu",  "model.head=untied", NULL};

const kp_family kp_family_llama = {.name = "llama",
                                   .help = "RMSNorm, rotary positions, SwiGLU: the flat twin of ngpt, helm_d",
                                   .presets = presets};
