#include "core/executor.h"

#include <math.h>
#include <omp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "core/memory.h"
#include "core/recorder.h"

/* Ranges of nodes that are run again and again. */
enum { RANGES = 4 };

typedef struct node_range {
  kp_executor *executor;
  int first, last;
  kp_recorder recorder;
} node_range;

struct kp_executor {
  const kp_graph *graph;
  const kp_backend *backend;
  const kp_parameters *parameters;
  kp_plan *plan;
  void *arena; /* owned unless it is the one that the caller gave */
  bool arena_owned;
  void **memory;  /* by tensor id; in the backend's memory */
  void **states;  /* owned state buffers, by tensor id; NULL where bound or no state */
  kp_call *calls; /* by node index */
  kp_run run;
  bool trap, poison;
  double *seconds; /* by node index, when profiling */
  node_range ranges[RANGES];
  int range_count;
};

int kp_thread_count(int requested) {
  return requested > 0 ? requested : omp_get_num_procs();
}

/* What was recorded refers to memory that is about to move. */
static void clear_ranges(kp_executor *executor) {
  for (int i = 0; i < executor->range_count; i++)
    kp_recorder_clear(&executor->ranges[i].recorder, executor->backend);
  executor->range_count = 0;
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

/* Matrices are read in the working precision, which may have a copy of its own. */
static void *place_of_parameter(const kp_executor *executor, const kp_tensor *tensor) {
  const kp_parameters *parameters = executor->parameters;
  const kp_backend *backend = executor->backend;
  const size_t offset = (size_t)parameters->list[tensor->parameter].offset;
  if (tensor->type == KP_TYPE_REAL && parameters->working != NULL)
    return (char *)parameters->working + offset * backend->real_size;
  return (char *)parameters->values + offset * backend->wide_size;
}

static void *place_of(kp_executor *executor, const kp_tensor *tensor) {
  const kp_parameters *parameters = executor->parameters;
  switch (tensor->role) {
  case KP_ROLE_PARAMETER: return place_of_parameter(executor, tensor);
  case KP_ROLE_GRADIENT:
    if (parameters->gradients == NULL) return NULL;
    return (char *)parameters->gradients +
           (size_t)parameters->list[tensor->parameter].offset * executor->backend->wide_size;
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

static kp_status allocate(kp_executor *executor, const kp_executor_options *options, kp_error *error) {
  const kp_graph *graph = executor->graph;
  const kp_backend *backend = executor->backend;
  if (options->arena != NULL && executor->plan->arena_bytes <= options->arena_bytes) {
    executor->arena = options->arena;
  } else {
    executor->arena_owned = true;
    KP_TRY(kp_memory_create(backend, executor->plan->arena_bytes, "the activations of a step",
                            &executor->arena, error));
  }
  for (int i = 0; i < graph->tensor_count; i++) {
    const kp_tensor *tensor = graph->tensors[i];
    if (tensor->role == KP_ROLE_STATE)
      KP_TRY(kp_memory_create(backend, kp_tensor_bytes(backend, tensor), tensor->name, &executor->states[i],
                              error));
    executor->memory[i] = place_of(executor, tensor);
  }
  kp_executor_write_constants(executor);
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
  executor->run.device = backend->device;
  executor->plan = kp_plan_create(graph, backend, executor->run.threads);
  executor->memory = calloc((size_t)graph->tensor_count + 1, sizeof(void *));
  executor->states = calloc((size_t)graph->tensor_count + 1, sizeof(void *));
  executor->calls = calloc((size_t)graph->node_count + 1, sizeof(kp_call));
  kp_assert(executor->memory && executor->states && executor->calls, "out of memory for a graph's tables");
  kp_status status = allocate(executor, &options, error);
  if (status != KP_OK) {
    kp_executor_destroy(executor);
    return status;
  }
  *result = executor;
  return KP_OK;
}

void kp_executor_destroy(kp_executor *executor) {
  if (executor == NULL) return;
  clear_ranges(executor);
  if (executor->arena_owned) kp_memory_destroy(executor->backend, executor->arena);
  for (int i = 0; i < executor->graph->tensor_count; i++)
    kp_memory_destroy(executor->backend, executor->states[i]);
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

void *kp_executor_arena(const kp_executor *executor) {
  return executor->arena;
}

void kp_executor_bind(kp_executor *executor, const kp_tensor *tensor, void *memory) {
  kp_assert(tensor->role == KP_ROLE_INPUT || tensor->role == KP_ROLE_STATE, "%s cannot be bound",
            tensor->name);
  kp_memory_destroy(executor->backend, executor->states[tensor->id]);
  executor->states[tensor->id] = NULL;
  executor->memory[tensor->id] = memory;
  clear_ranges(executor);
  fill_calls(executor);
}

void *kp_executor_memory(const kp_executor *executor, const kp_tensor *tensor) {
  return executor->memory[tensor->id];
}

static kp_matrix matrix_of(const kp_executor *executor, const kp_tensor *tensor) {
  const kp_backend *backend = executor->backend;
  return (kp_matrix){.memory = executor->memory[tensor->id],
                     .rows = kp_tensor_rows(tensor),
                     .columns = kp_tensor_columns(tensor),
                     .pitch = kp_tensor_pitch(tensor, backend->row_multiple),
                     .size = kp_type_size(backend, tensor->type)};
}

void kp_executor_read(const kp_executor *executor, const kp_tensor *tensor, double *host) {
  if (tensor->type != KP_TYPE_INT32) {
    kp_matrix_read(executor->backend, matrix_of(executor, tensor), host);
    return;
  }
  const int64_t count = kp_tensor_count(tensor);
  int32_t *integers = malloc((size_t)count * sizeof *integers + 1);
  kp_assert(integers != NULL, "out of memory for a copy of %s", tensor->name);
  kp_executor_read_int32(executor, tensor, integers);
  for (int64_t i = 0; i < count; i++) host[i] = integers[i];
  free(integers);
}

size_t kp_executor_row_bytes(const kp_executor *executor, const kp_tensor *tensor) {
  const kp_matrix m = matrix_of(executor, tensor);
  return (size_t)m.pitch * m.size;
}

kp_status kp_executor_copy_rows(const kp_executor *executor, const kp_tensor *tensor, int64_t first,
                                int64_t count, void *host, kp_error *error) {
  const size_t bytes = kp_executor_row_bytes(executor, tensor);
  kp_assert(first >= 0 && count >= 0 && first + count <= kp_tensor_rows(tensor), "rows %lld to %lld of %s",
            (long long)first, (long long)(first + count), tensor->name);
  return kp_memory_read(executor->backend, host,
                        (const char *)executor->memory[tensor->id] + (size_t)first * bytes,
                        (size_t)count * bytes, error);
}

void kp_executor_read_int32(const kp_executor *executor, const kp_tensor *tensor, int32_t *host) {
  kp_assert(tensor->type == KP_TYPE_INT32, "%s holds real numbers", tensor->name);
  const size_t bytes = (size_t)kp_tensor_count(tensor) * sizeof *host;
  if (kp_memory_read(executor->backend, host, executor->memory[tensor->id], bytes, NULL) != KP_OK)
    memset(host, 0, bytes);
}

void kp_executor_write(kp_executor *executor, const kp_tensor *tensor, const double *host) {
  if (tensor->type != KP_TYPE_INT32) {
    kp_matrix_write(executor->backend, matrix_of(executor, tensor), host);
    return;
  }
  const int64_t count = kp_tensor_count(tensor);
  int32_t *integers = malloc((size_t)count * sizeof *integers + 1);
  kp_assert(integers != NULL, "out of memory for a copy of %s", tensor->name);
  for (int64_t i = 0; i < count; i++) integers[i] = (int32_t)host[i];
  kp_executor_write_int32(executor, tensor, integers);
  free(integers);
}

void kp_executor_write_int32(kp_executor *executor, const kp_tensor *tensor, const int32_t *host) {
  kp_assert(tensor->type == KP_TYPE_INT32, "%s holds real numbers", tensor->name);
  kp_memory_write(executor->backend, executor->memory[tensor->id], host,
                  (size_t)kp_tensor_count(tensor) * sizeof *host, NULL);
}

void kp_executor_write_constants(kp_executor *executor) {
  for (int i = 0; i < executor->graph->tensor_count; i++) {
    const kp_tensor *tensor = executor->graph->tensors[i];
    if (tensor->role == KP_ROLE_CONSTANT) kp_executor_write(executor, tensor, tensor->values);
  }
}

void kp_executor_clear_states(kp_executor *executor) {
  for (int i = 0; i < executor->graph->tensor_count; i++) {
    const kp_tensor *tensor = executor->graph->tensors[i];
    if (tensor->role == KP_ROLE_STATE)
      kp_memory_fill(executor->backend, executor->memory[i], 0, kp_tensor_bytes(executor->backend, tensor),
                     NULL);
  }
}

/* ---- values that are not finite ---- */

/* The numbers of a real tensor on the host, for the caller to free. */
static double *numbers_of(const kp_executor *executor, const kp_tensor *tensor) {
  double *numbers = malloc((size_t)kp_tensor_count(tensor) * sizeof *numbers + 1);
  kp_assert(numbers != NULL, "out of memory for a copy of %s", tensor->name);
  kp_executor_read(executor, tensor, numbers);
  return numbers;
}

/* The first index whose value is not finite, or -1. */
static int64_t first_not_finite(const double *numbers, int64_t count) {
  for (int64_t i = 0; i < count; i++)
    if (!isfinite(numbers[i])) return i;
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
static void describe_row(const kp_tensor *input, const double *numbers, int64_t row, char *text,
                         size_t size) {
  enum { MOST_CURVATURES = 32, SHOWN = 8 };
  const int64_t columns = kp_tensor_columns(input), at = row * columns;
  double norm = 0;
  if (text[0] != 0) append(text, size, ", ");
  if (columns <= MOST_CURVATURES && strstr(input->name, "curvature") != NULL) {
    append(text, size, "%s = %.4g", input->name, numbers[at]);
    for (int64_t c = 1; c < columns && c < SHOWN; c++) append(text, size, ", %.4g", numbers[at + c]);
    return;
  }
  for (int64_t c = 0; c < columns; c++) norm = hypot(norm, numbers[at + c]);
  append(text, size, "|%s| = %.4g", input->name, norm);
}

/* A parameter that is not finite itself: it was bad before this operator read it. */
static void describe_parameter(const kp_tensor *input, const double *numbers, char *text, size_t size) {
  const int64_t bad = first_not_finite(numbers, kp_tensor_count(input)), columns = kp_tensor_columns(input);
  if (bad < 0)
    append(text, size, "%s%s is finite", text[0] != 0 ? ", " : "", input->name);
  else
    append(text, size, "%s%s holds %g at row %lld, column %lld", text[0] != 0 ? ", " : "", input->name,
           numbers[bad], (long long)(bad / columns), (long long)(bad % columns));
}

/* Says which operator made the first value that is not finite, in which row,
 * and how large that row's inputs are: their norms tell a blow-up from a
 * domain error; curvatures are printed as they are, and a parameter that is
 * the fault itself is named. */
static kp_status report_not_finite(const kp_executor *executor, const kp_node *node, const kp_tensor *output,
                                   int64_t index, double value, kp_error *error) {
  char shape[64], detail[512] = "";
  const int64_t columns = kp_tensor_columns(output), rows = kp_tensor_rows(output), row = index / columns;
  for (int i = 0; i < node->inputs; i++) {
    const kp_tensor *input = node->input[i];
    if (input == NULL || input->type == KP_TYPE_INT32) continue;
    double *numbers = numbers_of(executor, input);
    if (input->role == KP_ROLE_PARAMETER && strstr(input->name, "curvature") == NULL)
      describe_parameter(input, numbers, detail, sizeof detail);
    else
      describe_row(input, numbers, row * kp_tensor_rows(input) / rows, detail, sizeof detail);
    free(numbers);
  }
  return kp_fail(error, KP_ERR_NUMERIC,
                 "operator %s (%s) wrote %g to %s %s at row %lld, column %lld; its inputs in that row: %s",
                 node->row->name, node->scope[0] ? node->scope : "graph", value, output->name,
                 kp_tensor_shape_text(output, shape), (long long)row, (long long)(index % columns), detail);
}

static kp_status trap(const kp_executor *executor, const kp_node *node, kp_error *error) {
  if (executor->backend->device != NULL)
    KP_TRY(executor->backend->device->wait(executor->backend->device, error));
  for (int i = 0; i < node->outputs; i++) {
    const kp_tensor *output = node->output[i];
    if (output == NULL || output->type == KP_TYPE_INT32) continue;
    double *numbers = numbers_of(executor, output);
    const int64_t index = first_not_finite(numbers, kp_tensor_count(output));
    const kp_status status =
        index < 0 ? KP_OK : report_not_finite(executor, node, output, index, numbers[index], error);
    free(numbers);
    if (status != KP_OK) return status;
  }
  return KP_OK;
}

/* All bits set is a NaN in float and double, and no valid token. */
static kp_status poison_outputs(const kp_executor *executor, const kp_node *node, kp_error *error) {
  for (int i = 0; i < node->outputs; i++) {
    const kp_tensor *output = node->output[i];
    if (output == NULL || output->role != KP_ROLE_ACTIVATION || output->producer != node) continue;
    bool shared = false;
    for (int j = 0; j < node->inputs; j++)
      shared |=
          node->input[j] != NULL && executor->memory[node->input[j]->id] == executor->memory[output->id];
    if (!shared)
      KP_TRY(kp_memory_fill(executor->backend, executor->memory[output->id], 0xff,
                            kp_tensor_bytes(executor->backend, output), error));
  }
  return KP_OK;
}

static kp_status run_node(kp_executor *executor, const kp_node *node, kp_error *error) {
  const kp_status status = executor->backend->kernels[node->operation](&executor->calls[node->index], error);
  return status == KP_OK ? KP_OK : kp_context(error, "operator %s (%s)", node->row->name, node->scope);
}

static kp_status time_node(kp_executor *executor, const kp_node *node, kp_error *error) {
  kp_device *device = executor->backend->device;
  double seconds = 0;
  const double start = omp_get_wtime();
  if (device != NULL) KP_TRY(device->timer_start(device, error));
  KP_TRY(run_node(executor, node, error));
  if (device != NULL && device->timer_stop(device, &seconds, error) != KP_OK)
    return kp_context(error, "operator %s (%s)", node->row->name, node->scope);
  executor->seconds[node->index] += device != NULL ? seconds : omp_get_wtime() - start;
  return KP_OK;
}

/* The operators from node `n` on that the backend runs together: how many. */
static kp_status run_several(kp_executor *executor, int n, int last, int *done, kp_error *error) {
  const kp_node *node = executor->graph->nodes[n];
  const bool watched = executor->poison || executor->trap || executor->seconds != NULL;
  *done = 0;
  if (watched || executor->backend->several == NULL) return KP_OK;
  const kp_status status = executor->backend->several(&executor->calls[n], last - n, done, error);
  return status == KP_OK ? KP_OK
                         : kp_context(error, "operators from %s on (%s)", node->row->name, node->scope);
}

static kp_status run_alone(kp_executor *executor, const kp_node *node, kp_error *error) {
  if (executor->poison) KP_TRY(poison_outputs(executor, node, error));
  KP_TRY((executor->seconds != NULL ? time_node : run_node)(executor, node, error));
  return executor->trap ? trap(executor, node, error) : KP_OK;
}

static kp_status run_range(void *context, kp_error *error) {
  const node_range *range = context;
  kp_executor *executor = range->executor;
  for (int n = range->first, done; n < range->last; n += done) {
    KP_TRY(run_several(executor, n, range->last, &done, error));
    if (done > 0) continue;
    KP_TRY(run_alone(executor, executor->graph->nodes[n], error));
    done = 1;
  }
  return KP_OK;
}

/* The range [first, last) with its recording; NULL where there are too many of them. */
static node_range *find_range(kp_executor *executor, int first, int last) {
  for (int i = 0; i < executor->range_count; i++)
    if (executor->ranges[i].first == first && executor->ranges[i].last == last) return &executor->ranges[i];
  if (executor->range_count == RANGES) return NULL;
  executor->ranges[executor->range_count] = (node_range){executor, first, last, {0}};
  return &executor->ranges[executor->range_count++];
}

kp_status kp_executor_run(kp_executor *executor, int first, int last, kp_error *error) {
  const bool watched = executor->poison || executor->trap || executor->seconds != NULL;
  node_range alone = {executor, first, last, {0}};
  node_range *range = watched ? NULL : find_range(executor, first, last);
  kp_device *device = executor->backend->device;
  if (device == NULL)
    omp_set_num_threads(executor->run.threads);
  else
    KP_TRY(device->set_step(device, executor->run.seed, executor->run.step, error));
  if (range == NULL) return run_range(&alone, error);
  return kp_recorder_run(&range->recorder, executor->backend, run_range, range, error);
}

kp_status kp_executor_submit(kp_executor *executor, int first, int last, kp_error *error) {
  node_range range = {executor, first, last, {0}};
  return run_range(&range, error);
}

kp_status kp_executor_wait(const kp_executor *executor, kp_error *error) {
  kp_device *device = executor->backend->device;
  return device == NULL ? KP_OK : device->wait(device, error);
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
