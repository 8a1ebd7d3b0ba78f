/* What a backend is: widths for real numbers, where its memory is, and one kernel per operator.
 *
 * `ref` computes in double and is the specification; `cpu` is fast; `cuda` runs on NVIDIA GPUs.  A kernel
 * reads its inputs, writes all of every output (or adds to it, when the operator accumulates), and touches
 * nothing else but its scratch memory.  Kernels of the host may use all of `run->threads` OpenMP threads;
 * results must not depend on timing. */
#ifndef KAPPA_CORE_BACKEND_H
#define KAPPA_CORE_BACKEND_H

#include "core/device.h"
#include "core/graph.h"

/* What changes from run to run. */
typedef struct kp_run {
  uint64_t seed; /* of the training run: keys the random numbers of dropout */
  uint64_t step; /* counts micro-steps: a counter of the random numbers */
  int threads;
  kp_device *device; /* NULL: the host */
} kp_run;

typedef struct kp_call {
  const kp_node *node;
  void *input[KP_MAX_INPUTS];
  void *output[KP_MAX_OUTPUTS];
  void *scratch; /* as many bytes as the backend's scratch function asked for */
  const kp_run *run;
} kp_call;

typedef kp_status (*kp_kernel)(const kp_call *call, kp_error *error);
/* Runs the first calls of `count` that stand one behind another, as one piece of work; `done` says how many
 * of them, 0 where there is nothing to gain. */
typedef kp_status (*kp_several)(const kp_call *calls, int count, int *done, kp_error *error);
typedef size_t (*kp_scratch_size)(const kp_node *node, int threads);

typedef struct kp_backend {
  const char *name;
  size_t real_size;               /* bytes of a real number: 8, 4, or 2 for bfloat16 */
  size_t wide_size;               /* of a statistic, a master parameter, a gradient, a moment: 8 or 4 */
  int64_t row_multiple;           /* rows of matrices are padded to as many elements; 1: none are */
  const kp_kernel *kernels;       /* by operation; NULL: not there */
  kp_several several;             /* NULL: operators are run one by one */
  const kp_scratch_size *scratch; /* by operation; NULL: none needed */
  kp_device *device;              /* whose memory this is; NULL: the host's */
  const struct kp_picking_driver *picking;     /* the device's own (backend/picking.h); NULL on the host */
  const struct kp_optimizer_driver *optimizer; /* the device's own (optim/driver.h); NULL on the host */
  const struct kp_load_driver *load;           /* the device's own (core/load.h); NULL on the host */
} kp_backend;

/* The number of threads to use for a request: 0 asks for all processors that this process may use. */
int kp_thread_count(int requested);

/* Bytes of one element of `type` on `backend`. */
static inline size_t kp_type_size(const kp_backend *backend, kp_type type) {
  return type == KP_TYPE_INT32       ? sizeof(int32_t)
         : type == KP_TYPE_STATISTIC ? backend->wide_size
                                     : backend->real_size;
}

/* The distance of two rows of a matrix of `columns` columns, in elements.  Matrix units read rows that start
 * at multiples of 16 bytes, so longer rows are padded, with zeros, where the backend asks for it. */
static inline int64_t kp_padded(int64_t count, int64_t multiple) {
  enum { SHORT = 16 };
  return count < SHORT || multiple <= 1 ? count : (count + multiple - 1) / multiple * multiple;
}

/* The same for a tensor: real matrices are padded, and everything in the parameters' flat buffers; vectors,
 * statistics and integers are not. */
static inline int64_t kp_tensor_pitch(const kp_tensor *tensor, int64_t row_multiple) {
  const int64_t columns = tensor->dimensions == 0 ? 1 : tensor->shape[tensor->dimensions - 1];
  const bool flat = tensor->role == KP_ROLE_PARAMETER || tensor->role == KP_ROLE_GRADIENT;
  if (tensor->dimensions < 2 || !(flat || tensor->type == KP_TYPE_REAL)) return columns;
  return kp_padded(columns, row_multiple);
}

/* Rows of a tensor in memory: matrices among the parameters, and their gradients, are padded downwards as
 * well, so that a product may take whole multiples of their outputs. */
static inline int64_t kp_tensor_stored_rows(const kp_tensor *tensor, int64_t row_multiple) {
  const bool flat = tensor->role == KP_ROLE_PARAMETER || tensor->role == KP_ROLE_GRADIENT;
  const int64_t rows = kp_tensor_rows(tensor);
  return flat && tensor->dimensions == 2 ? kp_padded(rows, row_multiple) : rows;
}

/* Bytes of a tensor in the backend's memory, padding included. */
static inline size_t kp_tensor_bytes(const kp_backend *backend, const kp_tensor *tensor) {
  const int64_t rows = kp_tensor_rows(tensor), pitch = kp_tensor_pitch(tensor, backend->row_multiple);
  return (size_t)(rows * pitch) * kp_type_size(backend, tensor->type);
}

#endif
