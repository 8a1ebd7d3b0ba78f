/* Elements pass through a small buffer of doubles (from floats, exact) or of 64-bit integers (from integers
 * and BOOL), so that each type is decoded in one place and each wanted type stored in one place. */
#include "core/dtype_convert.h"

#include <math.h>
#include <string.h>

#include "core/assert.h"
#include "core/half.h"

enum { CHUNK = 1024 };

/* Wide loops of their own for floats: all of a model's parameters come through here. */
static void decode_f32(const unsigned char *data, size_t count, double *out) {
  for (size_t i = 0; i < count; i++) {
    float value;
    memcpy(&value, data + i * sizeof value, sizeof value);
    out[i] = (double)value;
  }
}

static void decode_bf16(const unsigned char *data, size_t count, double *out) {
  for (size_t i = 0; i < count; i++) {
    uint16_t value;
    memcpy(&value, data + i * sizeof value, sizeof value);
    out[i] = (double)kp_float_from_bf16(value);
  }
}

static void decode_f16(const unsigned char *data, size_t count, double *out) {
  for (size_t i = 0; i < count; i++) {
    uint16_t value;
    memcpy(&value, data + i * sizeof value, sizeof value);
    out[i] = (double)kp_float_from_f16(value);
  }
}

static void decode_floats(kp_dtype dtype, const unsigned char *data, size_t count, double *out) {
  switch (dtype) {
  case KP_F32: decode_f32(data, count, out); break;
  case KP_BF16: decode_bf16(data, count, out); break;
  case KP_F16: decode_f16(data, count, out); break;
  default: memcpy(out, data, count * sizeof *out); break;
  }
}

/* One little-endian integer of up to 8 bytes, or a BOOL. */
static int64_t decode_integer(kp_dtype dtype, const unsigned char *data) {
  uint64_t bits = 0;
  memcpy(&bits, data, kp_dtype_size(dtype));
  switch (dtype) {
  case KP_I8: return (int8_t)bits;
  case KP_I16: return (int16_t)bits;
  case KP_I32: return (int32_t)bits;
  case KP_BOOL: return bits != 0;
  default: return (int64_t)bits;
  }
}

static void decode_integers(kp_dtype dtype, const unsigned char *data, size_t count, int64_t *out) {
  size_t width = kp_dtype_size(dtype);
  for (size_t i = 0; i < count; i++) out[i] = decode_integer(dtype, data + i * width);
}

/* Each store returns how many elements fitted before the first that does not. */
static size_t store_floats(const double *values, size_t count, kp_dtype wanted, size_t start, void *out) {
  if (wanted == KP_F64) {
    memcpy((double *)out + start, values, count * sizeof *values);
    return count;
  }
  for (size_t i = 0; i < count; i++) {
    float value = (float)values[i];
    if (isinf(value) && !isinf(values[i])) return i;
    ((float *)out)[start + i] = value;
  }
  return count;
}

static size_t store_integers(const int64_t *values, size_t count, kp_dtype wanted, size_t start, void *out) {
  for (size_t i = 0; i < count; i++) {
    if (wanted == KP_F64) {
      ((double *)out)[start + i] = (double)values[i];
    } else if (wanted == KP_F32) {
      ((float *)out)[start + i] = (float)values[i];
    } else {
      if (values[i] < INT32_MIN || values[i] > INT32_MAX) return i;
      ((int32_t *)out)[start + i] = (int32_t)values[i];
    }
  }
  return count;
}

bool kp_dtype_converts(kp_dtype dtype, kp_dtype wanted) {
  return wanted == KP_F64 || wanted == KP_F32 || (wanted == KP_I32 && !kp_dtype_is_float(dtype));
}

size_t kp_dtype_convert(kp_dtype dtype, const void *data, size_t count, kp_dtype wanted, void *out) {
  kp_assert(kp_dtype_converts(dtype, wanted), "%s as %s", kp_dtype_name(dtype), kp_dtype_name(wanted));
  const size_t width = kp_dtype_size(dtype);
  double reals[CHUNK];
  int64_t integers[CHUNK];
  for (size_t start = 0; start < count; start += CHUNK) {
    const unsigned char *from = (const unsigned char *)data + start * width;
    const size_t some = count - start < CHUNK ? count - start : CHUNK;
    size_t stored;
    if (kp_dtype_is_float(dtype)) {
      decode_floats(dtype, from, some, reals);
      stored = store_floats(reals, some, wanted, start, out);
    } else {
      decode_integers(dtype, from, some, integers);
      stored = store_integers(integers, some, wanted, start, out);
    }
    if (stored < some) return start + stored;
  }
  return count;
}
