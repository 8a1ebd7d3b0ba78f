/* A stream on the unit sphere (nGPT, Loshchilov et al. 2024, equations 10 and 11).
 *
 *     h ← norm( h + λ (norm(u) - h) )      or along the great circle from h towards u
 *
 * λ are the eigen learning rates, one a channel, stored smaller than they are so that the optimizer moves
 * them as much as a matrix's entry.  There is no norm in front of a sub-layer: the stream is normalised. */
#include <math.h>
#include <stdio.h>

#include "models/parts/parts.h"

static kp_tensor *step(kp_builder *b, int64_t layer, const char *sublayer, kp_tensor *h, kp_tensor *u) {
  const kp_model_options *o = b->options;
  const double stored = o->sphere_scale;
  char name[96];
  snprintf(name, sizeof name, "transformer.h.%lld.%s.rate", (long long)layer, sublayer);
  kp_graph_scope(b->graph, "%s", name);
  kp_tensor *rate = kp_part_parameter(b, name, KP_GROUP_NO_DECAY, kp_initial_of(stored), 1, &o->width);
  return kp_sphere_residual(
      b->graph, h, u, rate,
      (kp_sphere_arguments){.step = o->residual == KP_RESIDUAL_SLERP ? KP_SPHERE_SLERP : KP_SPHERE_LERP,
                            .factor = o->sphere_rate / stored});
}

/* What a sub-layer reads: the stream, or with a norm what the norm makes of it. */
static kp_point read(kp_builder *b, int64_t layer, const char *norm, kp_tensor *h) {
  char name[64];
  kp_tensor *weight, *bias;
  if (b->options->norm == KP_NORM_NONE) return (kp_point){.space = h};
  snprintf(name, sizeof name, "transformer.h.%lld.%s", (long long)layer, norm);
  kp_graph_scope(b->graph, "%s", name);
  kp_part_norm_parameters(b, name, &weight, &bias);
  return (kp_point){.space =
                        kp_normalise(b->graph, h, weight, bias, b->options->norm, b->options->norm_epsilon)};
}

kp_point kp_part_sphere_stream(kp_builder *b, kp_point x) {
  kp_tensor *h = x.space;
  for (int64_t layer = 0; layer < b->options->layers; layer++) {
    kp_part_keep_hidden(b, layer, h);
    kp_tensor *attended = kp_part_attention(b, layer, read(b, layer, "ln_1", h)).space;
    h = step(b, layer, "attn", h, attended);
    kp_tensor *fed = kp_part_feed_forward(b, layer, read(b, layer, "ln_2", h)).space;
    h = step(b, layer, "mlp", h, fed);
  }
  kp_part_keep_hidden(b, b->options->layers, h);
  return (kp_point){.space = h};
}
