#include "train/expert_load.h"

#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "models/balance.h"

static int64_t experts_of(const kp_expert_load *load) {
  return load->counts == NULL ? 0 : load->options->routed;
}

void kp_expert_load_init(kp_expert_load *load, const kp_model_options *options, const kp_network *network) {
  *load = (kp_expert_load){.options = &options->experts, .network = network};
  if (options->feed_forward < KP_FEED_FORWARD_MOE) return;
  load->counts = calloc((size_t)(network->layers * options->experts.routed), sizeof *load->counts);
  load->part = calloc((size_t)options->experts.routed, sizeof *load->part);
  kp_assert(load->counts != NULL && load->part != NULL, "out of memory");
}

void kp_expert_load_destroy(kp_expert_load *load) {
  free(load->counts);
  free(load->part);
}

void kp_expert_load_add(kp_expert_load *load, const kp_executor *executor) {
  const int64_t E = experts_of(load);
  for (int layer = 0; layer < load->network->layers && E > 0; layer++) {
    const kp_tensor *counts = load->network->routes[layer].counts;
    if (counts == NULL) continue;
    kp_executor_read(executor, counts, load->part);
    for (int64_t e = 0; e < E; e++) load->counts[layer * E + e] += load->part[e];
  }
}

void kp_expert_load_balance(kp_expert_load *load, kp_parameters *parameters) {
  const int64_t E = experts_of(load);
  for (int layer = 0; layer < load->network->layers && E > 0; layer++) {
    const kp_route_record *route = &load->network->routes[layer];
    if (route->counts == NULL || parameters->list[route->bias].frozen) continue;
    kp_parameters_read(parameters, parameters->values, route->bias, load->part);
    kp_balance_update(load->part, load->counts + layer * E, E, load->options->balance_rate,
                      load->options->balance_rule);
    kp_parameters_write(parameters, parameters->values, route->bias, load->part);
  }
  kp_expert_load_forget(load);
}

void kp_expert_load_forget(kp_expert_load *load) {
  if (load->counts == NULL) return;
  memset(load->counts, 0, (size_t)(load->network->layers * load->options->routed) * sizeof *load->counts);
}
