/* The feed-forward of a block. */
#include <math.h>
#include <stdio.h>

#include "models/parts/parts.h"

kp_tensor *kp_part_dropout(kp_builder *b, kp_tensor *x) {
  if (b->network->build.mode != KP_BUILD_TRAIN) return x;
  return kp_dropout(b->graph, x, b->options->dropout, b->dropouts++);
}

static void name_of(char name[96], int64_t layer, const char *part) {
  snprintf(name, 96, "transformer.h.%lld.mlp.%s", (long long)layer, part);
}

/* W₂ f(W₁ y) */
static kp_tensor *plain(kp_builder *b, int64_t layer, kp_tensor *y) {
  const kp_model_options *o = b->options;
  char name[96];
  name_of(name, layer, "c_fc");
  kp_tensor *wide = kp_part_linear(b, y, name, o->hidden, o->bias, kp_initial_weight(o));
  wide->recompute = o->recompute >= KP_RECOMPUTE_LINEARS;
  kp_tensor *active = kp_activation(b->graph, wide, o->activation);
  active->recompute = o->recompute >= KP_RECOMPUTE_ACTIVATIONS;
  name_of(name, layer, "c_proj");
  return kp_part_projection(b, active, name, o->bias);
}

/* W₂ (u · f(g)), where one matrix gives u and g side by side.  On a spherical stream both have learned
 * scales, and the gate is brought to variance 1 by √C (nGPT, equation 20). */
static kp_tensor *gated(kp_builder *b, int64_t layer, kp_tensor *y, int64_t hidden, const char *prefix) {
  const kp_model_options *o = b->options;
  const int64_t both = 2 * hidden;
  char part[64], name[96];
  snprintf(part, sizeof part, "%sc_fc", prefix);
  name_of(name, layer, part);
  kp_tensor *wide = kp_part_linear(b, y, name, both, o->bias, kp_initial_weight(o));
  wide->recompute = o->recompute >= KP_RECOMPUTE_LINEARS;
  kp_gate gate = {.x = wide};
  if (kp_is_spherical(o)) {
    snprintf(part, sizeof part, "%sscale", prefix);
    name_of(name, layer, part);
    gate.scale = kp_part_parameter(b, name, KP_GROUP_NO_DECAY, kp_initial_of(1), 1, &both);
  }
  kp_tensor *active =
      kp_gated_point(b->graph, gate,
                     (kp_gated_arguments){.kind = o->activation, .gate_scale = sqrt((double)o->width)})
          .space;
  active->recompute = o->recompute >= KP_RECOMPUTE_ACTIVATIONS;
  /* The published code scales u by √C as well, which only a bias behind it can see: the branch is normalised.
   */
  if (gate.scale != NULL && o->bias) active = kp_scale(b->graph, active, sqrt((double)o->width));
  snprintf(part, sizeof part, "%sc_proj", prefix);
  name_of(name, layer, part);
  return kp_part_projection(b, active, name, o->bias);
}

/* The gated one between points: every map reads time, and what the gate gives is lifted. */
static kp_tensor *lorentz(kp_builder *b, int64_t layer, kp_point y, int64_t hidden, const char *prefix) {
  const kp_model_options *o = b->options;
  char part[64], name[96];
  kp_tensor *c = kp_part_radius(b);
  if (y.time == NULL) y.time = kp_lift(b->graph, y.space, 1, c);
  snprintf(part, sizeof part, "%sc_fc", prefix);
  name_of(name, layer, part);
  kp_tensor *wide = kp_part_point_linear(b, y, name, 2 * hidden, kp_initial_lorentz(hidden, o->width + 1));
  wide->recompute = o->recompute >= KP_RECOMPUTE_LINEARS;
  kp_point inner = kp_gated_point(b->graph, (kp_gate){.x = wide, .c = c},
                                  (kp_gated_arguments){.kind = o->activation, .lift = true});
  snprintf(part, sizeof part, "%sc_proj", prefix);
  name_of(name, layer, part);
  return kp_part_point_linear(b, inner, name, o->width, kp_initial_lorentz(o->width, hidden + 1));
}

kp_tensor *kp_part_gated_feed_forward(kp_builder *b, int64_t layer, kp_point y, int64_t hidden,
                                      bool on_points, const char *prefix) {
  return on_points ? lorentz(b, layer, y, hidden, prefix) : gated(b, layer, y.space, hidden, prefix);
}

kp_point kp_part_feed_forward(kp_builder *b, int64_t layer, kp_point y) {
  const kp_model_options *o = b->options;
  kp_tensor *u;
  kp_graph_scope(b->graph, "transformer.h.%lld.mlp", (long long)layer);
  switch (o->feed_forward) {
  case KP_FEED_FORWARD_MLP: u = plain(b, layer, y.space); break;
  case KP_FEED_FORWARD_GATED: u = gated(b, layer, y.space, o->hidden, ""); break;
  case KP_FEED_FORWARD_LORENTZ: u = lorentz(b, layer, y, o->hidden, ""); break;
  default:
    u = layer < o->experts.dense_layers
            ? kp_part_gated_feed_forward(b, layer, y, o->hidden, o->feed_forward == KP_FEED_FORWARD_MICE, "")
            : kp_part_experts(b, layer, y);
  }
  return (kp_point){.space = kp_part_dropout(b, u)};
}
