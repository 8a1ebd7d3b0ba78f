/* The feed-forward of a block. */
#include <stdio.h>

#include "models/parts/parts.h"

kp_tensor *kp_part_dropout(kp_builder *b, kp_tensor *x) {
  if (b->network->build.mode != KP_BUILD_TRAIN) return x;
  return kp_dropout(b->graph, x, b->options->dropout, b->dropouts++);
}

static void name_of(char name[96], int64_t layer, const char *part) {
  snprintf(name, 96, "transformer.h.%lld.mlp.%s", (long long)layer, part);
}

/* W₂ f(W₁ y), or with a gate W₂ (u · f(g)) where W₁ gives u and g side by side. */
static kp_tensor *dense(kp_builder *b, int64_t layer, kp_tensor *y, bool gated) {
  const kp_model_options *o = b->options;
  char name[96];
  name_of(name, layer, "c_fc");
  kp_tensor *wide =
      kp_part_linear(b, y, name, gated ? 2 * o->hidden : o->hidden, o->bias, kp_initial_weight(o));
  wide->recompute = o->recompute >= KP_RECOMPUTE_LINEARS;
  kp_tensor *active = gated ? kp_gated_activation(b->graph, wide, NULL, o->activation)
                            : kp_activation(b->graph, wide, o->activation);
  active->recompute = o->recompute >= KP_RECOMPUTE_ACTIVATIONS;
  name_of(name, layer, "c_proj");
  return kp_part_projection(b, active, name, o->bias);
}

kp_point kp_part_feed_forward(kp_builder *b, int64_t layer, kp_point y) {
  const kp_model_options *o = b->options;
  kp_graph_scope(b->graph, "transformer.h.%lld.mlp", (long long)layer);
  kp_tensor *u = dense(b, layer, y.space, o->feed_forward == KP_FEED_FORWARD_GATED);
  return (kp_point){.space = kp_part_dropout(b, u)};
}
