/* deepseek: a mixture of experts with latent attention (DeepSeek-AI 2024), the flat twin of HELM-MiCE.
 *
 * Keys and values of all heads are linear maps of one latent vector, which alone is cached, beside a small
 * rotated key that the heads share.  Behind the first blocks the feed-forward is a shared expert and the
 * best few of many routed ones, chosen by scores whose bias follows the load. */
#include "models/families.h"

static const char *const presets[] = {"model.bias=false",
                                      "model.positions=rotary",
                                      "model.norm=rms",
                                      "model.norm_epsilon=1e-6",
                                      "model.activation=silu",
                                      "model.head=untied",
                                      "model.attention.kind=latent",
                                      "model.feed_forward=moe",
                                      NULL};

const kp_family kp_family_deepseek = {
    .name = "deepseek",
    .help = "latent attention and a mixture of experts: the flat twin of helm_mice",
    .presets = presets};
