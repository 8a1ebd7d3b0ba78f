#include "interchange/torch_names.h"

#include <string.h>

static const struct {
  const char *module, *name;
  kp_pickle_use use;
} known[] = {
    {"collections", "OrderedDict", KP_PICKLE_MAPPING},
    {"argparse", "Namespace", KP_PICKLE_OBJECT},
    {"torch._utils", "_rebuild_tensor_v2", KP_PICKLE_CALLED},
    {"torch._utils", "_rebuild_tensor_v3", KP_PICKLE_CALLED},
    {"torch._utils", "_rebuild_parameter", KP_PICKLE_CALLED},
    {"torch._tensor", "_rebuild_from_type_v2", KP_PICKLE_CALLED},
    {"torch", "Tensor", KP_PICKLE_MENTIONED},
    {"torch.nn.parameter", "Parameter", KP_PICKLE_MENTIONED},
    {"torch.nn.parameter", "Buffer", KP_PICKLE_MENTIONED},
    {"torch.storage", "UntypedStorage", KP_PICKLE_MENTIONED},
    {"torch", "device", KP_PICKLE_CALLED},
    {"torch", "Size", KP_PICKLE_CALLED},
    {"_codecs", "encode", KP_PICKLE_CALLED},
    {"__builtin__", "set", KP_PICKLE_CALLED},
    {"builtins", "set", KP_PICKLE_CALLED},
    {"pathlib", "PosixPath", KP_PICKLE_CALLED},
    {"numpy", "dtype", KP_PICKLE_CALLED},
    {"numpy", "ndarray", KP_PICKLE_MENTIONED},
    {"numpy.core.multiarray", "_reconstruct", KP_PICKLE_CALLED},
    {"numpy.core.multiarray", "scalar", KP_PICKLE_CALLED},
    {"numpy._core.multiarray", "_reconstruct", KP_PICKLE_CALLED},
    {"numpy._core.multiarray", "scalar", KP_PICKLE_CALLED},
};

static const struct {
  const char *storage, *dtype;
  int type; /* kp_dtype, or -1: known to torch alone */
} types[] = {
    {"DoubleStorage", "float64", KP_F64},
    {"FloatStorage", "float32", KP_F32},
    {"HalfStorage", "float16", KP_F16},
    {"BFloat16Storage", "bfloat16", KP_BF16},
    {"LongStorage", "int64", KP_I64},
    {"IntStorage", "int32", KP_I32},
    {"ShortStorage", "int16", KP_I16},
    {"CharStorage", "int8", KP_I8},
    {"ByteStorage", "uint8", KP_U8},
    {"UInt16Storage", "uint16", KP_U16},
    {"UInt32Storage", "uint32", KP_U32},
    {"BoolStorage", "bool", KP_BOOL},
    {"UInt64Storage", "uint64", -1},
    {"ComplexFloatStorage", "complex64", -1},
    {"ComplexDoubleStorage", "complex128", -1},
    {"ComplexHalfStorage", "complex32", -1},
    {"QInt8Storage", "qint8", -1},
    {"QInt32Storage", "qint32", -1},
    {"QUInt8Storage", "quint8", -1},
    {"Float8_e4m3fnStorage", "float8_e4m3fn", -1},
    {"Float8_e5m2Storage", "float8_e5m2", -1},
    {"Float8_e4m3fnuzStorage", "float8_e4m3fnuz", -1},
    {"Float8_e5m2fnuzStorage", "float8_e5m2fnuz", -1},
    {"Float8_e8m0fnuStorage", "float8_e8m0fnu", -1},
    {"Float4_e2m1fn_x2Storage", "float4_e2m1fn_x2", -1},
};

/* The row of a storage's or a dtype's name, or -1. */
static int find_type(kp_pickle_text name) {
  for (size_t i = 0; i < sizeof types / sizeof *types; i++)
    if (kp_pickle_text_is(name, types[i].storage) || kp_pickle_text_is(name, types[i].dtype)) return (int)i;
  return -1;
}

kp_pickle_use kp_torch_name_use(kp_pickle_text module, kp_pickle_text name) {
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (kp_pickle_text_is(module, known[i].module) && kp_pickle_text_is(name, known[i].name))
      return known[i].use;
  if (kp_pickle_text_is(module, "torch") && find_type(name) >= 0) return KP_PICKLE_MENTIONED;
  return KP_PICKLE_REFUSED;
}

bool kp_torch_dtype(kp_pickle_text name, kp_dtype *dtype) {
  const int row = find_type(name);
  if (row < 0 || types[row].type < 0) return false;
  *dtype = (kp_dtype)types[row].type;
  return true;
}
