#include "train/expert_load.h"

#include <stdlib.h>

#include "core/assert.h"
#include "core/load.h"
#include "core/memory.h"
#include "models/balance.h"

static int64_t experts_of(const kp_expert_load *load) {
  return load->counts == NULL ? 0 : load->options->routed;
}

static size_t counts_bytes(const kp_expert_load *load) {
  return (size_t)(load->network->layers * load->options->routed) * sizeof *load->counts;
}

kp_status kp_expert_load_init(kp_expert_load *load, const kp_model_options *options,
                              const kp_network *network, const kp_backend *backend, kp_error *error) {
  *load = (kp_expert_load){.options = &options->experts, .network = network, .backend = backend};
  if (options->feed_forward < KP_FEED_FORWARD_MOE) return KP_OK;
  load->part = calloc((size_t)options->experts.routed, sizeof *load->part);
  kp_assert(load->part != NULL, "out of memory");
  void *counts = NULL;
  const kp_status status =
      kp_memory_create(backend, counts_bytes(load), "the load of experts", &counts, error);
  load->counts = counts;
  return status;
}

void kp_expert_load_destroy(kp_expert_load *load) {
  if (load->counts != NULL) kp_memory_destroy(load->backend, load->counts);
  free(load->part);
}

static void add_on_host(kp_expert_load *load, const kp_executor *executor, const kp_tensor *counts,
                        double *sums) {
  kp_executor_read(executor, counts, load->part);
  for (int64_t e = 0; e < experts_of(load); e++) sums[e] += load->part[e];
}

kp_status kp_expert_load_add(kp_expert_load *load, const kp_executor *executor, kp_error *error) {
  const int64_t E = experts_of(load);
  for (int layer = 0; layer < load->network->layers && E > 0; layer++) {
    const kp_tensor *counts = load->network->routes[layer].counts;
    if (counts == NULL) continue;
    if (load->backend->load == NULL)
      add_on_host(load, executor, counts, load->counts + layer * E);
    else
      KP_TRY(load->backend->load->add(load->backend->device, load->counts + layer * E,
                                      kp_executor_memory(executor, counts), E, error));
  }
  return KP_OK;
}

static void balance_on_host(kp_expert_load *load, kp_parameters *parameters, int bias, const double *sums) {
  kp_parameters_read(parameters, parameters->values, bias, load->part);
  kp_balance_update(load->part, sums, experts_of(load), load->options->balance_rate,
                    load->options->balance_rule);
  kp_parameters_write(parameters, parameters->values, bias, load->part);
}

kp_status kp_expert_load_balance(kp_expert_load *load, kp_parameters *parameters, kp_error *error) {
  const int64_t E = experts_of(load);
  const kp_expert_options *o = load->options;
  for (int layer = 0; layer < load->network->layers && E > 0; layer++) {
    const kp_route_record *route = &load->network->routes[layer];
    if (route->counts == NULL || parameters->list[route->bias].frozen) continue;
    const double *sums = load->counts + layer * E;
    if (load->backend->load == NULL)
      balance_on_host(load, parameters, route->bias, sums);
    else
      KP_TRY(load->backend->load->balance(
          load->backend->device, (float *)parameters->values + parameters->list[route->bias].offset, sums, E,
          o->balance_rate, o->balance_rule == KP_BALANCE_SIGN, error));
  }
  return kp_expert_load_forget(load, error);
}

kp_status kp_expert_load_forget(kp_expert_load *load, kp_error *error) {
  if (load->counts == NULL) return KP_OK;
  return kp_memory_fill(load->backend, load->counts, 0, counts_bytes(load), error);
}
