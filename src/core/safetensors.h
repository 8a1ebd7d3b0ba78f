/* Files of named tensors (safetensors): reader and writer.
 *
 *   8 bytes          length H of the header, little endian
 *   H bytes          JSON object: name -> {"dtype", "shape", "data_offsets"}, and "__metadata__"
 *   the rest         the tensors' bytes, row-major, little endian; offsets count from here
 *
 * The reader trusts nothing in a file: after kp_safetensors_open every entry's
 * bytes lie inside the file and agree with its type and shape, no two entries
 * share a byte, and no product of a shape overflows.  Holes between tensors
 * are accepted, and so is data that is not aligned to its type: copy with
 * kp_safetensors_read or memcpy, never through a cast pointer.
 *
 * The writer (kp_safetensors_writer_*) gives the same bytes for the same
 * tensors and metadata, whatever the order of the calls. */
#ifndef KAPPA_CORE_SAFETENSORS_H
#define KAPPA_CORE_SAFETENSORS_H

#include "core/dtype.h"
#include "core/error.h"

#include <stddef.h>
#include <stdint.h>

enum { KP_SAFETENSORS_MAX_RANK = 8, KP_SAFETENSORS_MAX_HEADER = 100 * 1000 * 1000 };

typedef struct kp_safetensors kp_safetensors;

/* One tensor of an open file; it lives as long as the file is open. */
typedef struct kp_safetensors_entry {
  const char *name; /* UTF-8 */
  kp_dtype dtype;
  int rank; /* 0 for a scalar */
  int64_t shape[KP_SAFETENSORS_MAX_RANK];
  int64_t elements;          /* product of the shape */
  size_t size;               /* bytes: elements * kp_dtype_size(dtype) */
  const unsigned char *data; /* inside the mapped file, perhaps unaligned */
  const kp_safetensors *file;
} kp_safetensors_entry;

/* Maps and checks a file.  *file is NULL on failure; the caller closes it. */
kp_status kp_safetensors_open(const char *path, kp_safetensors **file, kp_error *error);

/* Same for bytes in memory, which must outlive the result.  `label` names them
 * in messages. */
kp_status kp_safetensors_parse(const void *data, size_t size, const char *label, kp_safetensors **file,
                               kp_error *error);

/* Frees and unmaps; NULL is allowed. */
void kp_safetensors_close(kp_safetensors *file);

/* Entries in the order of their bytes in the file. */
size_t kp_safetensors_count(const kp_safetensors *file);
const kp_safetensors_entry *kp_safetensors_entry_at(const kp_safetensors *file, size_t index);

/* The path or label that the file was opened with. */
const char *kp_safetensors_label(const kp_safetensors *file);

/* The entry of that name, or NULL. */
const kp_safetensors_entry *kp_safetensors_find(const kp_safetensors *file, const char *name);

/* Same, but a missing entry is an error that names file and tensor. */
kp_status kp_safetensors_require(const kp_safetensors *file, const char *name,
                                 const kp_safetensors_entry **entry, kp_error *error);

/* Same, and the shape must be the given one. */
kp_status kp_safetensors_require_shape(const kp_safetensors *file, const char *name, int rank,
                                       const int64_t *shape, const kp_safetensors_entry **entry,
                                       kp_error *error);

/* The text that `__metadata__` has for the key, or NULL. */
const char *kp_safetensors_metadata(const kp_safetensors *file, const char *key);

/* Copies all elements to `out` (entry->elements numbers of type `wanted`),
 * converted.  `wanted` is the entry's own type, F64, F32 or I32.  To F64 and
 * F32 every type converts, rounding to nearest; to I32 only integers and
 * BOOL.  A value that does not fit (1e300 as F32, 2^31 as I32) is an error. */
kp_status kp_safetensors_read(const kp_safetensors_entry *entry, kp_dtype wanted, void *out, kp_error *error);

/* Writes one file.  Call metadata and declare for everything, then write each
 * tensor's bytes, in any order and any pieces, then commit:
 *
 *   kp_safetensors_writer *writer;
 *   kp_safetensors_writer_create("model.safetensors", &writer, error)
 *   kp_safetensors_writer_declare(writer, "weight", KP_F32, 2, (int64_t[]){8, 4}, error)
 *   kp_safetensors_writer_write(writer, "weight", weight, 8 * 4 * sizeof(float), error)
 *   kp_safetensors_writer_commit(writer, error)
 *   kp_safetensors_writer_destroy(writer)
 *
 * The file appears with commit, whole (core/atomic_file.h).  Tensors lie
 * without gaps, wider types first and then by name, so that each is aligned to
 * its type; the first starts at a multiple of 256 bytes. */
typedef struct kp_safetensors_writer kp_safetensors_writer;

kp_status kp_safetensors_writer_create(const char *path, kp_safetensors_writer **writer, kp_error *error);

/* Adds a pair to `__metadata__`; a second value for a key replaces the first.
 * "format" is "pt" unless set. */
kp_status kp_safetensors_writer_metadata(kp_safetensors_writer *writer, const char *key, const char *value,
                                         kp_error *error);

/* Announces a tensor; all are announced before the first write. */
kp_status kp_safetensors_writer_declare(kp_safetensors_writer *writer, const char *name, kp_dtype dtype,
                                        int rank, const int64_t *shape, kp_error *error);

/* Writes the next `size` bytes of the tensor. */
kp_status kp_safetensors_writer_write(kp_safetensors_writer *writer, const char *name, const void *data,
                                      size_t size, kp_error *error);

/* Fails when a tensor is not complete; else the file stands at its path. */
kp_status kp_safetensors_writer_commit(kp_safetensors_writer *writer, kp_error *error);

/* Frees; what was not committed is dropped.  NULL is allowed. */
void kp_safetensors_writer_destroy(kp_safetensors_writer *writer);

#endif
