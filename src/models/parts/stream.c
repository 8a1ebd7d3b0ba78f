/* The blocks by the kind of their stream, and the whole model around them. */
#include "models/parts/parts.h"

void kp_part_keep_hidden(const kp_builder *b, int64_t index, kp_tensor *stream) {
  if (!b->network->build.keep_hidden) return;
  kp_graph_keep(stream);
  b->network->hidden[index] = stream;
}

kp_tensor *kp_part_borders(const kp_builder *b) {
  return b->options->packed ? b->network->documents : NULL;
}

kp_point kp_part_stream(kp_builder *b, kp_point x) {
  switch (b->options->residual) {
  case KP_RESIDUAL_LERP:
  case KP_RESIDUAL_SLERP: return kp_part_sphere_stream(b, x);
  case KP_RESIDUAL_LORENTZ: return kp_part_lorentz_stream(b, x);
  default: return kp_part_seam_stream(b, x);
  }
}

void kp_model_build(const kp_model_options *options, kp_parameters *parameters, kp_network *network) {
  kp_builder b = {.options = options, .parameters = parameters, .network = network, .graph = network->graph};
  kp_point x = kp_part_embedding(&b);
  x = kp_part_stream(&b, x);
  (options->task == KP_TASK_LANGUAGE ? kp_part_head : kp_part_task_head)(&b, x);
}
