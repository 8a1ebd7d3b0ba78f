/* Copies tensors out of a safetensors file with conversion.
 *
 * Elements pass through a small buffer of doubles (from floats, exact) or of
 * 64-bit integers (from integers and BOOL), so that each type is decoded in
 * one place and each wanted type stored in one place. */
#include "core/safetensors.h"
#include "core/half.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

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

static kp_status read_floats(const kp_safetensors_entry *entry, kp_dtype wanted, void *out, kp_error *error) {
  size_t elements = (size_t)entry->elements, width = kp_dtype_size(entry->dtype);
  double values[CHUNK];
  for (size_t start = 0; start < elements; start += CHUNK) {
    size_t count = elements - start < CHUNK ? elements - start : CHUNK;
    decode_floats(entry->dtype, entry->data + start * width, count, values);
    size_t stored = store_floats(values, count, wanted, start, out);
    if (stored < count)
      return kp_fail(
          error, KP_ERR_NUMERIC,
          "element %zu of tensor '%.120s' of '%s' is %g, too large for float32; read it as float64",
          start + stored, entry->name, kp_safetensors_label(entry->file), values[stored]);
  }
  return KP_OK;
}

static kp_status read_integers(const kp_safetensors_entry *entry, kp_dtype wanted, void *out,
                               kp_error *error) {
  size_t elements = (size_t)entry->elements, width = kp_dtype_size(entry->dtype);
  int64_t values[CHUNK];
  for (size_t start = 0; start < elements; start += CHUNK) {
    size_t count = elements - start < CHUNK ? elements - start : CHUNK;
    decode_integers(entry->dtype, entry->data + start * width, count, values);
    size_t stored = store_integers(values, count, wanted, start, out);
    if (stored < count)
      return kp_fail(error, KP_ERR_NUMERIC,
                     "element %zu of tensor '%.120s' of '%s' is %" PRId64
                     ", too large for a 32-bit integer; is it really an index?",
                     start + stored, entry->name, kp_safetensors_label(entry->file), values[stored]);
  }
  return KP_OK;
}

kp_status kp_safetensors_read(const kp_safetensors_entry *entry, kp_dtype wanted, void *out,
                              kp_error *error) {
  if (wanted == entry->dtype) {
    if (entry->size > 0) memcpy(out, entry->data, entry->size);
    return KP_OK;
  }
  bool from_float = kp_dtype_is_float(entry->dtype);
  if (wanted == KP_F64 || wanted == KP_F32)
    return from_float ? read_floats(entry, wanted, out, error) : read_integers(entry, wanted, out, error);
  if (wanted == KP_I32 && !from_float) return read_integers(entry, wanted, out, error);
  return kp_fail(error, KP_ERR_INPUT,
                 "tensor '%.120s' of '%s' holds %s, which cannot be read as %s; write it with that type",
                 entry->name, kp_safetensors_label(entry->file), kp_dtype_name(entry->dtype),
                 kp_dtype_name(wanted));
}
