/* Types of the numbers in tensors and files, with their safetensors names. */
#ifndef KAPPA_CORE_DTYPE_H
#define KAPPA_CORE_DTYPE_H

#include <stdbool.h>
#include <stddef.h>

typedef enum kp_dtype {
  KP_F64,
  KP_F32,
  KP_BF16, /* upper half of a float32 */
  KP_F16,  /* IEEE half precision */
  KP_I64,
  KP_I32,
  KP_I16,
  KP_I8,
  KP_U8,
  KP_U16,
  KP_U32,
  KP_BOOL, /* one byte, 0 or 1 */
} kp_dtype;

enum { KP_DTYPE_COUNT = KP_BOOL + 1 };

/* Bytes of one number. */
size_t kp_dtype_size(kp_dtype dtype);

/* "F64", "BF16", ...: what safetensors files call it. */
const char *kp_dtype_name(kp_dtype dtype);

/* True for F64, F32, BF16 and F16. */
bool kp_dtype_is_float(kp_dtype dtype);

/* Finds the type with that name; false when there is none. */
bool kp_dtype_from_name(const char *name, kp_dtype *dtype);

#endif
