#include "interchange/torch_tensor.h"

#include <stdio.h>
#include <string.h>

#include "core/safetensors_shape.h"
#include "interchange/torch_names.h"

enum { LONGEST_KEY = 100 };

/* A tensor that is being put together. */
typedef struct rebuilding {
  const kp_torch_archive *archive;
  const char *name;
  kp_error *error;
  int64_t stored; /* elements of its storage */
} rebuilding;

static kp_status damaged(const rebuilding *r, const char *what) {
  kp_fail(r->error, KP_ERR_INPUT, "tensor '%.120s' of '%s' %s; save the file again with torch", r->name,
          r->archive->label, what);
  return KP_ERR_INPUT;
}

static bool calls(const kp_pickle_value *value, const char *module, const char *name) {
  return value->kind == KP_PICKLE_CALL && kp_pickle_is_global(value->call.callee, module, name);
}

/* Argument `index` of a call, or NULL. */
static const kp_pickle_value *argument(const kp_pickle_value *tuple, size_t index) {
  if (tuple->kind != KP_PICKLE_TUPLE || index >= tuple->list.count) return NULL;
  return tuple->list.items[index];
}

/* The arguments of _rebuild_tensor_v2 or _v3, perhaps inside of a parameter or a tensor with attributes:
 *
 *   _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)
 *   _rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype)
 *   _rebuild_parameter(tensor, requires_grad, hooks)
 *   _rebuild_from_type_v2(rebuild, type, arguments, state)
 *
 * NULL when the value is no tensor. */
static const kp_pickle_value *rebuild_arguments(const kp_pickle_value *value) {
  for (int depth = 0; depth < 4 && value != NULL && value->kind == KP_PICKLE_CALL; depth++) {
    const kp_pickle_value *callee = value->call.callee, *arguments = value->call.arguments;
    if (kp_pickle_is_global(callee, "torch._tensor", "_rebuild_from_type_v2")) {
      callee = argument(value->call.arguments, 0);
      arguments = argument(value->call.arguments, 2);
      if (callee == NULL || arguments == NULL) return NULL;
    }
    if (kp_pickle_is_global(callee, "torch._utils", "_rebuild_tensor_v2") ||
        kp_pickle_is_global(callee, "torch._utils", "_rebuild_tensor_v3"))
      return arguments;
    if (!kp_pickle_is_global(callee, "torch._utils", "_rebuild_parameter")) return NULL;
    value = argument(arguments, 0);
  }
  return NULL;
}

bool kp_torch_is_tensor(const kp_pickle_value *value) {
  return rebuild_arguments(value) != NULL;
}

static kp_status find_dtype(const rebuilding *r, const kp_pickle_value *type, kp_dtype *dtype) {
  if (type == NULL || type->kind != KP_PICKLE_GLOBAL) return damaged(r, "has no type");
  if (kp_torch_dtype(type->global.name, dtype)) return KP_OK;
  char words[160];
  kp_pickle_describe(type, words, sizeof words);
  return kp_fail(r->error, KP_ERR_UNSUPPORTED,
                 "tensor '%.120s' of '%s' holds numbers of %s, which kappa does not know; convert it to "
                 "float32 or bfloat16",
                 r->name, r->archive->label, words);
}

/* The persistent id is ("storage", type, key, device, elements); an untyped storage counts bytes, and the
 * type is then the tensor's own, argument 6. */
static kp_status find_storage(rebuilding *r, const kp_pickle_value *arguments, kp_tensors_entry *entry) {
  const kp_pickle_value *storage = argument(arguments, 0);
  if (storage == NULL || storage->kind != KP_PICKLE_REFERENCE) return damaged(r, "has no storage");
  const kp_pickle_value *type = argument(storage->reference, 1), *key = argument(storage->reference, 2);
  const kp_pickle_value *count = argument(storage->reference, 4);
  if (type == NULL || key == NULL || count == NULL || key->kind != KP_PICKLE_TEXT ||
      key->text.size > LONGEST_KEY || count->kind != KP_PICKLE_INTEGER || count->integer < 0)
    return damaged(r, "has a storage that says not which");
  const bool untyped = kp_pickle_is_global(type, "torch.storage", "UntypedStorage");
  KP_TRY(find_dtype(r, untyped ? argument(arguments, 6) : type, &entry->dtype));
  char path[LONGEST_KEY + 8];
  snprintf(path, sizeof path, "data/%.*s", (int)key->text.size, key->text.data);
  const kp_zip_entry *bytes =
      kp_zip_find(&r->archive->zip, r->archive->folder, r->archive->folder_size, path, strlen(path));
  if (bytes == NULL) return damaged(r, "has a storage that is not in the file");
  const int64_t width = (int64_t)kp_dtype_size(entry->dtype);
  r->stored = untyped ? count->integer / width : count->integer;
  if ((uint64_t)r->stored > bytes->size / (uint64_t)width)
    return damaged(r, "has a storage of fewer bytes than it says");
  entry->data = bytes->data;
  return KP_OK;
}

/* Non-negative sizes out of a tuple, or a torch.Size. */
static kp_status read_sizes(const rebuilding *r, const kp_pickle_value *tuple, int64_t *sizes, int *rank) {
  if (tuple != NULL && calls(tuple, "torch", "Size")) tuple = argument(tuple->call.arguments, 0);
  if (tuple == NULL || tuple->kind != KP_PICKLE_TUPLE) return damaged(r, "has no shape");
  if (tuple->list.count > KP_TENSORS_MAX_RANK) return damaged(r, "has more than 8 dimensions");
  *rank = (int)tuple->list.count;
  for (int i = 0; i < *rank; i++) {
    const kp_pickle_value *size = tuple->list.items[i];
    if (size->kind != KP_PICKLE_INTEGER || size->integer < 0) return damaged(r, "has a size below zero");
    sizes[i] = size->integer;
  }
  return KP_OK;
}

/* Every element must lie in the storage; one that lies there several times over (an expanded view) would make
 * much out of little. */
static kp_status place(const rebuilding *r, const kp_pickle_value *offset, kp_tensors_entry *entry) {
  if (offset == NULL || offset->kind != KP_PICKLE_INTEGER || offset->integer < 0)
    return damaged(r, "has no offset");
  if (entry->elements == 0) return KP_OK;
  int64_t last = offset->integer;
  for (int i = 0; i < entry->rank; i++) {
    int64_t reach;
    if (__builtin_mul_overflow(entry->shape[i] - 1, entry->strides[i], &reach) ||
        __builtin_add_overflow(last, reach, &last))
      return damaged(r, "reaches outside of its storage");
  }
  if (last >= r->stored) return damaged(r, "reaches outside of its storage");
  if (entry->elements > r->stored)
    return damaged(r, "is an expanded view of fewer numbers, to be saved as tensor.clone()");
  entry->data += (size_t)offset->integer * kp_dtype_size(entry->dtype);
  return KP_OK;
}

kp_status kp_torch_tensor(const kp_torch_archive *archive, const kp_pickle_value *value, const char *name,
                          kp_tensors_entry *entry, kp_error *error) {
  rebuilding r = {.archive = archive, .name = name, .error = error};
  const kp_pickle_value *arguments = rebuild_arguments(value);
  int stride_rank;
  size_t size;
  if (arguments == NULL) return damaged(&r, "is no tensor");
  KP_TRY(find_storage(&r, arguments, entry));
  KP_TRY(read_sizes(&r, argument(arguments, 2), entry->shape, &entry->rank));
  KP_TRY(read_sizes(&r, argument(arguments, 3), entry->strides, &stride_rank));
  if (stride_rank != entry->rank) return damaged(&r, "has strides of another rank");
  if (!kp_safetensors_measure(entry->dtype, entry->rank, entry->shape, &entry->elements, &size))
    return damaged(&r, "has too many elements");
  return place(&r, argument(arguments, 1), entry);
}
