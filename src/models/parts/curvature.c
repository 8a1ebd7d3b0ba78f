/* Learned numbers, and the curvatures that they stand for. */
#include <math.h>
#include <stdio.h>

#include "models/parts/parts.h"

double kp_curvature_inverse(kp_curvature_map map, double kappa) {
  switch (map) {
  case KP_CURVATURE_TANH: return atanh(kappa / 2);
  case KP_CURVATURE_SOFTPLUS: return log(expm1(-kappa));
  case KP_CURVATURE_SIGMOID: return -log(-1 / kappa - 1);
  case KP_CURVATURE_NEGATE: return -kappa;
  default: return kappa;
  }
}

/* Random starts lie near the middle of the map, so that signs are free to form. */
static kp_initial initial_of(const kp_builder *b, const kp_curvature_options *c, int64_t layer, int64_t count,
                             double theta[KP_MAX_LAYERS]) {
  for (int64_t g = 0; g < count; g++)
    theta[g] = kp_curvature_inverse(c->map, kp_curvature_start(c, b->options->layers, layer, count, g));
  if (c->mode == KP_CURVATURE_RANDOM)
    return (kp_initial){.kind = KP_INITIAL_NORMAL, .a = theta[0], .b = 0.05};
  return (kp_initial){.kind = KP_INITIAL_LIST, .values = theta, .count = (int)count};
}

kp_tensor *kp_part_fixed_curvature(kp_builder *b, const kp_curvature_options *c, int64_t layer,
                                   int64_t count) {
  double kappa[KP_MAX_LAYERS];
  for (int64_t g = 0; g < count; g++) kappa[g] = kp_curvature_start(c, b->options->layers, layer, count, g);
  return kp_graph_constant(b->graph, "curvature", 1, &count, kappa);
}

kp_tensor *kp_part_curvature(kp_builder *b, const kp_curvature_options *c, int64_t layer, int64_t count,
                             const char *name) {
  char full[96];
  double theta[KP_MAX_LAYERS];
  if (c->mode == KP_CURVATURE_FIXED) return kp_part_fixed_curvature(b, c, layer, count);
  if (c->mode == KP_CURVATURE_TIED)
    snprintf(full, sizeof full, "shared_%s", name);
  else
    snprintf(full, sizeof full, "transformer.h.%lld.%s", (long long)layer, name);
  kp_tensor *learned =
      kp_part_parameter(b, full, KP_GROUP_CURVATURE, initial_of(b, c, layer, count, theta), 1, &count);
  return kp_curvature(b->graph, learned, c->map);
}
