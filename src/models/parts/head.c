/* The head: what the last block gives, to logits and the loss. */
#include "data/batches.h"
#include "models/parts/parts.h"

static kp_tensor *logits_of(kp_builder *b, kp_tensor *y) {
  const kp_model_options *o = b->options;
  if (o->head == KP_HEAD_TIED) return kp_linear(b->graph, y, kp_part_token_table(b), NULL);
  kp_tensor *weight = kp_part_matrix(b, "lm_head.weight", KP_GROUP_TABLE, kp_initial_weight(o), o->vocabulary,
                                     o->width, false);
  return kp_linear(b->graph, y, weight, NULL);
}

void kp_part_head(kp_builder *b, kp_point y) {
  kp_network *network = b->network;
  kp_graph_scope(b->graph, "lm_head");
  if (kp_builder_decodes(b)) y.space = kp_select_row(b->graph, y.space, -1);
  network->logits = logits_of(b, y.space);
  if (network->targets == NULL || network->build.keep_logits) kp_graph_keep(network->logits);
  if (network->targets == NULL) return;
  network->loss = kp_cross_entropy(b->graph, network->logits, network->targets, KP_IGNORE);
  kp_graph_keep(network->loss);
  network->objective = network->loss;
}
