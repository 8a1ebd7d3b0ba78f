/* The head: what the last block gives, to logits and the loss. */
#include <math.h>

#include "data/batches.h"
#include "models/parts/parts.h"

/* A matrix of its own, drawn like the rest; on the hyperboloid uniform, as linear maps are by default in
 * PyTorch. */
static kp_initial initial_head(const kp_model_options *o) {
  return o->head >= KP_HEAD_LORENTZ ? kp_initial_uniform(o->width + 1) : kp_initial_weight(o);
}

/* Absent tensors are NULL: (V, C), (V, 1), (V), (V). */
typedef struct head {
  kp_tensor *weight, *time_weight, *scale, *offset;
  double factor; /* of the scale */
} head;

static head head_of(kp_builder *b) {
  const kp_model_options *o = b->options;
  head h = {0};
  if (o->head == KP_HEAD_TIED) {
    h.weight = kp_part_token_table(b);
    return h;
  }
  h.weight =
      kp_part_matrix(b, "lm_head.weight", KP_GROUP_TABLE, initial_head(o), o->vocabulary, o->width, false);
  if (o->head == KP_HEAD_LORENTZ)
    h.time_weight = kp_part_parameter(b, "lm_head.time", KP_GROUP_TABLE, initial_head(o), 2,
                                      (int64_t[]){o->vocabulary, 1});
  if (o->head == KP_HEAD_LORENTZ_MLR)
    h.offset = kp_part_parameter(b, "lm_head.offset", KP_GROUP_NO_DECAY, kp_initial_of(0), 1, &o->vocabulary);
  if (o->head == KP_HEAD_SCALED) {
    const double stored = o->sphere_scale;
    h.scale =
        kp_part_parameter(b, "lm_head.scale", KP_GROUP_NO_DECAY, kp_initial_of(stored), 1, &o->vocabulary);
    h.factor = 1 / stored;
  }
  return h;
}

static kp_tensor *logits_of(kp_builder *b, const head *h, kp_point y) {
  if (h->offset != NULL) return kp_lorentz_mlr(b->graph, y, h->weight, h->offset, kp_part_radius(b));
  kp_tensor *logits = h->time_weight == NULL
                          ? kp_linear(b->graph, y.space, h->weight, NULL)
                          : kp_linear_lorentz(b->graph, y, h->weight, h->time_weight, NULL);
  return h->scale == NULL ? logits : kp_scale_columns(b->graph, logits, h->scale, h->factor);
}

/* Whether the logits are only passed through on the way to the loss, and too many to be held. */
static bool never_holds_logits(const kp_builder *b, const head *h, kp_point y) {
  enum { LARGE = 64 << 20 };
  const kp_build *build = &b->network->build;
  const int64_t limit = build->logit_bytes > 0 ? build->logit_bytes : LARGE;
  if (b->network->targets == NULL || build->keep_logits || h->offset != NULL) return false;
  return kp_tensor_rows(y.space) * b->options->vocabulary * (int64_t)sizeof(float) > limit;
}

/* Where the loss is trained its gradients are made with it, from the same logits. */
static kp_tensor *loss_of(kp_builder *b, const head *h, kp_point y) {
  kp_network *network = b->network;
  if (h->time_weight == NULL) y.time = NULL;
  const kp_logit_head whole = {.x = y, .weight = h->weight, .time_weight = h->time_weight, .scale = h->scale};
  const kp_linear_cross_entropy_arguments arguments = {.ignore = KP_IGNORE, .factor = h->factor};
  network->trains_in_head = network->seed != NULL;
  return network->trains_in_head
             ? kp_linear_cross_entropy_trained(b->graph, whole, network->targets, network->seed, arguments)
             : kp_linear_cross_entropy(b->graph, whole, network->targets, arguments);
}

void kp_part_objective(kp_builder *b, kp_tensor *loss) {
  kp_network *network = b->network;
  network->loss = loss;
  if (network->balance != NULL) kp_graph_keep(network->balance);
  network->objective = network->balance == NULL ? loss : kp_add(b->graph, loss, network->balance);
  kp_graph_keep(network->loss);
  if (network->balance != NULL) kp_graph_keep(network->balance);
  kp_graph_keep(network->objective);
}

void kp_part_head(kp_builder *b, kp_point y) {
  kp_network *network = b->network;
  kp_graph_scope(b->graph, "lm_head");
  if (kp_builder_decodes(b)) {
    y.space = kp_select_row(b->graph, y.space, -1);
    if (y.time != NULL) y.time = kp_select_row(b->graph, y.time, -1);
  }
  if (b->options->head >= KP_HEAD_LORENTZ && y.time == NULL)
    y.time = kp_lift(b->graph, y.space, 1, kp_part_radius(b));
  const head h = head_of(b);
  if (never_holds_logits(b, &h, y)) {
    kp_part_objective(b, loss_of(b, &h, y));
    return;
  }
  network->logits = logits_of(b, &h, y);
  if (network->targets == NULL || network->build.keep_logits) kp_graph_keep(network->logits);
  if (network->targets == NULL) return;
  kp_part_objective(b, kp_cross_entropy(b->graph, network->logits, network->targets, KP_IGNORE));
}
