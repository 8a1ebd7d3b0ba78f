/* Numbers of files as numbers of the program. */
#ifndef KAPPA_CORE_DTYPE_CONVERT_H
#define KAPPA_CORE_DTYPE_CONVERT_H

#include "core/dtype.h"

/* Whether kp_dtype_convert goes from `dtype` to `wanted`: to F64 and F32 from every type, to I32 from
 * integers and BOOL. */
bool kp_dtype_converts(kp_dtype dtype, kp_dtype wanted);

/* Converts `count` numbers at `data`, which may be unaligned, to `out`.  Floats round to nearest.  Returns
 * how many there are in front of the first that does not fit (1e300 as F32, 2^31 as I32): `count` when all
 * do. */
size_t kp_dtype_convert(kp_dtype dtype, const void *data, size_t count, kp_dtype wanted, void *out);

#endif
