/* The static graph.
 *
 * Model code builds a graph once per shape: tensors are descriptions, nodes
 * are operators, and no number flows.  kp_graph_backward appends the gradient
 * operators to the same list.  Nodes stand in execution order, so a node's
 * inputs are always produced before it.
 *
 * What holds always:
 *   - a tensor is written whole by the node that produces it; the only later
 *     writes are those of backward operators that add to a gradient;
 *   - tensors, nodes, names and arguments die with the graph;
 *   - "real" numbers have no fixed width here: the backend decides (double in
 *     `ref`, float in `cpu`).
 */
#ifndef KAPPA_CORE_GRAPH_H
#define KAPPA_CORE_GRAPH_H

#include <stdbool.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/error.h"

enum { KP_MAX_DIMENSIONS = 4, KP_MAX_INPUTS = 14, KP_MAX_OUTPUTS = 8 };

typedef enum kp_type {
  KP_TYPE_REAL,      /* activations and matrices: the backend's working precision */
  KP_TYPE_STATISTIC, /* row statistics, times of points, curvatures, vectors of parameters, gradients of
                        parameters, losses: never narrower than float32 */
  KP_TYPE_INT32,     /* tokens, positions, lengths */
} kp_type;

typedef enum kp_role {
  KP_ROLE_INPUT,      /* the caller fills it before a run */
  KP_ROLE_CONSTANT,   /* values known when the graph is built */
  KP_ROLE_PARAMETER,  /* a view into the parameters' flat buffer */
  KP_ROLE_GRADIENT,   /* a view into the gradients' flat buffer; operators add to it */
  KP_ROLE_STATE,      /* lives from run to run: caches */
  KP_ROLE_ACTIVATION, /* produced by a node; its place is planned */
} kp_role;

typedef struct kp_node kp_node;
typedef struct kp_graph kp_graph;

typedef struct kp_tensor {
  int id;
  kp_role role;
  kp_type type;
  int dimensions;
  int64_t shape[KP_MAX_DIMENSIONS];
  const char *name;
  kp_node *producer;             /* NULL unless an activation */
  int parameter;                 /* index in the parameter table, for parameters and gradients */
  const double *values;          /* for constants: element count values */
  bool needs_gradient;           /* a gradient flows to it when the graph is differentiated */
  bool recompute;                /* not kept for the backward pass: produced again when it is needed */
  bool keep;                     /* stays readable until the end of a run */
  struct kp_tensor *gradient;    /* after kp_graph_backward: d loss / d this, or NULL */
  struct kp_tensor *recomputed;  /* its second copy in the backward pass */
  struct kp_tensor *accumulator; /* a gradient that is of this tensor alone: operators may add to it */
} kp_tensor;

/* One row of the operator table as the graph sees it (see backend/operators.def). */
typedef struct kp_operator {
  const char *name;
  /* Emits the operators that compute the inputs' gradients from the outputs'; NULL: not differentiable. */
  void (*backward)(kp_graph *graph, kp_node *node);
  int inplace_output, inplace_input; /* this output may overwrite that input; -1: none */
} kp_operator;

struct kp_node {
  int index;
  int operation; /* row of the operator table */
  const kp_operator *row;
  int inputs, outputs;
  kp_tensor *input[KP_MAX_INPUTS]; /* NULL: an optional input that is absent */
  kp_tensor *output[KP_MAX_OUTPUTS];
  const void *arguments; /* the operator's own struct */
  size_t arguments_size;
  const char *scope; /* where in the model: "transformer.h.3.attn" */
};

struct kp_graph {
  kp_arena *arena;
  const kp_operator *operators;
  kp_node **nodes;
  int node_count, node_capacity;
  kp_tensor **tensors;
  int tensor_count, tensor_capacity;
  int forward_count; /* nodes of the forward pass; equals node_count before kp_graph_backward */
  const char *scope;
};

/* `operators` is the table that operation numbers index; it outlives the graph. */
kp_graph *kp_graph_create(const kp_operator *operators);
void kp_graph_destroy(kp_graph *graph);

/* Names what the following nodes belong to, for error messages (printf format). */
void kp_graph_scope(kp_graph *graph, const char *format, ...) __attribute__((format(printf, 2, 3)));

kp_tensor *kp_graph_input(kp_graph *graph, const char *name, kp_type type, int dimensions,
                          const int64_t *shape);
kp_tensor *kp_graph_constant(kp_graph *graph, const char *name, int dimensions, const int64_t *shape,
                             const double *values);
/* `type` is KP_TYPE_REAL for matrices; vectors, scales and curvatures are kept wide: KP_TYPE_STATISTIC. */
kp_tensor *kp_graph_parameter(kp_graph *graph, const char *name, int parameter, kp_type type, bool trainable,
                              int dimensions, const int64_t *shape);
kp_tensor *kp_graph_state(kp_graph *graph, const char *name, kp_type type, int dimensions,
                          const int64_t *shape);

/* A new activation tensor, to be given to kp_graph_node as an output. */
kp_tensor *kp_graph_activation(kp_graph *graph, const char *name, kp_type type, int dimensions,
                               const int64_t *shape);

/* Appends a node.  `arguments` is copied.  Inputs may be NULL where the operator allows it. */
kp_node *kp_graph_node(kp_graph *graph, int operation, const void *arguments, size_t arguments_size,
                       int inputs, kp_tensor *const *input, int outputs, kp_tensor *const *output);

/* Marks a tensor as readable after the run. */
void kp_graph_keep(kp_tensor *tensor);

int64_t kp_tensor_count(const kp_tensor *tensor);
/* The product of all dimensions but the last. */
int64_t kp_tensor_rows(const kp_tensor *tensor);
/* The last dimension. */
int64_t kp_tensor_columns(const kp_tensor *tensor);
bool kp_tensor_same_shape(const kp_tensor *a, const kp_tensor *b);
/* "(12, 64, 128)" in a static-size buffer of the caller. */
const char *kp_tensor_shape_text(const kp_tensor *tensor, char text[64]);

/* ---- Differentiation (core/autodiff.c) ---- */

/* Appends the backward pass of `output`, whose gradient is `seed` (as many elements): an input or a constant.
 * For a loss it is one number: 1 / (number of micro-batches) when gradients are accumulated.  Fails when a
 * gradient would have to pass an operator that is not differentiable. */
kp_status kp_graph_backward(kp_graph *graph, kp_tensor *output, kp_tensor *seed, kp_error *error);

/* For backward rules. ---------------------------------------------------- */

/* The gradient that has arrived at `tensor`, or NULL when none flows there. */
kp_tensor *kp_gradient(const kp_tensor *tensor);
/* Hands `gradient` to `tensor`; several contributions are added. */
void kp_gradient_give(kp_graph *graph, kp_tensor *tensor, kp_tensor *gradient);
/* The gradient that has arrived at an activation, for an operator that adds its own to it as it writes; then
 * none has arrived.  NULL where there is none of the activation's own type. */
kp_tensor *kp_gradient_take(kp_tensor *tensor);
/* A tensor for an accumulating operator to add d/d`tensor` to: the parameter's
 * own gradient, what has been accumulated before, or a zeroed activation.  No two calls for one node give the
 * same activation. */
kp_tensor *kp_gradient_accumulator(kp_graph *graph, kp_tensor *tensor);
/* Call after the accumulating node is in place. */
void kp_gradient_accumulated(kp_graph *graph, kp_tensor *tensor, kp_tensor *accumulator);
/* `tensor` as the backward pass may read it: itself, or a recomputed copy. */
kp_tensor *kp_saved(kp_graph *graph, kp_tensor *tensor);

/* The two operators that differentiation itself emits; they lead every operator table. */
enum { KP_OPERATION_ADD = 0, KP_OPERATION_ZERO = 1 };

#endif
