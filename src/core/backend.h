/* What a backend is: a width for real numbers and one kernel per operator.
 *
 * `ref` computes in double and is the specification; `cpu` is fast.  A kernel
 * reads its inputs, writes all of every output (or adds to it, when the
 * operator accumulates), and touches nothing else but its scratch memory.
 * Kernels may use all of `run->threads` OpenMP threads; their results must not
 * depend on timing. */
#ifndef KAPPA_CORE_BACKEND_H
#define KAPPA_CORE_BACKEND_H

#include "core/graph.h"

/* What changes from run to run. */
typedef struct kp_run {
  uint64_t seed; /* of the training run: keys the random numbers of dropout */
  uint64_t step; /* counts micro-steps: a counter of the random numbers */
  int threads;
} kp_run;

typedef struct kp_call {
  const kp_node *node;
  void *input[KP_MAX_INPUTS];
  void *output[KP_MAX_OUTPUTS];
  void *scratch; /* as many bytes as the backend's scratch function asked for */
  const kp_run *run;
} kp_call;

typedef kp_status (*kp_kernel)(const kp_call *call, kp_error *error);
typedef size_t (*kp_scratch_size)(const kp_node *node, int threads);

typedef struct kp_backend {
  const char *name;
  size_t real_size;               /* bytes of a real number */
  const kp_kernel *kernels;       /* by operation; NULL: not there */
  const kp_scratch_size *scratch; /* by operation; NULL: none needed */
} kp_backend;

/* The number of threads to use for a request: 0 asks for all processors that this process may use. */
int kp_thread_count(int requested);

/* Bytes of one element of `type` on `backend`. */
static inline size_t kp_type_size(const kp_backend *backend, kp_type type) {
  return type == KP_TYPE_INT32 ? sizeof(int32_t) : backend->real_size;
}

#endif
