/* SHA-256 checksums as 64 hexadecimal digits, computed by nettle: a small
 * library without state or allocation, so hashing memory cannot fail. */
#ifndef KAPPA_CORE_SHA256_H
#define KAPPA_CORE_SHA256_H

#include "core/error.h"

#include <stddef.h>
#include <stdio.h>

enum { KP_SHA256_SIZE = 32, KP_SHA256_HEX_SIZE = 65 };

/* The checksum's bytes, and their digits. */
void kp_sha256_bytes(const void *data, size_t size, unsigned char digest[KP_SHA256_SIZE]);
void kp_sha256_digits(const unsigned char digest[KP_SHA256_SIZE], char hex[KP_SHA256_HEX_SIZE]);

/* Lower-case digits and a final zero. */
void kp_sha256(const void *data, size_t size, char hex[KP_SHA256_HEX_SIZE]);

/* The checksum of what `print` writes of the context. */
kp_status kp_sha256_printed(kp_status (*print)(FILE *out, const void *context, kp_error *error),
                            const void *context, char hex[KP_SHA256_HEX_SIZE], kp_error *error);

/* The checksum of a regular file's bytes; an empty file has one too. */
kp_status kp_sha256_file(const char *path, char hex[KP_SHA256_HEX_SIZE], kp_error *error);

#endif
