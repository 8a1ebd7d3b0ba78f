/* Feeds hostile bytes to the reader of PyTorch files: once as a whole file, and once as the pickle inside of
 * a good archive, which a fuzzer rarely builds.  What is accepted is read. */
#include "core/dtype_convert.h"
#include "interchange/torch_file.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Reads the first and the last element, whose places the file chose. */
static void read_entry(const kp_tensors_entry *entry) {
  int64_t last = 0;
  double value;
  if (entry->elements == 0) return;
  for (int i = 0; i < entry->rank; i++) last += (entry->shape[i] - 1) * entry->strides[i];
  kp_dtype_convert(entry->dtype, entry->data, 1, KP_F64, &value);
  kp_dtype_convert(entry->dtype, entry->data + (size_t)last * kp_dtype_size(entry->dtype), 1, KP_F64, &value);
}

static void parse(const uint8_t *data, size_t size) {
  kp_torch *file = NULL;
  kp_error error = {0};
  if (kp_torch_parse(data, size, "fuzz", &file, &error) != KP_OK) {
    if (file != NULL || error.message[0] == 0) abort();
    return;
  }
  size_t count;
  const kp_tensors_entry *entries = kp_torch_entries(file, &count);
  for (size_t i = 0; i < count; i++) read_entry(&entries[i]);
  if (count == 0 || !json_is_object(kp_torch_settings(file))) abort();
  kp_torch_close(file);
}

/* An archive that is being written. */
typedef struct archive {
  uint8_t *data;
  size_t size;
} archive;

static void put(archive *a, const void *bytes, size_t size) {
  if (size > 0) memcpy(a->data + a->size, bytes, size);
  a->size += size;
}

static void put_number(archive *a, uint64_t number, size_t width) {
  put(a, &number, width);
}

/* A header: local or central, which differ in what stands around the common part. */
static void put_header(archive *a, bool central, const char *name, size_t size, size_t place) {
  put(a, central ? "PK\1\2\0\0" : "PK\3\4", central ? 6 : 4);
  put_number(a, 0, 2 + 2); /* version, flags */
  put_number(a, 0, 2);     /* stored */
  put_number(a, 0, 8);     /* time, checksum */
  put_number(a, size, 4);
  put_number(a, size, 4);
  put_number(a, strlen(name), 2);
  put_number(a, 0, 2);
  if (central) {
    put_number(a, 0, 8);
    put_number(a, 0, 2);
    put_number(a, place, 4);
  }
  put(a, name, strlen(name));
}

/* The pickle beside a storage "0" of 64 bytes. */
static void parse_in_archive(const uint8_t *data, size_t size) {
  static const uint8_t storage[64] = {1, 2, 3};
  archive a = {malloc(size + 1024), 0};
  if (a.data == NULL) abort();
  put_header(&a, false, "a/data.pkl", size, 0);
  put(&a, data, size);
  const size_t second = a.size;
  put_header(&a, false, "a/data/0", sizeof storage, 0);
  put(&a, storage, sizeof storage);
  const size_t directory = a.size;
  put_header(&a, true, "a/data.pkl", size, 0);
  put_header(&a, true, "a/data/0", sizeof storage, second);
  const size_t directory_size = a.size - directory;
  put(&a, "PK\5\6\0\0\0\0\2\0\2\0", 12);
  put_number(&a, directory_size, 4);
  put_number(&a, directory, 4);
  put_number(&a, 0, 2);
  parse(a.data, a.size);
  free(a.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  parse(data, size);
  parse_in_archive(data, size);
  return 0;
}
