/* What a thread needs to encode: its place in a text, a cache of pieces, and room for a long one.  A pool
 * keeps those that are not in use, so that each is made once. */
#ifndef KAPPA_DATA_BPE_SCRATCH_H
#define KAPPA_DATA_BPE_SCRATCH_H

#include <stdint.h>

#include "data/pretokenizer.h"

/* A piece and its ids, in one line of the processor's cache.  Longer ones are not kept. */
enum { KP_CACHED_BYTES = 22, KP_CACHED_IDS = 10, KP_CACHED_PIECES = 1 << 15 };
typedef struct kp_cached_piece {
  uint8_t size; /* 0: the place is free */
  uint8_t count;
  char bytes[KP_CACHED_BYTES];
  int32_t ids[KP_CACHED_IDS];
} kp_cached_piece;

typedef struct kp_bpe_scratch {
  kp_pieces *pieces;
  kp_cached_piece *cache; /* (KP_CACHED_PIECES), a piece stands in the place of its hash or nowhere */
  struct kp_bpe_scratch *next;
} kp_bpe_scratch;

typedef struct kp_bpe_pool kp_bpe_pool;

kp_status kp_bpe_pool_create(const kp_pretokenizer *pretokenizer, kp_bpe_pool **pool, kp_error *error);
void kp_bpe_pool_destroy(kp_bpe_pool *pool);

/* Takes one out, made if none is free, and puts it back; any thread may. */
kp_status kp_bpe_pool_take(kp_bpe_pool *pool, kp_bpe_scratch **scratch, kp_error *error);
void kp_bpe_pool_give(kp_bpe_pool *pool, kp_bpe_scratch *scratch);

/* The place of a piece of at most KP_CACHED_BYTES bytes. */
kp_cached_piece *kp_cached_place(const kp_bpe_scratch *scratch, const char *bytes, size_t size);

#endif
