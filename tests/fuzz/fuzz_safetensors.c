/* Feeds hostile bytes to the reader of safetensors files: once as a whole
 * file, and once as the JSON header of a file whose length field is right,
 * which a fuzzer rarely guesses.  What is accepted is read in every type. */
#include "core/safetensors.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static const size_t data_size = 256;

static void read_entry(const kp_safetensors *file, const kp_safetensors_entry *entry) {
  static const kp_dtype wanted[] = {KP_F64, KP_F32, KP_I32};
  if (kp_safetensors_find(file, entry->name) != entry) abort();
  void *out = malloc((size_t)entry->elements * sizeof(double) + 1);
  if (out == NULL) abort();
  for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
    kp_error error = {0};
    if (kp_safetensors_read(entry, wanted[i], out, &error) != KP_OK && error.message[0] == 0) abort();
  }
  free(out);
}

static void parse(const uint8_t *data, size_t size) {
  kp_safetensors *file = NULL;
  kp_error error = {0};
  if (kp_safetensors_parse(data, size, "fuzz", &file, &error) != KP_OK) {
    if (file != NULL || error.message[0] == 0) abort();
    return;
  }
  for (size_t i = 0; i < kp_safetensors_count(file); i++) read_entry(file, kp_safetensors_entry_at(file, i));
  kp_safetensors_metadata(file, "format");
  kp_safetensors_close(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  parse(data, size);
  uint64_t length = size;
  uint8_t *framed = malloc(sizeof length + size + data_size);
  if (framed == NULL) abort();
  memcpy(framed, &length, sizeof length);
  if (size > 0) memcpy(framed + sizeof length, data, size);
  memset(framed + sizeof length + size, 0x7f, data_size);
  parse(framed, sizeof length + size + data_size);
  free(framed);
  return 0;
}
