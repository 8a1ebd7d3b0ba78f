/* Reverse-mode differentiation of a graph.
 *
 * The backward pass is more graph: nodes are visited last to first and each
 * operator's rule emits the operators that compute its inputs' gradients.
 * A tensor's gradient is complete when its producer is visited, because all
 * of its consumers stand later in the list.
 *
 * Recomputation: a tensor marked `recompute` is not kept for the backward
 * pass.  The first rule that reads it through kp_saved emits a copy of its
 * producer (and of that one's marked inputs) right there, so that the copy
 * lives only as long as the backward pass of its neighbourhood. */
#include "core/graph.h"

#include "core/assert.h"

kp_tensor *kp_gradient(const kp_tensor *tensor) {
  return tensor == NULL ? NULL : tensor->gradient;
}

static kp_tensor *emit_add(kp_graph *graph, kp_tensor *a, kp_tensor *b) {
  kp_tensor *sum = kp_graph_activation(graph, a->name, a->type, a->dimensions, a->shape);
  kp_graph_node(graph, KP_OPERATION_ADD, NULL, 0, 2, (kp_tensor *[]){a, b}, 1, &sum);
  return sum;
}

void kp_gradient_give(kp_graph *graph, kp_tensor *tensor, kp_tensor *gradient) {
  if (tensor == NULL || !tensor->needs_gradient || gradient == NULL) return;
  kp_assert(kp_tensor_count(tensor) == kp_tensor_count(gradient), "gradient of %s has another size",
            tensor->name);
  if (tensor->role == KP_ROLE_PARAMETER) { /* a whole gradient for a parameter: add it to the flat buffer */
    kp_tensor *target = kp_gradient_accumulator(graph, tensor);
    kp_graph_node(graph, KP_OPERATION_ADD, NULL, 0, 2, (kp_tensor *[]){target, gradient}, 1, &target);
    return;
  }
  if (tensor->gradient == NULL) {
    tensor->gradient = gradient;
    return;
  }
  tensor->gradient = emit_add(graph, tensor->gradient, gradient);
  tensor->accumulator = tensor->gradient;
}

kp_tensor *kp_gradient_take(kp_tensor *tensor) {
  kp_tensor *gradient = tensor->gradient;
  if (tensor->role != KP_ROLE_ACTIVATION || gradient == NULL || gradient->type != tensor->type) return NULL;
  tensor->gradient = NULL;
  return gradient;
}

kp_tensor *kp_gradient_accumulator(kp_graph *graph, kp_tensor *tensor) {
  if (tensor == NULL || !tensor->needs_gradient) return NULL;
  if (tensor->role == KP_ROLE_PARAMETER) {
    if (tensor->gradient == NULL) {
      kp_tensor *gradient =
          kp_graph_activation(graph, tensor->name, KP_TYPE_STATISTIC, tensor->dimensions, tensor->shape);
      gradient->role = KP_ROLE_GRADIENT;
      gradient->parameter = tensor->parameter;
      tensor->gradient = gradient;
    }
    return tensor->gradient;
  }
  kp_tensor *before = tensor->gradient;
  if (before != NULL && before == tensor->accumulator && before->type == KP_TYPE_STATISTIC) {
    tensor->gradient = NULL; /* until kp_gradient_accumulated */
    return before;
  }
  kp_tensor *zeroed =
      kp_graph_activation(graph, tensor->name, KP_TYPE_STATISTIC, tensor->dimensions, tensor->shape);
  kp_graph_node(graph, KP_OPERATION_ZERO, NULL, 0, 0, NULL, 1, &zeroed);
  return zeroed;
}

void kp_gradient_accumulated(kp_graph *graph, kp_tensor *tensor, kp_tensor *accumulator) {
  if (accumulator == NULL || tensor->role == KP_ROLE_PARAMETER) return;
  if (tensor->gradient == NULL) tensor->accumulator = accumulator;
  kp_gradient_give(graph, tensor, accumulator);
}

kp_tensor *kp_saved(kp_graph *graph, kp_tensor *tensor) {
  if (tensor == NULL || !tensor->recompute || tensor->producer == NULL) return tensor;
  if (tensor->recomputed != NULL) return tensor->recomputed;
  const kp_node *producer = tensor->producer;
  kp_tensor *input[KP_MAX_INPUTS], *output[KP_MAX_OUTPUTS];
  for (int i = 0; i < producer->inputs; i++) input[i] = kp_saved(graph, producer->input[i]);
  for (int i = 0; i < producer->outputs; i++) {
    kp_tensor *original = producer->output[i];
    output[i] = original == NULL ? NULL
                                 : kp_graph_activation(graph, original->name, original->type,
                                                       original->dimensions, original->shape);
    if (original != NULL && original->recompute) original->recomputed = output[i];
  }
  kp_graph_node(graph, producer->operation, producer->arguments, producer->arguments_size, producer->inputs,
                input, producer->outputs, output);
  return tensor->recomputed;
}

static bool any_output_gradient(const kp_node *node) {
  for (int i = 0; i < node->outputs; i++)
    if (kp_gradient(node->output[i]) != NULL) return true;
  return false;
}

kp_status kp_graph_backward(kp_graph *graph, kp_tensor *output, kp_tensor *seed, kp_error *error) {
  kp_assert(kp_tensor_count(output) == kp_tensor_count(seed), "the seed of %s has another size",
            output->name);
  const int forward_count = graph->node_count;
  output->gradient = seed;
  for (int i = forward_count - 1; i >= 0; i--) {
    kp_node *node = graph->nodes[i];
    if (!any_output_gradient(node)) continue;
    if (node->row->backward == NULL)
      return kp_fail(error, KP_ERR_UNSUPPORTED, "operator %s (%s) has no backward pass", node->row->name,
                     node->scope);
    graph->scope = node->scope;
    node->row->backward(graph, node);
  }
  graph->forward_count = forward_count;
  return KP_OK;
}
