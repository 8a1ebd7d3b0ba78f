#include "train/plan_report.h"

#include <stdlib.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/limits.h"
#include "core/assert.h"
#include "optim/stepper.h"
#include "train/data_source.h"
#include "train/initial.h"

/* ---- what is alive at the peak ---- */

static size_t tensor_bytes(const kp_plan_report *r, const kp_tensor *tensor) {
  return (size_t)kp_tensor_count(tensor) * kp_type_size(r->backend, tensor->type);
}

static bool planned(const kp_tensor *tensor) {
  return tensor->role == KP_ROLE_ACTIVATION || tensor->role == KP_ROLE_INPUT ||
         tensor->role == KP_ROLE_CONSTANT;
}

/* An operator that works in place shares the memory of its input, which counts once. */
static bool overwritten(const kp_plan_report *r, const kp_tensor *tensor) {
  const kp_node *node = r->network->graph->nodes[r->plan->peak_node];
  const kp_operator *row = node->row;
  if (row->inplace_output < 0 || node->input[row->inplace_input] != tensor) return false;
  const kp_tensor *output = node->output[row->inplace_output];
  return output != NULL && r->plan->offset[output->id] == r->plan->offset[tensor->id];
}

static bool alive(const kp_plan_report *r, const kp_tensor *tensor) {
  const int peak = r->plan->peak_node;
  if (!planned(tensor) || overwritten(r, tensor)) return false;
  if (tensor->role != KP_ROLE_ACTIVATION) return true;
  return tensor->producer != NULL && tensor->producer->index <= peak && r->plan->last_use[tensor->id] >= peak;
}

static int larger_first(const void *a, const void *b) {
  const kp_live_tensor *x = a, *y = b;
  return (x->bytes < y->bytes) - (x->bytes > y->bytes);
}

static void add_scratch(kp_plan_report *r) {
  const kp_node *node = r->network->graph->nodes[r->plan->peak_node];
  kp_scratch_size scratch = r->backend->scratch == NULL ? NULL : r->backend->scratch[node->operation];
  const size_t bytes = scratch == NULL ? 0 : scratch(node, r->threads);
  if (bytes == 0) return;
  r->live[r->live_count++] = (kp_live_tensor){.name = node->row->name, .scope = node->scope, .bytes = bytes};
}

static void find_live(kp_plan_report *r) {
  const kp_graph *graph = r->network->graph;
  r->live = calloc((size_t)graph->tensor_count + 1, sizeof *r->live);
  kp_assert(r->live != NULL, "out of memory");
  for (int i = 0; i < graph->tensor_count; i++) {
    const kp_tensor *tensor = graph->tensors[i];
    if (!alive(r, tensor)) continue;
    kp_live_tensor *live = &r->live[r->live_count++];
    live->name = tensor->name;
    live->scope = tensor->producer == NULL ? "" : tensor->producer->scope;
    live->bytes = tensor_bytes(r, tensor);
    kp_tensor_shape_text(tensor, live->shape);
  }
  add_scratch(r);
  qsort(r->live, (size_t)r->live_count, sizeof *r->live, larger_first);
  r->live_peak_bytes = r->plan->live_peak_bytes;
  r->peak_scope = graph->nodes[r->plan->peak_node]->scope;
}

/* ---- the report ---- */

/* The keys that the run gives which this one starts from. */
static kp_status read_source(kp_config *config, const kp_data_source *data, kp_error *error) {
  kp_trained source;
  if (!kp_initial_completes(config)) return KP_OK;
  KP_TRY(kp_initial_open(config, data, kp_backend_cpu(), &source, error));
  kp_trained_close(&source);
  return KP_OK;
}

static kp_status open_data(kp_plan_report *r, kp_config *config, bool *dialogue, kp_error *error) {
  kp_data_source data;
  KP_TRY(kp_data_source_open(config, &data, error));
  kp_status status = read_source(config, &data, error);
  if (status == KP_OK) status = kp_model_options_read(config, &data.shape, &r->model, error);
  r->data_bytes = kp_tokens_file_bytes(data.train) + kp_tokens_file_bytes(data.validation);
  r->training_tokens = kp_tokens_count(data.train);
  *dialogue = data.dialogue;
  kp_data_source_close(&data);
  return status;
}

/* A model that came from elsewhere has no data. */
static kp_status read_data(kp_plan_report *r, kp_config *config, kp_error *error) {
  const bool bare =
      kp_config_string(config, "data.path")[0] == 0 && kp_config_string(config, "data.train")[0] == 0;
  bool dialogue = false;
  kp_status status =
      bare ? kp_model_options_read(config, NULL, &r->model, error) : open_data(r, config, &dialogue, error);
  r->model.recompute = r->settings.recompute;
  r->model.lora = r->settings.lora;
  r->model.packed = dialogue || r->settings.packing != KP_PACKING_NONE;
  return status;
}

/* What a second graph for evaluation adds: nothing where it fits into the arena of the first. */
static kp_status evaluation_arena(kp_plan_report *r, size_t *bytes, kp_error *error) {
  *bytes = 0;
  if (!kp_network_evaluates_apart(r->network, &r->model)) return KP_OK;
  const kp_build shape = {.mode = KP_BUILD_EVALUATE,
                          .batch = r->settings.batch,
                          .length = r->model.context,
                          .documents = kp_model_reads_documents(&r->model)};
  kp_network *network;
  KP_TRY(kp_network_create(&r->model, r->parameters, shape, &network, error));
  kp_plan *plan = kp_plan_create(network->graph, r->backend, r->threads);
  if (plan->arena_bytes > r->plan->arena_bytes) *bytes = plan->arena_bytes;
  kp_plan_destroy(plan);
  kp_network_destroy(network);
  return KP_OK;
}

static kp_status plan_step(kp_plan_report *r, kp_error *error) {
  const kp_build shape = {.mode = KP_BUILD_TRAIN,
                          .batch = r->settings.batch,
                          .length = r->model.context,
                          .documents = kp_model_reads_documents(&r->model)};
  size_t evaluation, process;
  r->parameters = kp_parameters_create();
  KP_TRY(kp_learned_apply(&r->settings.learned, &r->model, r->parameters, error));
  KP_TRY(kp_network_create(&r->model, r->parameters, shape, &r->network, error));
  KP_TRY(kp_process_bytes(r->network, r->backend, r->threads, &process, error));
  r->plan = kp_plan_create(r->network->graph, r->backend, r->threads);
  KP_TRY(evaluation_arena(r, &evaluation, error));
  kp_parameters_lay_out(r->parameters, r->backend);
  const size_t scratch =
      kp_stepper_scratch_bytes(r->parameters, &r->settings.optimizer, r->backend, r->threads);
  r->memory =
      kp_memory_plan_of(r->parameters, r->backend, r->plan->arena_bytes + evaluation, scratch, process);
  return KP_OK;
}

static void count_operations(kp_plan_report *r) {
  const kp_graph *graph = r->network->graph;
  const double micro = (double)r->settings.accumulate;
  r->forward_flops = micro * kp_network_flops(r->network, 0, graph->forward_count);
  r->backward_flops = micro * kp_network_flops(r->network, graph->forward_count, graph->node_count);
  r->tokens_per_step = r->settings.batch * r->settings.accumulate * r->model.context;
}

kp_status kp_plan_report_create(kp_config *config, const kp_backend *backend, int threads,
                                kp_plan_report **report, kp_error *error) {
  kp_plan_report *r = calloc(1, sizeof *r);
  *report = NULL;
  if (r == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for a report");
  r->backend = backend;
  r->threads = kp_thread_count(threads);
  kp_status status = kp_initial_complete(config, error);
  if (status == KP_OK) status = kp_train_settings_read(config, &r->settings, error);
  if (status == KP_OK) status = read_data(r, config, error);
  if (status == KP_OK) status = plan_step(r, error);
  if (status != KP_OK) {
    kp_plan_report_destroy(r);
    return status;
  }
  find_live(r);
  count_operations(r);
  *report = r;
  return KP_OK;
}

void kp_plan_report_destroy(kp_plan_report *r) {
  if (r == NULL) return;
  free(r->live);
  kp_plan_destroy(r->plan);
  kp_network_destroy(r->network);
  kp_parameters_destroy(r->parameters);
  kp_model_options_destroy(&r->model);
  free(r);
}

kp_status kp_plan_report_measure(const kp_plan_report *r, double *gigaflops, double *seconds,
                                 kp_error *error) {
  enum { ENOUGH_ROWS = 4096 };
  const int64_t all = r->settings.batch * r->model.context;
  const int64_t rows = all < ENOUGH_ROWS ? all : ENOUGH_ROWS;
  KP_TRY(kp_limits_product(rows, 4 * r->model.width, r->model.width, r->threads, gigaflops, error));
  *seconds = (r->forward_flops + r->backward_flops) / (*gigaflops * 1e9);
  return KP_OK;
}
