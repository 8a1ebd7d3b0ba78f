#include "core/plan.h"

#include <stdlib.h>
#include <string.h>

#include "core/assert.h"

/* Every buffer starts on a cache line, so that vector loads do not straddle two; on a device on two of its
 * larger ones. */
enum { HOST_ALIGNMENT = 64, DEVICE_ALIGNMENT = 256 };

/* A block of memory with a lifetime.  Tensors that overwrite each other in place share one. */
typedef struct block {
  int first, last; /* node indices, inclusive */
  size_t bytes, offset;
} block;

typedef struct planner {
  const kp_graph *graph;
  const kp_backend *backend;
  int threads;
  kp_plan *plan;
  int *last_use;      /* by tensor id */
  int *block_of;      /* by tensor id; -1: none */
  int *scratch_block; /* by node index; -1: none */
  block *blocks;
  int block_count;
} planner;

static size_t aligned_bytes(const planner *p, size_t bytes) {
  const size_t alignment = p->backend->device == NULL ? HOST_ALIGNMENT : DEVICE_ALIGNMENT;
  return (bytes + alignment - 1) / alignment * alignment;
}

static size_t tensor_bytes(const planner *p, const kp_tensor *tensor) {
  return aligned_bytes(p, kp_tensor_bytes(p->backend, tensor));
}

static int add_block(planner *p, int first, int last, size_t bytes) {
  p->blocks[p->block_count] = (block){first, last, bytes, 0};
  return p->block_count++;
}

static void find_last_uses(planner *p) {
  const kp_graph *graph = p->graph;
  for (int n = 0; n < graph->node_count; n++) {
    const kp_node *node = graph->nodes[n];
    for (int i = 0; i < node->inputs; i++)
      if (node->input[i] != NULL) p->last_use[node->input[i]->id] = n;
    for (int i = 0; i < node->outputs; i++)
      if (node->output[i] != NULL) p->last_use[node->output[i]->id] = n;
  }
  for (int i = 0; i < graph->tensor_count; i++)
    if (graph->tensors[i]->keep) p->last_use[i] = graph->node_count;
}

/* The input whose memory the node's output may take over: it dies here, and nothing else lies in it. */
static const kp_tensor *inplace_candidate(const planner *p, const kp_node *node, const kp_tensor *output) {
  if (node->row->inplace_output < 0 || node->output[node->row->inplace_output] != output) return NULL;
  const kp_tensor *input = node->input[node->row->inplace_input];
  if (input == NULL || input->role != KP_ROLE_ACTIVATION || p->last_use[input->id] != node->index)
    return NULL;
  if (tensor_bytes(p, input) != tensor_bytes(p, output) || p->block_of[input->id] < 0) return NULL;
  int readers = 0;
  for (int i = 0; i < node->inputs; i++) readers += node->input[i] == input;
  return readers == 1 ? input : NULL;
}

static void make_blocks(planner *p) {
  const kp_graph *graph = p->graph;
  for (int i = 0; i < graph->tensor_count; i++) {
    const kp_tensor *tensor = graph->tensors[i];
    if (tensor->role == KP_ROLE_INPUT || tensor->role == KP_ROLE_CONSTANT)
      p->block_of[i] = add_block(p, 0, graph->node_count, tensor_bytes(p, tensor));
    if (tensor->role == KP_ROLE_STATE) p->plan->state_bytes += tensor_bytes(p, tensor);
  }
  for (int n = 0; n < graph->node_count; n++) {
    const kp_node *node = graph->nodes[n];
    for (int i = 0; i < node->outputs; i++) {
      const kp_tensor *output = node->output[i];
      if (output == NULL || output->role != KP_ROLE_ACTIVATION || p->block_of[output->id] >= 0) continue;
      const kp_tensor *input = inplace_candidate(p, node, output);
      if (input != NULL) {
        block *shared = &p->blocks[p->block_of[input->id]];
        p->block_of[output->id] = p->block_of[input->id];
        if (p->last_use[output->id] > shared->last) shared->last = p->last_use[output->id];
      } else {
        p->block_of[output->id] = add_block(p, n, p->last_use[output->id], tensor_bytes(p, output));
      }
    }
    kp_scratch_size scratch = p->backend->scratch == NULL ? NULL : p->backend->scratch[node->operation];
    size_t bytes = scratch == NULL ? 0 : aligned_bytes(p, scratch(node, p->threads));
    if (bytes > 0) p->scratch_block[n] = add_block(p, n, n, bytes);
  }
}

/* Larger blocks first; equal ones in order of creation, so that the plan is the same on every run. */
static int larger_first(const void *a, const void *b) {
  const block *x = *(block *const *)a, *y = *(block *const *)b;
  if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
  return x < y ? -1 : x > y;
}

static bool overlap(const block *a, const block *b) {
  return a->first <= b->last && b->first <= a->last;
}

/* The lowest offset at which `candidate` collides with none of the `count` blocks, which are sorted by
 * offset. */
static size_t lowest_gap(block *const *placed, int count, const block *candidate) {
  size_t offset = 0;
  for (int i = 0; i < count; i++) {
    if (!overlap(placed[i], candidate)) continue;
    if (placed[i]->offset >= offset + candidate->bytes) break;
    if (placed[i]->offset + placed[i]->bytes > offset) offset = placed[i]->offset + placed[i]->bytes;
  }
  return offset;
}

/* Greedy by size: large blocks first, each at the lowest place that is free during its life. */
static void place_blocks(planner *p) {
  block **order = kp_arena_take(p->plan->arena, (size_t)p->block_count * sizeof *order);
  block **placed = kp_arena_take(p->plan->arena, (size_t)p->block_count * sizeof *placed);
  for (int i = 0; i < p->block_count; i++) order[i] = &p->blocks[i];
  qsort(order, (size_t)p->block_count, sizeof *order, larger_first);
  for (int n = 0; n < p->block_count; n++) {
    block *next = order[n];
    next->offset = lowest_gap(placed, n, next);
    int i = n;
    for (; i > 0 && placed[i - 1]->offset > next->offset; i--) placed[i] = placed[i - 1];
    placed[i] = next;
    if (next->offset + next->bytes > p->plan->arena_bytes) p->plan->arena_bytes = next->offset + next->bytes;
  }
}

static void measure_live_peak(planner *p) {
  for (int n = 0; n < p->graph->node_count; n++) {
    size_t live = 0;
    for (int i = 0; i < p->block_count; i++)
      if (p->blocks[i].first <= n && n <= p->blocks[i].last) live += p->blocks[i].bytes;
    if (live <= p->plan->live_peak_bytes) continue;
    p->plan->live_peak_bytes = live;
    p->plan->peak_node = n;
  }
}

kp_plan *kp_plan_create(const kp_graph *graph, const kp_backend *backend, int threads) {
  kp_arena *arena = kp_arena_create();
  kp_plan *plan = kp_arena_take(arena, sizeof *plan);
  size_t tensors = (size_t)graph->tensor_count, nodes = (size_t)graph->node_count;
  plan->arena = arena;
  plan->offset = kp_arena_take(arena, tensors * sizeof *plan->offset);
  plan->scratch_offset = kp_arena_take(arena, nodes * sizeof *plan->scratch_offset);
  planner p = {.graph = graph, .backend = backend, .threads = threads, .plan = plan};
  p.last_use = plan->last_use = kp_arena_take(arena, tensors * sizeof *p.last_use);
  p.block_of = kp_arena_take(arena, tensors * sizeof *p.block_of);
  p.scratch_block = kp_arena_take(arena, nodes * sizeof *p.scratch_block);
  p.blocks = kp_arena_take(arena, (tensors + nodes) * sizeof *p.blocks);
  for (size_t i = 0; i < tensors; i++) p.last_use[i] = p.block_of[i] = -1;
  for (size_t i = 0; i < nodes; i++) p.scratch_block[i] = -1;
  find_last_uses(&p);
  make_blocks(&p);
  place_blocks(&p);
  measure_live_peak(&p);
  for (size_t i = 0; i < tensors; i++)
    if (p.block_of[i] >= 0) plan->offset[i] = p.blocks[p.block_of[i]].offset;
  for (size_t i = 0; i < nodes; i++)
    if (p.scratch_block[i] >= 0) plan->scratch_offset[i] = p.blocks[p.scratch_block[i]].offset;
  return plan;
}

void kp_plan_destroy(kp_plan *plan) {
  if (plan != NULL) kp_arena_destroy(plan->arena);
}
