/* The embedding: token (and learned position) to the first point of the stream. */
#include <math.h>

#include "models/parts/parts.h"

/* The space coordinates that HELM draws from a standard normal distribution are as large as its stream. */
static kp_initial initial_table(const kp_model_options *o) {
  if (o->residual == KP_RESIDUAL_LORENTZ) return (kp_initial){.kind = KP_INITIAL_NORMAL, .b = 1};
  return kp_initial_weight(o);
}

kp_tensor *kp_part_token_table(kp_builder *b) {
  return kp_part_matrix(b, "transformer.wte.weight", KP_GROUP_TABLE, initial_table(b->options),
                        b->options->vocabulary, b->options->width, false);
}

/* The published code makes a residual for positions and never runs it. */
static void unused_position_residual(kp_builder *b) {
  kp_part_unused_parameter(b, "transformer.wpe.branch_weight", KP_GROUP_NO_DECAY, kp_initial_of(1), 1,
                           (int64_t[]){1});
  kp_part_unused_parameter(b, "transformer.wpe.scale", KP_GROUP_NO_DECAY, kp_initial_of(4), 1,
                           (int64_t[]){1});
}

/* Points [time | space], at first about 1 from the origin: |space| = sinh 1. */
static kp_point embed_points(kp_builder *b) {
  const kp_model_options *o = b->options;
  const double kappa = o->curvature.values[0];
  const kp_initial initial = {.kind = KP_INITIAL_NORMAL, .b = sinh(1) / sqrt(-kappa * (double)o->width)};
  kp_tensor *table =
      kp_part_manifold_parameter(b, "transformer.wte.points", KP_GROUP_TABLE, initial, 2,
                                 (int64_t[]){o->vocabulary, o->width + 1}, KP_MANIFOLD_LORENTZ, kappa);
  if (o->variant == KP_VARIANT_UPSTREAM) unused_position_residual(b);
  kp_tensor *rows = kp_embedding(b->graph, b->network->tokens, table, NULL, NULL);
  kp_columns columns = kp_split_columns(b->graph, rows, 1);
  return (kp_point){.space = columns.right, .time = columns.left};
}

kp_point kp_part_embedding(kp_builder *b) {
  const kp_model_options *o = b->options;
  kp_graph_scope(b->graph, "transformer.wte");
  if (o->embedding == KP_EMBEDDING_MANIFOLD) return embed_points(b);
  kp_tensor *positions = NULL, *table = NULL, *tokens = kp_part_token_table(b);
  if (o->positions == KP_POSITIONS_LEARNED) {
    positions = b->network->positions;
    table = kp_part_parameter(b, "transformer.wpe.weight", KP_GROUP_TABLE, kp_initial_weight(o), 2,
                              (int64_t[]){o->context, o->width});
  }
  kp_tensor *x = kp_embedding(b->graph, b->network->tokens, tokens, positions, table);
  return (kp_point){.space = kp_part_dropout(b, x)};
}
