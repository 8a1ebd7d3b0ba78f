/* Byte-pair encoding of one piece: of all neighbours that may merge, those of the lowest rank do, the
 * leftmost first, until none may (Sennrich, Haddow, Birch 2016, arXiv 1508.07909).
 *
 * Short pieces are merged in place by looking through them; long ones through a heap of pairs, in
 * O(n log n). */
#ifndef KAPPA_DATA_BPE_MERGE_H
#define KAPPA_DATA_BPE_MERGE_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "data/merge_table.h"

/* Pieces of at most this many tokens are short. */
enum { KP_BPE_SHORT = 64 };

/* Merges ids[0 .. count) in place; returns how many are left.  At most KP_BPE_SHORT. */
size_t kp_bpe_merge_short(const kp_merge_table *table, int32_t *ids, size_t count);

/* The same for any number below 2^32 - 1; needs some 24 bytes of memory a token while it runs. */
kp_status kp_bpe_merge_long(const kp_merge_table *table, int32_t *ids, size_t *count, kp_error *error);

#endif
