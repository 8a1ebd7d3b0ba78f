/* The heads of classifiers and taggers: norm, a linear map to the labels, cross-entropy.
 *
 * A classifier reads one row a sequence, the mean over its tokens (Reimers and Gurevych 2019 find it better
 * than the first token) or the first one.  Padding, whose document is negative, counts in neither.  The head
 * is flat whatever the stream: it reads the space coordinates of points. */
#include "data/batches.h"
#include "models/parts/parts.h"

static kp_tensor *pool(kp_builder *b, kp_tensor *y) {
  if (b->options->pooling == KP_POOLING_FIRST) return kp_select_row(b->graph, y, 0);
  return kp_mean_rows(b->graph, y, b->network->documents);
}

static kp_tensor *normalise(kp_builder *b, kp_tensor *y) {
  const kp_model_options *o = b->options;
  kp_tensor *weight, *bias;
  kp_part_norm_parameters(b, "classifier.norm", &weight, &bias);
  return weight == NULL ? y : kp_normalise(b->graph, y, weight, bias, o->norm, o->norm_epsilon);
}

void kp_part_task_head(kp_builder *b, kp_point y) {
  const kp_model_options *o = b->options;
  kp_network *network = b->network;
  const int64_t shape[] = {o->classes, o->width};
  const kp_initial initial = {.kind = KP_INITIAL_NORMAL, .b = 0.02};
  kp_graph_scope(b->graph, "classifier");
  /* The rows of tokens are normalised already; their mean is not. */
  kp_tensor *x = o->task == KP_TASK_CLASSIFY ? normalise(b, pool(b, y.space)) : y.space;
  kp_tensor *weight = kp_part_parameter(b, "classifier.weight", KP_GROUP_TABLE, initial, 2, shape);
  kp_tensor *bias = kp_part_parameter(b, "classifier.bias", KP_GROUP_NO_DECAY, kp_initial_of(0), 1, shape);
  network->logits = kp_linear(b->graph, x, weight, bias);
  kp_graph_keep(network->logits);
  if (network->targets == NULL) return;
  kp_part_objective(b, kp_cross_entropy(b->graph, network->logits, network->targets, KP_IGNORE));
}
