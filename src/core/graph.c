#include "core/graph.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"

kp_graph *kp_graph_create(const kp_operator *operators) {
  kp_arena *arena = kp_arena_create();
  kp_graph *graph = kp_arena_take(arena, sizeof *graph);
  graph->arena = arena;
  graph->operators = operators;
  graph->scope = "";
  return graph;
}

void kp_graph_destroy(kp_graph *graph) {
  if (graph == NULL) return;
  free(graph->nodes);
  free(graph->tensors);
  kp_arena_destroy(graph->arena);
}

void kp_graph_scope(kp_graph *graph, const char *format, ...) {
  char text[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  graph->scope = kp_arena_text(graph->arena, text);
}

/* Makes room for one more pointer in a growing array. */
static void *grow(void *array, int count, int *capacity) {
  if (count < *capacity) return array;
  *capacity = *capacity == 0 ? 64 : *capacity * 2;
  array = realloc(array, (size_t)*capacity * sizeof(void *));
  kp_assert(array != NULL, "out of memory for a graph of %d entries", *capacity);
  return array;
}

static kp_tensor *new_tensor(kp_graph *graph, kp_role role, const char *name, kp_type type, int dimensions,
                             const int64_t *shape) {
  kp_assert(dimensions >= 1 && dimensions <= KP_MAX_DIMENSIONS, "%s has %d dimensions", name, dimensions);
  kp_tensor *tensor = kp_arena_take(graph->arena, sizeof *tensor);
  tensor->id = graph->tensor_count;
  tensor->role = role;
  tensor->type = type;
  tensor->dimensions = dimensions;
  for (int i = 0; i < dimensions; i++) {
    kp_assert(shape[i] > 0, "%s: dimension %d is %lld", name, i, (long long)shape[i]);
    tensor->shape[i] = shape[i];
  }
  tensor->name = kp_arena_text(graph->arena, name);
  tensor->parameter = -1;
  graph->tensors = grow(graph->tensors, graph->tensor_count, &graph->tensor_capacity);
  graph->tensors[graph->tensor_count++] = tensor;
  return tensor;
}

kp_tensor *kp_graph_input(kp_graph *graph, const char *name, kp_type type, int dimensions,
                          const int64_t *shape) {
  return new_tensor(graph, KP_ROLE_INPUT, name, type, dimensions, shape);
}

kp_tensor *kp_graph_constant(kp_graph *graph, const char *name, int dimensions, const int64_t *shape,
                             const double *values) {
  kp_tensor *tensor = new_tensor(graph, KP_ROLE_CONSTANT, name, KP_TYPE_STATISTIC, dimensions, shape);
  size_t bytes = (size_t)kp_tensor_count(tensor) * sizeof(double);
  tensor->values = memcpy(kp_arena_take(graph->arena, bytes), values, bytes);
  return tensor;
}

kp_tensor *kp_graph_parameter(kp_graph *graph, const char *name, int parameter, kp_type type, bool trainable,
                              int dimensions, const int64_t *shape) {
  kp_tensor *tensor = new_tensor(graph, KP_ROLE_PARAMETER, name, type, dimensions, shape);
  tensor->parameter = parameter;
  tensor->needs_gradient = trainable;
  return tensor;
}

kp_tensor *kp_graph_state(kp_graph *graph, const char *name, kp_type type, int dimensions,
                          const int64_t *shape) {
  return new_tensor(graph, KP_ROLE_STATE, name, type, dimensions, shape);
}

kp_tensor *kp_graph_activation(kp_graph *graph, const char *name, kp_type type, int dimensions,
                               const int64_t *shape) {
  return new_tensor(graph, KP_ROLE_ACTIVATION, name, type, dimensions, shape);
}

kp_node *kp_graph_node(kp_graph *graph, int operation, const void *arguments, size_t arguments_size,
                       int inputs, kp_tensor *const *input, int outputs, kp_tensor *const *output) {
  kp_assert(inputs <= KP_MAX_INPUTS && outputs <= KP_MAX_OUTPUTS, "%s has %d inputs and %d outputs",
            graph->operators[operation].name, inputs, outputs);
  kp_node *node = kp_arena_take(graph->arena, sizeof *node);
  node->index = graph->node_count;
  node->operation = operation;
  node->row = &graph->operators[operation];
  node->scope = graph->scope;
  node->inputs = inputs;
  node->outputs = outputs;
  if (arguments_size > 0) {
    node->arguments = memcpy(kp_arena_take(graph->arena, arguments_size), arguments, arguments_size);
    node->arguments_size = arguments_size;
  }
  bool needs_gradient = false;
  for (int i = 0; i < inputs; i++) {
    node->input[i] = input[i];
    needs_gradient |= input[i] != NULL && input[i]->needs_gradient;
  }
  for (int i = 0; i < outputs; i++) {
    kp_tensor *tensor = node->output[i] = output[i];
    if (tensor == NULL || tensor->role != KP_ROLE_ACTIVATION) continue;
    if (tensor->producer == NULL) tensor->producer = node;
    tensor->needs_gradient = needs_gradient && tensor->type != KP_TYPE_INT32;
  }
  graph->nodes = grow(graph->nodes, graph->node_count, &graph->node_capacity);
  graph->nodes[graph->node_count++] = node;
  graph->forward_count = graph->node_count;
  return node;
}

void kp_graph_keep(kp_tensor *tensor) {
  tensor->keep = true;
}

int64_t kp_tensor_count(const kp_tensor *tensor) {
  return kp_tensor_rows(tensor) * kp_tensor_columns(tensor);
}

int64_t kp_tensor_rows(const kp_tensor *tensor) {
  int64_t rows = 1;
  for (int i = 0; i + 1 < tensor->dimensions; i++) rows *= tensor->shape[i];
  return rows;
}

int64_t kp_tensor_columns(const kp_tensor *tensor) {
  return tensor->shape[tensor->dimensions - 1];
}

bool kp_tensor_same_shape(const kp_tensor *a, const kp_tensor *b) {
  if (a->dimensions != b->dimensions) return false;
  for (int i = 0; i < a->dimensions; i++)
    if (a->shape[i] != b->shape[i]) return false;
  return true;
}

const char *kp_tensor_shape_text(const kp_tensor *tensor, char text[64]) {
  size_t used = 0;
  for (int i = 0; i < tensor->dimensions && used < 64; i++)
    used +=
        (size_t)snprintf(text + used, 64 - used, "%s%lld", i == 0 ? "(" : ", ", (long long)tensor->shape[i]);
  if (used < 63) strcpy(text + used, ")");
  return text;
}
