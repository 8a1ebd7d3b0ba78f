/* The blocks by the kind of their stream, and the whole model around them. */
#include "models/parts/parts.h"

kp_point kp_part_stream(kp_builder *b, kp_point x) {
  return kp_part_seam_stream(b, x);
}

void kp_model_build(const kp_model_options *options, kp_parameters *parameters, kp_network *network) {
  kp_builder b = {.options = options, .parameters = parameters, .network = network, .graph = network->graph};
  kp_point x = kp_part_embedding(&b);
  kp_part_head(&b, kp_part_stream(&b, x));
}
