/* Runs a graph on a backend.
 *
 * An executor owns the arena that the plan describes and the state tensors it
 * is not given.  Creating it allocates everything; running allocates nothing. */
#ifndef KAPPA_CORE_EXECUTOR_H
#define KAPPA_CORE_EXECUTOR_H

#include "core/parameters.h"
#include "core/plan.h"

typedef struct kp_executor kp_executor;

typedef struct kp_executor_options {
  int threads; /* 0: as many as the machine has cores */
  uint64_t seed;
  bool trap;          /* after every node, look for values that are not finite */
  bool poison;        /* fill outputs with NaN before a kernel writes them: finds what was left unwritten */
  void *arena;        /* memory to use instead of an own arena; may be NULL */
  size_t arena_bytes; /* of it; where the plan needs more it is not used */
} kp_executor_options;

/* `graph` and `parameters` (allocated; may be NULL without parameters) must
 * outlive the executor.  Fails when the backend lacks a kernel of the graph. */
kp_status kp_executor_create(const kp_graph *graph, const kp_backend *backend,
                             const kp_parameters *parameters, kp_executor_options options,
                             kp_executor **executor, kp_error *error);
void kp_executor_destroy(kp_executor *executor);

const kp_plan *kp_executor_plan(const kp_executor *executor);

/* The memory of what the plan has placed.  Of executors that share one, none finds its inputs, constants and
 * kept tensors again after a run of another: inputs and constants have to be written anew. */
void *kp_executor_arena(const kp_executor *executor);
void kp_executor_write_constants(kp_executor *executor);

/* Makes `tensor` (an input or state of the graph) use `memory` of the caller, in the backend's memory. */
void kp_executor_bind(kp_executor *executor, const kp_tensor *tensor, void *memory);

/* The memory of a tensor, which may be a device's: valid for inputs, constants, states, parameters and
 * gradients always, for activations while they live (kp_graph_keep). */
void *kp_executor_memory(const kp_executor *executor, const kp_tensor *tensor);

/* Converting copies; `host` holds kp_tensor_count(tensor) elements, dense.  Reading waits for a device; from
 * one that has failed it gives NaN (or 0), and the next kp_executor_wait says what went wrong. */
void kp_executor_read(const kp_executor *executor, const kp_tensor *tensor, double *host);
/* `count` rows of a tensor from `first` on as they lie in memory, kp_executor_row_bytes each.  Waits. */
kp_status kp_executor_copy_rows(const kp_executor *executor, const kp_tensor *tensor, int64_t first,
                                int64_t count, void *host, kp_error *error);
size_t kp_executor_row_bytes(const kp_executor *executor, const kp_tensor *tensor);
void kp_executor_read_int32(const kp_executor *executor, const kp_tensor *tensor, int32_t *host);
void kp_executor_write(kp_executor *executor, const kp_tensor *tensor, const double *host);
void kp_executor_write_int32(kp_executor *executor, const kp_tensor *tensor, const int32_t *host);
/* All states to zero. */
void kp_executor_clear_states(kp_executor *executor);

/* Runs nodes [first, last).  The whole graph is (0, node_count); its forward pass (0, forward_count).  On a
 * device the work is submitted: kp_executor_wait waits for it and says what went wrong in it. */
kp_status kp_executor_run(kp_executor *executor, int first, int last, kp_error *error);
/* The same without a recording of its own: for a caller that records it among other work. */
kp_status kp_executor_submit(kp_executor *executor, int first, int last, kp_error *error);
kp_status kp_executor_wait(const kp_executor *executor, kp_error *error);

/* The counter of the random numbers: set it before each run of a training step. */
void kp_executor_set_step(kp_executor *executor, uint64_t step);
void kp_executor_set_trap(kp_executor *executor, bool trap);

/* Seconds spent in each node since the last call with reset; NULL when profiling is off. */
void kp_executor_profile(kp_executor *executor, bool on);
const double *kp_executor_node_seconds(const kp_executor *executor);

#endif
