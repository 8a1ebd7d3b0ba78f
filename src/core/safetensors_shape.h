/* The size of a tensor in a file, shared by the reader and the writer of
 * safetensors; no product may overflow. */
#ifndef KAPPA_CORE_SAFETENSORS_SHAPE_H
#define KAPPA_CORE_SAFETENSORS_SHAPE_H

#include "core/dtype.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Elements and bytes of a shape.  False when a dimension is negative or when
 * the product does not fit, in which zeros do not count: {0, 2^62, 2^62} is
 * refused too, since code that multiplies part of a shape would overflow. */
static inline bool kp_safetensors_measure(kp_dtype dtype, int rank, const int64_t *shape, int64_t *elements,
                                          size_t *size) {
  int64_t product = (int64_t)kp_dtype_size(dtype);
  bool empty = false;
  for (int i = 0; i < rank; i++) {
    if (shape[i] < 0) return false;
    if (shape[i] == 0)
      empty = true;
    else if (__builtin_mul_overflow(product, shape[i], &product))
      return false;
  }
  *size = empty ? 0 : (size_t)product;
  *elements = (int64_t)(*size / kp_dtype_size(dtype));
  return true;
}

#endif
