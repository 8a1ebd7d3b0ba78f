#include "core/executor.h"

#include <math.h>
#include <omp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"

struct kp_executor {
  const kp_graph *graph;
  const kp_backend *backend;
  const kp_parameters *parameters;
  kp_plan *plan;
  void *arena; /* owned unless the caller gave one */
  bool arena_owned;
  void **memory;  /* by tensor id */
  void **states;  /* owned state buffers, by tensor id; NULL where bound or no state */
  kp_call *calls; /* by node index */
  kp_run run;
  bool trap, poison;
  double *seconds; /* by node index, when profiling */
};

int kp_thread_count(int requested) {
  return requested > 0 ? requested : omp_get_num_procs();
}

static size_t tensor_bytes(const kp_executor *executor, const kp_tensor *tensor) {
  return (size_t)kp_tensor_count(tensor) * kp_type_size(executor->backend, tensor->type);
}

static kp_status check_kernels(const kp_graph *graph, const kp_backend *backend, kp_error *error) {
  for (int n = 0; n < graph->node_count; n++) {
    const kp_node *node = graph->nodes[n];
    if (backend->kernels[node->operation] == NULL)
      return kp_fail(error, KP_ERR_UNSUPPORTED, "backend %s has no kernel for operator %s (%s)",
                     backend->name, node->row->name, node->scope);
  }
  return KP_OK;
}

static void *place_of(kp_executor *executor, const kp_tensor *tensor) {
  const size_t real = executor->backend->real_size;
  const kp_parameters *parameters = executor->parameters;
  switch (tensor->role) {
  case KP_ROLE_PARAMETER:
    return (char *)parameters->values + (size_t)parameters->list[tensor->parameter].offset * real;
  case KP_ROLE_GRADIENT:
    if (parameters->gradients == NULL) return NULL;
    return (char *)parameters->gradients + (size_t)parameters->list[tensor->parameter].offset * real;
  case KP_ROLE_STATE: return executor->states[tensor->id];
  default: return (char *)executor->arena + executor->plan->offset[tensor->id];
  }
}

static void fill_calls(kp_executor *executor) {
  const kp_graph *graph = executor->graph;
  for (int n = 0; n < graph->node_count; n++) {
    const kp_node *node = graph->nodes[n];
    kp_call *call = &executor->calls[n];
    call->node = node;
    call->run = &executor->run;
    call->scratch = (char *)executor->arena + executor->plan->scratch_offset[n];
    for (int i = 0; i < node->inputs; i++)
      call->input[i] = node->input[i] == NULL ? NULL : executor->memory[node->input[i]->id];
    for (int i = 0; i < node->outputs; i++)
      call->output[i] = node->output[i] == NULL ? NULL : executor->memory[node->output[i]->id];
  }
}

static kp_status allocate(kp_executor *executor, void *given_arena, kp_error *error) {
  const kp_graph *graph = executor->graph;
  executor->arena = given_arena;
  if (given_arena == NULL) {
    executor->arena_owned = true;
    KP_TRY(
        kp_buffer_create(executor->plan->arena_bytes, "the activations of a step", &executor->arena, error));
  }
  for (int i = 0; i < graph->tensor_count; i++) {
    const kp_tensor *tensor = graph->tensors[i];
    if (tensor->role == KP_ROLE_STATE)
      KP_TRY(kp_buffer_create(tensor_bytes(executor, tensor), tensor->name, &executor->states[i], error));
    executor->memory[i] = place_of(executor, tensor);
  }
  for (int i = 0; i < graph->tensor_count; i++)
    if (graph->tensors[i]->role == KP_ROLE_CONSTANT)
      kp_executor_write(executor, graph->tensors[i], graph->tensors[i]->values);
  fill_calls(executor);
  return KP_OK;
}

kp_status kp_executor_create(const kp_graph *graph, const kp_backend *backend,
                             const kp_parameters *parameters, kp_executor_options options,
                             kp_executor **result, kp_error *error) {
  *result = NULL;
  KP_TRY(check_kernels(graph, backend, error));
  kp_executor *executor = calloc(1, sizeof *executor);
  kp_assert(executor != NULL, "out of memory");
  executor->graph = graph;
  executor->backend = backend;
  executor->parameters = parameters;
  executor->trap = options.trap;
  executor->poison = options.poison;
  executor->run.threads = kp_thread_count(options.threads);
  executor->run.seed = options.seed;
  executor->plan = kp_plan_create(graph, backend, executor->run.threads);
  executor->memory = calloc((size_t)graph->tensor_count + 1, sizeof(void *));
  executor->states = calloc((size_t)graph->tensor_count + 1, sizeof(void *));
  executor->calls = calloc((size_t)graph->node_count + 1, sizeof(kp_call));
  kp_assert(executor->memory && executor->states && executor->calls, "out of memory for a graph's tables");
  kp_status status = allocate(executor, options.arena, error);
  if (status != KP_OK) {
    kp_executor_destroy(executor);
    return status;
  }
  *result = executor;
  return KP_OK;
}

void kp_executor_destroy(kp_executor *executor) {
  if (executor == NULL) return;
  if (executor->arena_owned) kp_buffer_destroy(executor->arena);
  for (int i = 0; i < executor->graph->tensor_count; i++) kp_buffer_destroy(executor->states[i]);
  kp_plan_destroy(executor->plan);
  free(executor->memory);
  free(executor->states);
  free(executor->calls);
  free(executor->seconds);
  free(executor);
}

const kp_plan *kp_executor_plan(const kp_executor *executor) {
  return executor->plan;
}

void kp_executor_bind(kp_executor *executor, const kp_tensor *tensor, void *memory) {
  kp_assert(tensor->role == KP_ROLE_INPUT || tensor->role == KP_ROLE_STATE, "%s cannot be bound",
            tensor->name);
  kp_buffer_destroy(executor->states[tensor->id]);
  executor->states[tensor->id] = NULL;
  executor->memory[tensor->id] = memory;
  fill_calls(executor);
}

void *kp_executor_memory(const kp_executor *executor, const kp_tensor *tensor) {
  return executor->memory[tensor->id];
}

void kp_executor_read(const kp_executor *executor, const kp_tensor *tensor, double *host) {
  const void *memory = executor->memory[tensor->id];
  const int64_t count = kp_tensor_count(tensor);
  for (int64_t i = 0; i < count; i++) {
    if (tensor->type == KP_TYPE_INT32)
      host[i] = ((const int32_t *)memory)[i];
    else if (executor->backend->real_size == sizeof(double))
      host[i] = ((const double *)memory)[i];
    else
      host[i] = (double)((const float *)memory)[i];
  }
}

void kp_executor_write(kp_executor *executor, const kp_tensor *tensor, const double *host) {
  void *memory = executor->memory[tensor->id];
  const int64_t count = kp_tensor_count(tensor);
  for (int64_t i = 0; i < count; i++) {
    if (tensor->type == KP_TYPE_INT32)
      ((int32_t *)memory)[i] = (int32_t)host[i];
    else if (executor->backend->real_size == sizeof(double))
      ((double *)memory)[i] = host[i];
    else
      ((float *)memory)[i] = (float)host[i];
  }
}

void kp_executor_write_int32(kp_executor *executor, const kp_tensor *tensor, const int32_t *host) {
  kp_assert(tensor->type == KP_TYPE_INT32, "%s holds real numbers", tensor->name);
  memcpy(executor->memory[tensor->id], host, (size_t)kp_tensor_count(tensor) * sizeof *host);
}

static double element(const kp_executor *executor, const kp_tensor *tensor, int64_t i) {
  const void *memory = executor->memory[tensor->id];
  return executor->backend->real_size == sizeof(double) ? ((const double *)memory)[i]
                                                        : (double)((const float *)memory)[i];
}

/* The first index whose value is not finite, or -1. */
static int64_t first_not_finite(const kp_executor *executor, const kp_tensor *tensor) {
  const int64_t count = kp_tensor_count(tensor);
  for (int64_t i = 0; i < count; i++)
    if (!isfinite(element(executor, tensor, i))) return i;
  return -1;
}

/* At the end of `text`, which is cut where it is full. */
static void append(char *text, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));

static void append(char *text, size_t size, const char *format, ...) {
  const size_t used = strlen(text);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text + used, size - used, format, arguments);
  va_end(arguments);
}

/* The length of a row of `input`; of curvatures the values themselves, one for each head. */
static void describe_row(const kp_executor *executor, const kp_tensor *input, int64_t row, char *text,
                         size_t size) {
  enum { MOST_CURVATURES = 32, SHOWN = 8 };
  const int64_t columns = kp_tensor_columns(input), at = row * columns;
  double norm = 0;
  if (text[0] != 0) append(text, size, ", ");
  if (columns <= MOST_CURVATURES && strstr(input->name, "curvature") != NULL) {
    append(text, size, "%s = %.4g", input->name, element(executor, input, at));
    for (int64_t c = 1; c < columns && c < SHOWN; c++)
      append(text, size, ", %.4g", element(executor, input, at + c));
    return;
  }
  for (int64_t c = 0; c < columns; c++) norm = hypot(norm, element(executor, input, at + c));
  append(text, size, "|%s| = %.4g", input->name, norm);
}

/* A parameter that is not finite itself: it was bad before this operator read it. */
static void describe_parameter(const kp_executor *executor, const kp_tensor *input, char *text, size_t size) {
  const int64_t bad = first_not_finite(executor, input), columns = kp_tensor_columns(input);
  if (bad < 0)
    append(text, size, "%s%s is finite", text[0] != 0 ? ", " : "", input->name);
  else
    append(text, size, "%s%s holds %g at row %lld, column %lld", text[0] != 0 ? ", " : "", input->name,
           element(executor, input, bad), (long long)(bad / columns), (long long)(bad % columns));
}

/* Says which operator made the first value that is not finite, in which row,
 * and how large that row's inputs are: their norms tell a blow-up from a
 * domain error; curvatures are printed as they are, and a parameter that is
 * the fault itself is named. */
static kp_status report_not_finite(const kp_executor *executor, const kp_node *node, const kp_tensor *output,
                                   int64_t index, kp_error *error) {
  char shape[64], detail[512] = "";
  const int64_t columns = kp_tensor_columns(output), rows = kp_tensor_rows(output), row = index / columns;
  for (int i = 0; i < node->inputs; i++) {
    const kp_tensor *input = node->input[i];
    if (input == NULL || input->type == KP_TYPE_INT32) continue;
    if (input->role == KP_ROLE_PARAMETER && strstr(input->name, "curvature") == NULL)
      describe_parameter(executor, input, detail, sizeof detail);
    else
      describe_row(executor, input, row * kp_tensor_rows(input) / rows, detail, sizeof detail);
  }
  return kp_fail(error, KP_ERR_NUMERIC,
                 "operator %s (%s) wrote %g to %s %s at row %lld, column %lld; its inputs in that row: %s",
                 node->row->name, node->scope[0] ? node->scope : "graph", element(executor, output, index),
                 output->name, kp_tensor_shape_text(output, shape), (long long)row,
                 (long long)(index % columns), detail);
}

static kp_status trap(const kp_executor *executor, const kp_node *node, kp_error *error) {
  for (int i = 0; i < node->outputs; i++) {
    const kp_tensor *output = node->output[i];
    if (output == NULL || output->type == KP_TYPE_INT32) continue;
    int64_t index = first_not_finite(executor, output);
    if (index >= 0) return report_not_finite(executor, node, output, index, error);
  }
  return KP_OK;
}

/* All bits set is a NaN in float and double, and no valid token. */
static void poison_outputs(const kp_executor *executor, const kp_node *node) {
  for (int i = 0; i < node->outputs; i++) {
    const kp_tensor *output = node->output[i];
    if (output == NULL || output->role != KP_ROLE_ACTIVATION || output->producer != node) continue;
    bool shared = false;
    for (int j = 0; j < node->inputs; j++)
      shared |=
          node->input[j] != NULL && executor->memory[node->input[j]->id] == executor->memory[output->id];
    if (!shared) memset(executor->memory[output->id], 0xff, tensor_bytes(executor, output));
  }
}

kp_status kp_executor_run(kp_executor *executor, int first, int last, kp_error *error) {
  omp_set_num_threads(executor->run.threads);
  for (int n = first; n < last; n++) {
    const kp_node *node = executor->graph->nodes[n];
    if (executor->poison) poison_outputs(executor, node);
    double start = executor->seconds != NULL ? omp_get_wtime() : 0;
    kp_status status = executor->backend->kernels[node->operation](&executor->calls[n], error);
    if (executor->seconds != NULL) executor->seconds[n] += omp_get_wtime() - start;
    if (status != KP_OK) return kp_context(error, "operator %s (%s)", node->row->name, node->scope);
    if (executor->trap) KP_TRY(trap(executor, node, error));
  }
  return KP_OK;
}

void kp_executor_set_step(kp_executor *executor, uint64_t step) {
  executor->run.step = step;
}

void kp_executor_set_trap(kp_executor *executor, bool on) {
  executor->trap = on;
}

void kp_executor_profile(kp_executor *executor, bool on) {
  free(executor->seconds);
  executor->seconds = on ? calloc((size_t)executor->graph->node_count + 1, sizeof(double)) : NULL;
}

const double *kp_executor_node_seconds(const kp_executor *executor) {
  return executor->seconds;
}
