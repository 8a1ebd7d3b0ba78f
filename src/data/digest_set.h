/* The digests of documents that were seen, to know duplicates.
 *
 * 128 bits of SHA-256 are kept of each: two documents that differ share them with a chance of 2^-75 among ten
 * million.  16 bytes a slot, at most three quarters of the slots are taken. */
#ifndef KAPPA_DATA_DIGEST_SET_H
#define KAPPA_DATA_DIGEST_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "core/sha256.h"

/* The largest table: 4 GiB, for 200 million documents. */
#define KP_DIGEST_SLOTS_MOST ((size_t)1 << 28)

/* Zero-initialise; kp_digest_set_clear frees it. */
typedef struct kp_digest_set {
  uint64_t (*slots)[2]; /* owned; both 0: free */
  size_t slot_count, count;
} kp_digest_set;

/* Adds a digest; *added is false when it is there already.  A table that would outgrow the largest is an
 * error. */
kp_status kp_digest_set_add(kp_digest_set *set, const unsigned char digest[KP_SHA256_SIZE], bool *added,
                            kp_error *error);
void kp_digest_set_clear(kp_digest_set *set);

#endif
