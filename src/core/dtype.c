#include "core/dtype.h"
#include "core/assert.h"

#include <string.h>

static const struct {
  const char *name;
  size_t size;
} types[] = {
    [KP_F64] = {"F64", 8}, [KP_F32] = {"F32", 4}, [KP_BF16] = {"BF16", 2}, [KP_F16] = {"F16", 2},
    [KP_I64] = {"I64", 8}, [KP_I32] = {"I32", 4}, [KP_I16] = {"I16", 2},   [KP_I8] = {"I8", 1},
    [KP_U8] = {"U8", 1},   [KP_U16] = {"U16", 2}, [KP_U32] = {"U32", 4},   [KP_BOOL] = {"BOOL", 1},
};
_Static_assert(sizeof types / sizeof types[0] == KP_DTYPE_COUNT, "one row a type");

static void check(kp_dtype dtype) {
  kp_assert((unsigned)dtype < KP_DTYPE_COUNT, "there is no dtype %d", (int)dtype);
}

size_t kp_dtype_size(kp_dtype dtype) {
  check(dtype);
  return types[dtype].size;
}

const char *kp_dtype_name(kp_dtype dtype) {
  check(dtype);
  return types[dtype].name;
}

bool kp_dtype_is_float(kp_dtype dtype) {
  check(dtype);
  return dtype <= KP_F16;
}

bool kp_dtype_from_name(const char *name, kp_dtype *dtype) {
  for (int i = 0; i < KP_DTYPE_COUNT; i++) {
    if (strcmp(name, types[i].name) != 0) continue;
    *dtype = (kp_dtype)i;
    return true;
  }
  return false;
}
