/* Copies tensors out of a safetensors file with conversion. */
#include "core/safetensors.h"

#include <string.h>

#include "core/dtype_convert.h"

kp_status kp_safetensors_read(const kp_safetensors_entry *entry, kp_dtype wanted, void *out,
                              kp_error *error) {
  const char *label = kp_safetensors_label(entry->file);
  if (wanted == entry->dtype) {
    if (entry->size > 0) memcpy(out, entry->data, entry->size);
    return KP_OK;
  }
  if (!kp_dtype_converts(entry->dtype, wanted))
    return kp_fail(error, KP_ERR_INPUT,
                   "tensor '%.120s' of '%s' holds %s, which cannot be read as %s; write it with that type",
                   entry->name, label, kp_dtype_name(entry->dtype), kp_dtype_name(wanted));
  const size_t count = (size_t)entry->elements;
  const size_t stored = kp_dtype_convert(entry->dtype, entry->data, count, wanted, out);
  if (stored == count) return KP_OK;
  double value;
  kp_dtype_convert(entry->dtype, entry->data + stored * kp_dtype_size(entry->dtype), 1, KP_F64, &value);
  return kp_fail(error, KP_ERR_NUMERIC, "element %zu of tensor '%.120s' of '%s' is %.15g, too large for %s",
                 stored, entry->name, label, value,
                 wanted == KP_F32 ? "float32; read it as float64"
                                  : "a 32-bit integer; is it really an index?");
}
