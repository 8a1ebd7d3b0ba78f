/* A stream on the hyperboloid (HELM, He et al. 2025, section 4; LResNet of He et al. 2024).
 *
 *     x ← lift( S √c a_s / |a|_L ),   a = x + w u
 *
 * w is learned, S fixed.  A sub-layer reads RMSNorm of the space coordinates, lifted.  After the last block a
 * Lorentz linear map and a norm stand before the head. */
#include <math.h>
#include <stdio.h>

#include "models/parts/parts.h"

/* The published code bounds squared Lorentz norms below. */
static const double published_floor = 1e-4;

static kp_lorentz_residual_arguments arguments_of(const kp_model_options *o) {
  return (kp_lorentz_residual_arguments){.norm = o->norm != KP_NORM_NONE,
                                         .epsilon = o->norm_epsilon,
                                         .floor = o->variant == KP_VARIANT_UPSTREAM ? published_floor : 0,
                                         .scale = o->residual_scale * sqrt((double)(o->width + 1))};
}

/* w of the seam behind a sub-layer. */
static kp_tensor *branch_weight(kp_builder *b, int64_t layer, const char *sublayer) {
  char name[96];
  snprintf(name, sizeof name, "transformer.h.%lld.%s.branch_weight", (long long)layer, sublayer);
  const kp_group group = b->options->variant == KP_VARIANT_UPSTREAM ? KP_GROUP_DECAY : KP_GROUP_NO_DECAY;
  return kp_part_parameter(b, name, group, kp_initial_of(1), 1, (int64_t[]){1});
}

/* The seam in front of what `norm` names. */
static kp_lorentz_seam_result seam(kp_builder *b, const char *norm, kp_point stream, kp_point branch,
                                   kp_tensor *weight) {
  kp_lorentz_seam operands = {
      .stream = stream, .branch = branch, .branch_weight = weight, .c = kp_part_radius(b)};
  kp_tensor *bias;
  kp_graph_scope(b->graph, "%s", norm);
  kp_part_norm_parameters(b, norm, &operands.norm_weight, &bias);
  if (branch.space == NULL && b->options->norm == KP_NORM_NONE)
    return (kp_lorentz_seam_result){.stream = stream, .normalised = stream};
  kp_lorentz_seam_result result = kp_lorentz_residual(b->graph, operands, arguments_of(b->options));
  if (b->options->norm == KP_NORM_NONE) result.normalised = result.stream;
  return result;
}

/* The linear map and the norm in front of the head. */
static kp_point leave(kp_builder *b, kp_point x) {
  const int64_t width = b->options->width;
  kp_graph_scope(b->graph, "final_projection");
  if (x.time == NULL) x.time = kp_lift(b->graph, x.space, 1, kp_part_radius(b));
  kp_point y = {
      .space = kp_part_point_linear(b, x, "final_projection", width, kp_initial_lorentz(width, width + 1))};
  return seam(b, "transformer.ln_f", y, (kp_point){0}, NULL).normalised;
}

/* The published code counts the three constant curvatures of its manifolds among its parameters. */
static void unused_manifolds(kp_builder *b) {
  static const char *const names[] = {"manifold.in", "manifold.hidden", "manifold.out"};
  for (int i = 0; i < 3; i++)
    kp_part_unused_parameter(b, names[i], KP_GROUP_NO_DECAY, kp_initial_of(1), 1, (int64_t[]){1});
}

kp_point kp_part_lorentz_stream(kp_builder *b, kp_point x) {
  if (b->options->variant == KP_VARIANT_UPSTREAM) unused_manifolds(b);
  const int64_t layers = b->options->layers;
  char norm[64];
  kp_point branch = {0};
  kp_tensor *weight = NULL;
  for (int64_t layer = 0; layer < layers; layer++) {
    snprintf(norm, sizeof norm, "transformer.h.%lld.ln_1", (long long)layer);
    kp_lorentz_seam_result entry = seam(b, norm, x, branch, weight);
    kp_part_keep_hidden(b, layer, entry.stream.space);
    kp_point attended = kp_part_attention(b, layer, entry.normalised);
    snprintf(norm, sizeof norm, "transformer.h.%lld.ln_2", (long long)layer);
    kp_lorentz_seam_result middle = seam(b, norm, entry.stream, attended, branch_weight(b, layer, "attn"));
    branch = kp_part_feed_forward(b, layer, middle.normalised);
    weight = branch_weight(b, layer, "mlp");
    x = middle.stream;
  }
  kp_lorentz_residual_arguments arguments = arguments_of(b->options);
  arguments.norm = false;
  kp_graph_scope(b->graph, "transformer.h.%lld.mlp", (long long)layers - 1);
  x = kp_lorentz_residual(
          b->graph,
          (kp_lorentz_seam){.stream = x, .branch = branch, .branch_weight = weight, .c = kp_part_radius(b)},
          arguments)
          .stream;
  kp_part_keep_hidden(b, layers, x.space);
  return leave(b, x);
}
