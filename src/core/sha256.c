#include "core/sha256.h"
#include "core/file.h"

#include <nettle/sha2.h>
#include <stdbool.h>
#include <stdlib.h>

void kp_sha256_bytes(const void *data, size_t size, unsigned char digest[KP_SHA256_SIZE]) {
  struct sha256_ctx context;
  sha256_init(&context);
  if (size > 0) sha256_update(&context, size, data);
  sha256_digest(&context, KP_SHA256_SIZE, digest);
}

void kp_sha256_digits(const unsigned char digest[KP_SHA256_SIZE], char hex[KP_SHA256_HEX_SIZE]) {
  static const char digits[] = "0123456789abcdef";
  for (size_t i = 0; i < KP_SHA256_SIZE; i++) {
    hex[2 * i] = digits[digest[i] >> 4];
    hex[2 * i + 1] = digits[digest[i] & 15];
  }
  hex[2 * KP_SHA256_SIZE] = 0;
}

void kp_sha256(const void *data, size_t size, char hex[KP_SHA256_HEX_SIZE]) {
  unsigned char digest[KP_SHA256_SIZE];
  kp_sha256_bytes(data, size, digest);
  kp_sha256_digits(digest, hex);
}

kp_status kp_sha256_file(const char *path, char hex[KP_SHA256_HEX_SIZE], kp_error *error) {
  kp_file_map map;
  KP_TRY(kp_file_map_open(path, KP_EMPTY_ALLOWED, &map, error));
  kp_sha256(map.data, map.size, hex);
  kp_file_map_close(&map);
  return KP_OK;
}

kp_status kp_sha256_printed(kp_status (*print)(FILE *out, const void *context, kp_error *error),
                            const void *context, char hex[KP_SHA256_HEX_SIZE], kp_error *error) {
  char *words = NULL;
  size_t size = 0;
  FILE *out = open_memstream(&words, &size);
  if (out == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for a description");
  kp_status status = print(out, context, error);
  const bool written = fclose(out) == 0;
  if (status == KP_OK && !written) status = kp_fail(error, KP_ERR_MEMORY, "no memory for a description");
  if (status == KP_OK) kp_sha256(words, size, hex);
  free(words);
  return status;
}
