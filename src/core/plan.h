/* The memory plan: where every activation lives, and how much a run needs.
 *
 * Tensors whose lifetimes do not overlap share memory.  The plan is made
 * before a byte is allocated, so that a run that does not fit can be refused
 * with numbers. */
#ifndef KAPPA_CORE_PLAN_H
#define KAPPA_CORE_PLAN_H

#include "core/backend.h"

typedef struct kp_plan {
  size_t *offset;         /* by tensor id: its place in the arena, for inputs, constants and activations */
  size_t *scratch_offset; /* by node index */
  size_t arena_bytes;     /* what a run needs: activations, scratch, inputs, constants */
  size_t live_peak_bytes; /* the largest sum of tensors alive at once: a lower bound for any plan */
  size_t state_bytes;     /* caches that live from run to run */
  int peak_node;          /* the node at which most is alive */
  int *last_use;   /* by tensor id: the last node that touches it; node_count if it is kept; -1: none */
  kp_arena *arena; /* owns the arrays */
} kp_plan;

/* Plans `graph` for `backend` with `threads` threads.  Destroy with kp_plan_destroy. */
kp_plan *kp_plan_create(const kp_graph *graph, const kp_backend *backend, int threads);
void kp_plan_destroy(kp_plan *plan);

#endif
