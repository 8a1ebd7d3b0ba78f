/* The head that never holds its logits, in training: loss and gradients from one node.
 *
 * A node of the forward pass makes gradients here, because the seed of the backward pass is an input: nothing
 * that they depend on comes later.  Its rule only hands them on. */
#include "backend/trained_head.h"
#include "core/assert.h"
#include "ops/rules.h"

enum { SEED = 6, G_X = 2, G_TIME, G_WEIGHT, G_TIME_WEIGHT, G_SCALE };

kp_tensor *kp_linear_cross_entropy_trained(kp_graph *graph, kp_logit_head head, kp_tensor *targets,
                                           kp_tensor *seed, kp_linear_cross_entropy_arguments arguments) {
  const int64_t rows = kp_tensor_rows(head.x.space), one = 1;
  kp_check_logit_head(&head, targets);
  kp_assert(kp_tensor_count(seed) == 1, "%s is the gradient of one number", seed->name);
  if (arguments.factor == 0) arguments.factor = 1;
  kp_tensor *input[] = {head.x.space, head.weight, targets, head.x.time, head.time_weight, head.scale, seed};
  kp_tensor *output[] = {kp_graph_activation(graph, "loss", KP_TYPE_STATISTIC, 1, &one),
                         kp_graph_activation(graph, "logsumexp", KP_TYPE_STATISTIC, 1, &rows),
                         kp_fresh_gradient(graph, "g head", head.x.space),
                         kp_fresh_gradient(graph, "g head time", head.x.time),
                         kp_gradient_accumulator(graph, head.weight),
                         kp_gradient_accumulator(graph, head.time_weight),
                         kp_gradient_accumulator(graph, head.scale)};
  kp_graph_node(graph, KP_OP_LINEAR_CROSS_ENTROPY_TRAINED, &arguments, sizeof arguments, 7, input, 7, output);
  return output[0];
}

void kp_backward_linear_cross_entropy_trained(kp_graph *graph, kp_node *node) {
  kp_tensor *const *input = node->input, *const *output = node->output;
  kp_assert(kp_gradient(output[0]) == input[SEED],
            "the gradients of %s were made for %s, and another one arrived", output[0]->name,
            input[SEED]->name);
  kp_gradient_give(graph, input[0], output[G_X]);
  kp_gradient_give(graph, input[3], output[G_TIME]);
  kp_gradient_accumulated(graph, input[1], output[G_WEIGHT]);
  kp_gradient_accumulated(graph, input[4], output[G_TIME_WEIGHT]);
  kp_gradient_accumulated(graph, input[5], output[G_SCALE]);
}

/* ---- ref ---- */

kp_status kp_ref_linear_cross_entropy_trained(const kp_call *call, kp_error *error) {
  kp_trained_head backward;
  kp_trained_head_backward(call, &backward);
  KP_TRY(kp_ref_linear_cross_entropy(call, error));
  return kp_ref_linear_cross_entropy_backward(&backward.call, error);
}
