/* The zip archive around a PyTorch file, read in place: entries are stored, not compressed.
 *
 * Understood are zip and zip64 (APPNOTE 6.3) of one disk, without compression and encryption, as torch.save
 * writes them.  Every entry's bytes lie inside the archive. */
#ifndef KAPPA_INTERCHANGE_TORCH_ZIP_H
#define KAPPA_INTERCHANGE_TORCH_ZIP_H

#include <stddef.h>

#include "core/error.h"

typedef struct kp_zip_entry {
  const char *name; /* inside the archive, `name_size` bytes without a final zero */
  size_t name_size;
  const unsigned char *data; /* `size` bytes */
  size_t size;
} kp_zip_entry;

typedef struct kp_zip {
  kp_zip_entry *entries; /* by name, no two alike */
  size_t count;
} kp_zip;

/* Reads the directory of an archive whose bytes outlive it; `label` names it in messages. */
kp_status kp_zip_parse(const unsigned char *data, size_t size, const char *label, kp_zip *zip,
                       kp_error *error);

/* A zeroed or cleared one is left alone. */
void kp_zip_clear(kp_zip *zip);

/* The entry called `folder`, which may lack a final zero, followed by `name`; or NULL. */
const kp_zip_entry *kp_zip_find(const kp_zip *zip, const char *folder, size_t folder_size, const char *name,
                                size_t name_size);

#endif
