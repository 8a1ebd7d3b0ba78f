/* The parameters of a model: one flat buffer, one table of views into it.
 *
 * Building a model's graph asks for each parameter by name; the first graph
 * fills the table, later graphs of the same model (evaluation, decoding) find
 * their parameters in it.  kp_parameters_allocate then makes the buffers:
 * values, gradients and two optimizer moments, each flat, so that an optimizer
 * is one pass over memory.  Rows of matrices are padded with zeros where the
 * backend asks for it, and so are their columns. */
#ifndef KAPPA_CORE_PARAMETERS_H
#define KAPPA_CORE_PARAMETERS_H

#include "core/backend.h"

typedef enum kp_group {
  KP_GROUP_DECAY,     /* hidden matrices: weight decay */
  KP_GROUP_TABLE,     /* embeddings and heads: weight decay, but not a matrix to Muon */
  KP_GROUP_NO_DECAY,  /* biases, norms and scales */
  KP_GROUP_CURVATURE, /* curvatures: no decay, a learning rate of their own */
  KP_GROUP_COUNT,
} kp_group;

/* Where a parameter lives: what an optimizer's step must not leave. */
typedef enum kp_manifold {
  KP_MANIFOLD_NONE,          /* a Euclidean space */
  KP_MANIFOLD_UNIT_ROWS,     /* each row (the last dimension) on the unit sphere */
  KP_MANIFOLD_UNIT_COLUMNS,  /* each column of a matrix on the unit sphere */
  KP_MANIFOLD_LORENTZ,       /* each row [time | space] on the hyperboloid of curvature `curvature` */
  KP_MANIFOLD_STEREOGRAPHIC, /* each row in the stereographic model of curvature `curvature` */
} kp_manifold;

typedef enum kp_initial_kind {
  KP_INITIAL_CONSTANT, /* a */
  KP_INITIAL_NORMAL,   /* mean a, standard deviation b */
  KP_INITIAL_UNIFORM,  /* from a to b */
  KP_INITIAL_LIST,     /* values[i % count] */
} kp_initial_kind;

typedef struct kp_initial {
  kp_initial_kind kind;
  double a, b;
  const double *values; /* for KP_INITIAL_LIST; copied when the parameter is added */
  int count;
} kp_initial;

typedef struct kp_parameter {
  const char *name;
  int dimensions;
  int64_t shape[KP_MAX_DIMENSIONS];
  int64_t count, offset; /* in elements; padding of rows is not counted, and offsets are the backend's */
  int64_t pitch;         /* elements from one row of the flat buffers to the next: columns, or padded */
  int64_t rows;          /* in the flat buffers: of a matrix padded with rows of zeros, as its columns are */
  kp_initial initial;
  kp_group group;
  kp_manifold manifold;
  double curvature; /* of the manifold, where it has one */
  int blocks;       /* matrices of equal size stacked along the rows (queries, keys, values); 1: one */
  int counter;      /* 1 + the parameter whose first moments count the steps of each slice of the first
                       dimension: slices without a gradient are left out of a step; 0: all are always stepped */
  int moments;      /* how many of the two the optimizer keeps; 2 until an optimizer says otherwise */
  bool trainable;   /* false: has no gradient */
  bool frozen;      /* by choice: stands behind all others, without room for a gradient and moments */
  bool used;        /* false: kept for another project's checkpoints, no operator reads it */
} kp_parameter;

typedef struct kp_parameters {
  kp_parameter *list;
  int count, capacity;
  int64_t total;   /* elements of the flat buffers, padding included */
  int64_t learned; /* of them, at the front: what buffers of gradients and moments have */
  const kp_backend *backend;
  /* In the backend's memory, of numbers of its wide size; NULL until allocated. */
  void *values, *gradients, *moment1, *moment2;
  void *working; /* where real numbers are narrower: the values in them, in the same places; else NULL */
  kp_arena *arena;
} kp_parameters;

kp_parameters *kp_parameters_create(void);
void kp_parameters_destroy(kp_parameters *parameters);

/* The index of the parameter `name`, adding it when it is new.  Asking again with another shape is an
 * assertion. */
int kp_parameters_add(kp_parameters *parameters, const char *name, int dimensions, const int64_t *shape,
                      kp_initial initial, kp_group group, bool trainable);

/* Says where a parameter lives; KP_MANIFOLD_NONE until then. */
void kp_parameters_set_manifold(kp_parameters *parameters, int index, kp_manifold manifold, double curvature);

/* Says of how many matrices of equal size a parameter's rows are made; 1 until then. */
void kp_parameters_set_blocks(kp_parameters *parameters, int index, int blocks);

/* Says that `index`, a stack along its first dimension, is stepped by AdamW slice by slice, leaving out those
 * without a gradient, as PyTorch does with the parameters of experts that got no token.  `counter`, as long
 * as the stack and not trained, counts in its first moments. */
void kp_parameters_set_counter(kp_parameters *parameters, int index, int counter);

/* Says that a parameter is not to change; before kp_parameters_allocate and before a graph with gradients is
 * built. */
void kp_parameters_freeze(kp_parameters *parameters, int index);

/* The index of `name`, or -1. */
int kp_parameters_find(const kp_parameters *parameters, const char *name);

/* The number of parameters proper, padding left out. */
int64_t kp_parameters_elements(const kp_parameters *parameters);

/* Where parameters stand in the flat buffers of `backend`; kp_parameters_allocate does it too. */
void kp_parameters_lay_out(kp_parameters *parameters, const kp_backend *backend);

/* Allocates the flat buffers in the backend's memory; with `training`, those of gradients and moments too. */
kp_status kp_parameters_allocate(kp_parameters *parameters, const kp_backend *backend, bool training,
                                 kp_error *error);

/* Fills every parameter from its initial distribution, by counter-based random
 * numbers keyed by `seed` and the parameter's name: the same on every backend. */
void kp_parameters_initialise(kp_parameters *parameters, uint64_t seed);

/* Converting copies to and from one parameter (or its gradient, with `buffer`
 * = parameters->gradients). `host` holds list[index].count doubles; an element
 * is one of them, of a backend with the host's memory.  Writing values writes
 * their narrow copy too. */
double kp_parameters_element(const kp_parameters *parameters, const void *buffer, int index, int64_t i);
void kp_parameters_read(const kp_parameters *parameters, const void *buffer, int index, double *host);
void kp_parameters_write(kp_parameters *parameters, void *buffer, int index, const double *host);

/* The same without converting: dense numbers of the backend's wide size. */
kp_status kp_parameters_copy_out(const kp_parameters *parameters, const void *buffer, int index, void *host,
                                 kp_error *error);
kp_status kp_parameters_copy_in(kp_parameters *parameters, void *buffer, int index, const void *host,
                                kp_error *error);

#endif
