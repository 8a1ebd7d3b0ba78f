/* The embedding: token (and learned position) to the first point of the stream. */
#include <math.h>

#include "models/parts/parts.h"

kp_tensor *kp_part_token_table(kp_builder *b) {
  return kp_part_matrix(b, "transformer.wte.weight", KP_GROUP_TABLE, kp_initial_weight(b->options),
                        b->options->vocabulary, b->options->width, false);
}

kp_point kp_part_embedding(kp_builder *b) {
  const kp_model_options *o = b->options;
  kp_graph_scope(b->graph, "transformer.wte");
  kp_tensor *positions = NULL, *table = NULL, *tokens = kp_part_token_table(b);
  if (o->positions == KP_POSITIONS_LEARNED) {
    positions = b->network->positions;
    table = kp_part_parameter(b, "transformer.wpe.weight", KP_GROUP_TABLE, kp_initial_weight(o), 2,
                              (int64_t[]){o->context, o->width});
  }
  kp_tensor *x = kp_embedding(b->graph, b->network->tokens, tokens, positions, table);
  return (kp_point){.space = kp_part_dropout(b, x)};
}
