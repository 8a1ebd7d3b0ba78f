#include "models/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "models/families.h"
#include "models/parts/parts.h"

static const kp_family *const families[] = {&kp_family_gpt,    &kp_family_llama,     &kp_family_deepseek,
                                            &kp_family_mixed,  &kp_family_geometric, &kp_family_ngpt,
                                            &kp_family_helm_d, &kp_family_helm_mice};
enum { FAMILY_COUNT = sizeof families / sizeof *families };

const kp_family *kp_family_at(int index) {
  return index >= 0 && index < FAMILY_COUNT ? families[index] : NULL;
}

const char *kp_model_uncacheable(const kp_model_options *options) {
  if (options->task != KP_TASK_LANGUAGE) return "it gives labels, not text";
  if (options->residual == KP_RESIDUAL_STEREOGRAPHIC && options->variant == KP_VARIANT_UPSTREAM &&
      options->curvature.dynamic)
    return "the published dynamic curvature reads the last token of the whole sequence";
  return NULL;
}

bool kp_model_reads_documents(const kp_model_options *options) {
  return options->task != KP_TASK_LANGUAGE || options->packed;
}

static void add_inputs(kp_network *network, kp_task task) {
  const int64_t shape[] = {network->build.batch, network->build.length}, one = 1;
  kp_graph *graph = network->graph;
  network->tokens = kp_graph_input(graph, "tokens", KP_TYPE_INT32, 2, shape);
  network->positions = kp_graph_input(graph, "positions", KP_TYPE_INT32, 2, shape);
  if (network->build.documents)
    network->documents = kp_graph_input(graph, "documents", KP_TYPE_INT32, 2, shape);
  if (network->build.mode <= KP_BUILD_EVALUATE)
    network->targets =
        kp_graph_input(graph, "targets", KP_TYPE_INT32, task == KP_TASK_CLASSIFY ? 1 : 2, shape);
  if (network->build.mode == KP_BUILD_TRAIN)
    network->seed = kp_graph_input(graph, "loss scale", KP_TYPE_STATISTIC, 1, &one);
  if (network->build.mode == KP_BUILD_DECODE)
    network->start = kp_graph_input(graph, "start", KP_TYPE_INT32, 1, &one);
}

kp_status kp_network_create(const kp_model_options *options, kp_parameters *parameters, kp_build build,
                            kp_network **result, kp_error *error) {
  *result = NULL;
  const char *why = build.mode == KP_BUILD_DECODE ? kp_model_uncacheable(options) : NULL;
  if (why != NULL)
    return kp_fail(error, KP_ERR_UNSUPPORTED, "this model cannot be decoded with a cache: %s", why);
  kp_network *network = calloc(1, sizeof *network);
  kp_assert(network != NULL, "out of memory");
  network->build = build;
  network->layers = (int)options->layers;
  network->graph = kp_graph_create(kp_operator_table);
  add_inputs(network, options->task);
  kp_model_build(options, parameters, network);
  kp_status status = KP_OK;
  if (build.mode == KP_BUILD_TRAIN)
    status = kp_graph_backward(network->graph, network->objective, network->seed, error);
  if (status != KP_OK)
    kp_network_destroy(network);
  else
    *result = network;
  return status;
}

void kp_network_destroy(kp_network *network) {
  if (network == NULL) return;
  kp_graph_destroy(network->graph);
  free(network);
}

bool kp_network_evaluates_apart(const kp_network *network, const kp_model_options *options) {
  return options->dropout > 0 || options->lora.dropout > 0 || network->trains_in_head;
}

/* 2 multiply-adds an element of a matrix product; attention has two products a pass over half the square if
 * causal. */
static double node_flops(const kp_node *node) {
  const kp_attention_arguments *a = node->arguments;
  switch (node->operation) {
  case KP_OP_LINEAR:
  case KP_OP_LINEAR_BACKWARD_INPUT:
    return 2.0 * (double)kp_tensor_rows(node->input[0]) * (double)kp_tensor_count(node->input[1]);
  case KP_OP_LINEAR_CROSS_ENTROPY:
    return 2.0 * (double)kp_tensor_rows(node->input[0]) * (double)kp_tensor_count(node->input[1]);
  case KP_OP_LINEAR_CROSS_ENTROPY_BACKWARD:
  case KP_OP_LINEAR_CROSS_ENTROPY_TRAINED: /* also where a kernel makes the logits twice */
    return 6.0 * (double)kp_tensor_rows(node->input[0]) * (double)kp_tensor_count(node->input[1]);
  case KP_OP_LINEAR_BACKWARD_WEIGHT:
    return 2.0 * (double)kp_tensor_rows(node->input[0]) * (double)kp_tensor_columns(node->input[0]) *
           (double)kp_tensor_columns(node->input[1]);
  case KP_OP_GROUPED_LINEAR:
  case KP_OP_GROUPED_LINEAR_BACKWARD_INPUT: /* a row meets one expert's matrix */
    return 2.0 * (double)kp_tensor_rows(node->input[0]) * (double)kp_tensor_count(node->input[2]) /
           (double)node->input[2]->shape[0];
  case KP_OP_GROUPED_LINEAR_BACKWARD_WEIGHT:
    return 2.0 * (double)kp_tensor_rows(node->input[0]) * (double)kp_tensor_columns(node->input[0]) *
           (double)kp_tensor_columns(node->input[2]);
  case KP_OP_ATTENTION:
  case KP_OP_ATTENTION_BACKWARD: {
    const double pairs = (double)a->length * (double)(a->causal ? a->length + 1 : 2 * a->length) / 2;
    /* Forward q·k and P·v; backward q·k again, its gradients by q and k, and two products with v. */
    const double keys = node->operation == KP_OP_ATTENTION ? 1 : 3, values = keys == 1 ? 1 : 2;
    return 2.0 * (double)a->batch * a->heads * (keys * a->head_size + values * kp_attention_value_size(a)) *
           pairs;
  }
  default: return 0;
  }
}

double kp_network_flops(const kp_network *network, int first, int last) {
  double flops = 0;
  for (int n = first; n < last; n++) flops += node_flops(network->graph->nodes[n]);
  return flops;
}

void kp_network_write_positions(const kp_network *network, kp_executor *executor) {
  const int64_t count = kp_tensor_count(network->positions);
  int32_t *positions = malloc((size_t)count * sizeof *positions + 1);
  kp_assert(positions != NULL, "out of memory for positions");
  for (int64_t i = 0; i < count; i++) positions[i] = (int32_t)(i % network->build.length);
  kp_executor_write_int32(executor, network->positions, positions);
  free(positions);
}
