#include <math.h>
#include <stdio.h>

#include "models/parts/parts.h"

bool kp_builder_decodes(const kp_builder *b) {
  return b->network->build.mode == KP_BUILD_DECODE;
}

kp_tensor *kp_part_parameter(kp_builder *b, const char *name, kp_group group, kp_initial initial,
                             int dimensions, const int64_t *shape) {
  int index = kp_parameters_add(b->parameters, name, dimensions, shape, initial, group, true);
  const bool trainable = b->parameters->list[index].trainable && b->network->build.mode == KP_BUILD_TRAIN;
  return kp_graph_parameter(b->graph, b->parameters->list[index].name, index, trainable, dimensions, shape);
}

void kp_part_unused_parameter(kp_builder *b, const char *name, kp_group group, kp_initial initial,
                              int dimensions, const int64_t *shape) {
  int index = kp_parameters_add(b->parameters, name, dimensions, shape, initial, group, true);
  b->parameters->list[index].used = false;
}

kp_initial kp_initial_weight(void) {
  return (kp_initial){.kind = KP_INITIAL_NORMAL, .b = 0.02};
}

kp_initial kp_initial_projection(const kp_model_options *options) {
  return (kp_initial){.kind = KP_INITIAL_NORMAL, .b = 0.02 / sqrt(2.0 * (double)options->layers)};
}

kp_initial kp_initial_of(double value) {
  return (kp_initial){.kind = KP_INITIAL_CONSTANT, .a = value};
}

kp_tensor *kp_part_linear(kp_builder *b, kp_tensor *x, const char *name, int64_t out, bool bias,
                          kp_initial initial) {
  char full[160];
  snprintf(full, sizeof full, "%s.weight", name);
  kp_tensor *weight =
      kp_part_parameter(b, full, KP_GROUP_DECAY, initial, 2, (int64_t[]){out, kp_tensor_columns(x)});
  kp_tensor *offset = NULL;
  if (bias) {
    snprintf(full, sizeof full, "%s.bias", name);
    offset = kp_part_parameter(b, full, KP_GROUP_NO_DECAY, kp_initial_of(0), 1, &out);
  }
  return kp_linear(b->graph, x, weight, offset);
}

void kp_part_stacked(kp_builder *b, const char *name, int blocks) {
  char full[160];
  snprintf(full, sizeof full, "%s.weight", name);
  kp_parameters_set_blocks(b->parameters, kp_parameters_find(b->parameters, full), blocks);
}

void kp_part_norm_parameters(kp_builder *b, const char *name, kp_tensor **weight, kp_tensor **bias) {
  char full[160];
  snprintf(full, sizeof full, "%s.weight", name);
  *weight = kp_part_parameter(b, full, KP_GROUP_NO_DECAY, kp_initial_of(1), 1, &b->options->width);
  *bias = NULL;
  if (!b->options->bias) return;
  snprintf(full, sizeof full, "%s.bias", name);
  *bias = kp_part_parameter(b, full, KP_GROUP_NO_DECAY, kp_initial_of(0), 1, &b->options->width);
}
